"""Selections of CheXpert 5x200 as people have them: right, or refused by name."""

import json

import pytest

from data_prep import chexpert_5x200
from data_prep.kit import cli
from tests.data_prep import label_sets
from tests.data_prep.odd_files import Odd, append, both, check, content, damaged, edit, table
from tests.data_prep.odd_files import write_image as write
from tests.data_prep.test_chexpert import HEADER, path_of, row

ONE, TWO = (f"train/patient0000{n}/study1/view1_frontal" for n in (1, 2))
EDEMA, EFFUSION = (0, 0, 0, 1, 0), (0, 0, 0, 0, 1)
LIST, JSON, CSV = "list.txt", "prior.json", "list.csv"


@pytest.fixture
def root(tmp_path):
    """Two selected images, a third one in the table, and the selection in three forms."""
    base = tmp_path / "CheXpert-v1.0-small"
    base.mkdir()
    train = [
        row(path_of(1), Edema="1.0"),
        row(path_of(2), sex="Male", Pleural_Effusion="1.0"),
        row(path_of(3), Edema="1.0", Atelectasis="1.0"),
    ]
    (base / "train.csv").write_text("\n".join([HEADER, *train]) + "\n")
    for number in (1, 2, 3):
        write(base / f"train/patient0000{number}/study1/view1_frontal.jpg", number)
    (base / LIST).write_text(f"{path_of(1)}\n{path_of(2)}\n")
    (base / CSV).write_text(f"Path,other\n{path_of(1)},x\n{path_of(2)},y\n")
    rows = {"5": entry(ONE, EDEMA), "8": entry(TWO, EFFUSION)}
    (base / JSON).write_text(json.dumps(rows))
    return base


def entry(name, label):
    return {"image_path": f"{name}.jpg", "label": list(label)}


def prepare(root, *, selection=LIST, **settings):
    return chexpert_5x200.prepare(
        chexpert_5x200.Paths(root=str(root), selection=selection and str(root / selection)),
        chexpert_5x200.Settings(short_side=32, **settings),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


def listed(name, *lines, wrong="", **expected):
    """A case of lines behind those of the list; `wrong` is the id and the pattern of the last."""
    rejected = {wrong[0]: wrong[1]} if wrong else {}
    return Odd(name, append(LIST, *lines), rejected=rejected | expected.pop("also", {}), **expected)


def of_json(name, change, **expected):
    """A case of a change of PRIOR's JSON, as a dict or as bytes."""

    def write_json(content):
        changed = change(json.loads(content))
        return changed if isinstance(changed, bytes) else json.dumps(changed).encode()

    settings = {"selection": JSON}
    return Odd(name, content(JSON, write_json), settings=settings, **expected)


def second(label):
    return lambda rows: {**rows, "8": entry(TWO, label)}


def malformed(name, label):
    wrong = {TWO: r"malformed_labels: prior\.json:2: its label is"}
    return of_json(name, second(label), rejected=wrong)


def twice(rows):
    text = json.dumps(rows)
    return (text[:-1] + ", " + json.dumps({"8": entry(TWO, EDEMA)})[1:]).encode()


FOUND = {ONE: {"labels": EDEMA, "sex": "F"}, TWO: {"labels": EFFUSION, "sex": "M"}}
AS_JSON = {"selection": JSON}
AS_CSV = {"selection": CSV}
RULE = {"selection": "", "count": 1}
SEVEN = "train/patient00007/study1/view1_frontal"


def four_more(root):
    """One image of each of the three findings that the table lacks."""
    tasks = {4: "Atelectasis", 5: "Cardiomegaly", 6: "Consolidation"}
    append("train.csv", *(row(path_of(n), **{task: "1.0"}) for n, task in tasks.items()))(root)
    for number in tasks:
        write(root / f"train/patient0000{number}/study1/view1_frontal.jpg", number)


def drawn(name, change, **expected):
    return Odd(name, both(four_more, change), settings=RULE, **expected)


DRAWN = {f"train/patient0000{n}/study1/view1_frontal": {} for n in (4, 5, 6)}
CASES = [
    *damaged(f"{TWO}.jpg", name=TWO),
    Odd("list_with_bom", content(LIST, lambda b: b"\xef\xbb\xbf" + b), records=FOUND),
    Odd("list_with_crlf", content(LIST, lambda b: b.replace(b"\n", b"\r\n")), records=FOUND),
    Odd("list_in_utf16", content(LIST, lambda b: b.decode().encode("utf-16")), refused=LIST),
    Odd("list_empty", content(LIST, lambda _: b"\n\n"), refused=rf"{LIST}: It holds no id"),
    Odd("list_absent", lambda root: (root / LIST).unlink(), refused="--selection"),
    listed("blank_lines", "", "   ", "", records=FOUND),
    listed(
        "path_twice",
        path_of(1),
        records=FOUND,
        wrong=(ONE, r"duplicate_row: list\.txt:3: entry 1 names"),
    ),
    listed(
        "labels_behind_the_path",
        f"{path_of(3)} 1 0",
        wrong=("train/patient00003/study1/view1_frontal", "not_one_finding.*Atelectasis, Edema"),
    ),
    listed("image_without_row", path_of(7), wrong=(SEVEN, r"listed_without_row: list\.txt:3: ")),
    listed(
        "path_without_patient", "images/7.jpg", wrong=("images/7.jpg", r"unknown_path: list\.txt:3")
    ),
    Odd("list_of_other_prefix", edit(LIST, ("v1.0-small", "v1.0")), records=FOUND),
    Odd("list_with_windows_paths", content(LIST, lambda b: b.replace(b"/", b"\\")), records=FOUND),
    Odd("csv", lambda root: None, settings=AS_CSV, records=FOUND),
    Odd("csv_with_semicolons", content(CSV, lambda b: b.replace(b",", b";")), settings=AS_CSV),
    Odd(
        "csv_without_header",
        content(CSV, lambda b: b.split(b"\n", 1)[1]),
        settings=AS_CSV,
        refused=r"list\.csv: Its first line should name its columns",
    ),
    Odd(
        "csv_with_a_cut_row",
        append(CSV, path_of(3)),
        settings=AS_CSV,
        refused=r"list\.csv: Line 4 cannot be read",
    ),
    of_json("json", lambda rows: rows, records=FOUND),
    of_json(
        "json_with_bom", lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode(), records=FOUND
    ),
    of_json("json_with_a_label_of_fractions", second((0.0, 0.0, 0.0, 0.0, 1.0)), records=FOUND),
    malformed("json_with_two_findings", (1, 0, 0, 0, 1)),
    malformed("json_without_a_finding", (0, 0, 0, 0, 0)),
    malformed("json_with_four_labels", (0, 0, 0, 1)),
    malformed("json_with_labels_of_2", (0, 0, 0, 0, 2)),
    of_json(
        "json_with_a_label_as_text",
        lambda rows: {**rows, "8": {**rows["8"], "label": "[0, 0, 0, 0, 1]"}},
        rejected={TWO: "malformed_labels"},
    ),
    of_json(
        "json_with_a_path_that_is_none",
        lambda rows: {**rows, "9": {"image_path": None, "label": EDEMA}},
        rejected={"None": r"unknown_path: prior\.json:3"},
    ),
    of_json("json_with_a_key_twice", twice, refused=r"prior\.json: .*the key '8' stands twice"),
    of_json(
        "json_with_a_row_without_label",
        lambda rows: {**rows, "9": {"image_path": "x"}},
        refused="row '9' has no image_path or no label",
    ),
    of_json("json_with_a_list", lambda rows: list(rows.values()), refused="it is a list"),
    of_json("json_without_rows", lambda _: {}, refused="it has no row"),
    of_json("json_cut", lambda rows: json.dumps(rows).encode()[:-9], refused=r"prior\.json: "),
    of_json("json_nested_deeply", lambda _: b"[" * 99_999, refused="nested too deeply"),
    of_json(
        "json_with_an_image_twice",
        lambda rows: {**rows, "9": entry(TWO, EFFUSION)},
        rejected={TWO: r"duplicate_row: prior\.json:3: entry 2 names it"},
        records=FOUND,
    ),
    of_json(
        "json_with_an_image_of_two_labels",
        lambda rows: {**rows, "9": entry(ONE, EFFUSION)},
        rejected={ONE: r"conflicting_rows: "},
    ),
    Odd(
        "json_without_a_table",
        lambda root: (root / "train.csv").unlink(),
        settings=AS_JSON,
        records={ONE: {"labels": EDEMA, "sex": ""}},
    ),
    Odd(
        "list_without_a_table",
        lambda root: (root / "train.csv").unlink(),
        refused="listed_without_row",
    ),
    Odd(
        "rule_without_a_table",
        lambda root: (root / "train.csv").unlink(),
        settings=RULE,
        refused=r"--root: .*train\.csv",
    ),
    Odd("rule_with_too_few", lambda root: None, settings=RULE, refused="0 images with Atelectasis"),
    Odd(
        "rule_without_a_label",
        edit("train.csv", ("Fracture", "Broken")),
        settings=RULE,
        refused="no column 'Fracture'",
    ),
    drawn("rule", lambda root: None, records=FOUND | DRAWN),
    drawn(
        "rule_passes_over_uncertain_ones",
        append("train.csv", row(path_of(8), Edema="-1.0")),
        records=FOUND | DRAWN,
    ),
    drawn(
        "rule_passes_over_lateral_ones",
        append("train.csv", row(path_of(8, view="view2_lateral"), side="Lateral", Edema="1.0")),
        records=FOUND | DRAWN,
    ),
    drawn(
        "rule_passes_over_rows_that_differ",
        append("train.csv", *(row(path_of(8), Edema="1.0", Fracture=v) for v in ("", "1.0"))),
        records=FOUND | DRAWN,
    ),
]


@table(CASES)
def test_odd_selections(odd, root):
    check(odd, root, prepare, everything=(ONE, TWO))


def test_a_selection_is_told_beside_the_size_that_is_expected(root):
    manifest = prepare(root)
    assert any("200 of each are expected" in note for note in manifest.notes)
    assert len(CASES) >= 30
    label_sets.assert_sound(root / "out")
