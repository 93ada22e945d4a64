"""The preparer that the tutorial on data sets writes out is a preparer."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import types

import pytest

import data_prep
from data_prep import verify
from data_prep.kit import (
    cli,
    finish,
    label_lists,
    source,
    splits,
    unnamed_files,
    values,
    writer,
)
from data_prep.kit.plan import RowProblem
from prior_jax.data import reader, schema
from prior_jax.errors import DataError
from tests.data_prep import hospital

ROOT = pathlib.Path(__file__).parents[2]
HEADER = "Case,Patient,File,Report,Pneumonia,Fracture,View\n"


def guide():
    return (ROOT / "docs" / "tutorials" / "add_a_data_set.md").read_text()


def blocks():
    """The Python blocks of the guide: what draws its cases, the preparer, and its test."""
    cases, program, test = re.findall(r"^```python\n(.*?)^```", guide(), re.S | re.M)
    return cases, program, test


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Gives the module of the guide with some of its text replaced."""
    _, program, _ = blocks()

    def load(*replaced):
        changed, path = program, tmp_path / "teaching.py"
        for old, new in replaced:
            assert old in changed
            changed = changed.replace(old, new)
        path.write_text(changed)
        module = types.ModuleType("teaching")
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "teaching", module)
        exec(compile(changed, path, "exec"), vars(module))  # an import may read stale bytecode
        return module

    return load


@pytest.fixture
def teaching(loaded):
    """The module of the guide."""
    return loaded()


def prepare(module, folder, rows, *, overwrite=False, header=HEADER, encoded="utf-8", **settings):
    (folder / "cases.csv").write_text(header + rows, encoding=encoded)
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(hospital.jpeg(number))
    return module.prepare(
        module.Paths(root=str(folder)),
        module.Settings(short_side=64, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1, overwrite=overwrite),
    )


def test_the_example_prepares_a_set_in_which_every_row_is_counted(teaching, tmp_path):
    rows = (
        'c1,p1,0.jpg,"Large, wet lungs.\nNo effusion.",1,,PA\n'
        'c1,p1,1.jpg,"Large, wet lungs.\nNo effusion.",1,,AP\n'
        "c2,p2,absent.jpg,Clear.,0,0,PA\n"
        "c3,,2.jpg,Clear.,0,0,PA\n"
        "c4,p4,3.jpg,Clear.,often,0,PA\n"
        "c5,p5\n"
        "c6,p6,2.jpg,,0,0,PA\n"
    )
    manifest = prepare(teaching, tmp_path, rows)
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []
    (split,) = (name for name, counts in manifest.splits.items() if counts.studies)
    record = reader.RecordReader(tmp_path / "out", split).read(0)
    assert record.study_id == "c1" and record.image_ids == ("0.jpg", "1.jpg")
    assert record.views == ("PA", "AP")
    assert record.labels == (1, -2) and record.sentences == ("Large, wet lungs.", "No effusion.")
    (counts,) = manifest.tables.values()
    assert counts.read == 7 and counts.kept == 2
    assert counts.rejected == {
        "incomplete_row": 1,
        "malformed_row": 2,
        "missing_image": 1,
        "no_section": 1,
    }


def test_the_example_refuses_a_table_that_is_not_its_own(teaching, tmp_path):
    (tmp_path / "cases.csv").write_text("case,patient,file\n")
    with pytest.raises(DataError, match=r"--root: .*no column 'Case' \(did you mean 'case'"):
        teaching.prepare(
            teaching.Paths(root=str(tmp_path)),
            teaching.Settings(),
            cli.RunOptions(out=str(tmp_path / "out"), workers=1),
        )


@pytest.mark.parametrize("kind", ["missing", "a folder"])
def test_a_table_that_is_no_file_is_one_line_that_names_the_flag(teaching, tmp_path, kind):
    if kind == "a folder":
        (tmp_path / "cases.csv").mkdir()
    with pytest.raises(DataError, match=r"--root: .*cases\.csv does not exist, or is not a file\."):
        teaching.prepare(
            teaching.Paths(root=str(tmp_path)),
            teaching.Settings(),
            cli.RunOptions(out=str(tmp_path / "out"), workers=1),
        )
    assert not (tmp_path / "out").exists()


def test_the_guides_cases_give_what_the_guide_shows(teaching, tmp_path):
    cases, _, _ = blocks()
    assert "/tmp/teaching" in cases
    exec(cases.replace("/tmp/teaching", str(tmp_path / "cases")), {})
    manifest = teaching.prepare(
        teaching.Paths(root=str(tmp_path / "cases")),
        teaching.Settings(short_side=96),
        cli.RunOptions(out=str(tmp_path / "out"), workers=1),
    )
    shown = finish.summary(manifest, out="/tmp/prepared/teaching")
    assert all(line.strip() in guide() for line in shown.splitlines() if "read" not in line)
    assert "cases.csv: 21 rows read = 20 kept + 1 incomplete_row" in shown
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []


GOOD = "c1,p1,0.jpg,Clear lungs.,1,0,PA\nc2,p2,1.jpg,No effusion.,1,0,PA\n"
SWAPPED = ("for name in LABELS]", "for name in reversed(LABELS)]")
CRASHES = ("first, read = images[0],", "assert images[0].study != 'c1'; first, read = images[0],")


def positives(manifest):
    return {name: counts.positive for name, counts in manifest.labels.items()}


def test_a_complete_set_of_a_changed_program_is_refused_or_made_anew(loaded, tmp_path):
    assert positives(prepare(loaded(), tmp_path, GOOD)) == {"Pneumonia": 2, "Fracture": 0}
    path = tmp_path / "out" / "manifest.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    prepare(loaded(), tmp_path, GOOD)  # the same program finds it complete
    changed = loaded(SWAPPED)
    with pytest.raises(writer.ProgramChanged, match=r"--out.*teaching has changed.*--overwrite"):
        prepare(changed, tmp_path, GOOD)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    manifest = prepare(changed, tmp_path, GOOD, overwrite=True)
    assert positives(manifest) == {"Pneumonia": 0, "Fracture": 2}


def test_shards_of_a_program_that_was_mended_since_are_not_mixed_with_new_ones(
    loaded, tmp_path, capsys
):
    with pytest.raises(AssertionError):
        prepare(loaded(CRASHES), tmp_path, GOOD, studies_per_shard=1)
    assert list((tmp_path / "out" / ".parts").glob("*-*.json"))
    manifest = prepare(loaded(SWAPPED), tmp_path, GOOD, studies_per_shard=1)
    assert "teaching has changed since the set was begun" in capsys.readouterr().err
    assert positives(manifest) == {"Pneumonia": 0, "Fracture": 2}
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []


def test_a_module_beside_the_program_counts_as_its_code(loaded, tmp_path):
    helper = tmp_path / "teaching_words.py"
    helper.write_text("WORDS = 1\n")
    loaded(("import functools\n", "import functools\nif False:\n    import teaching_words\n"))
    first = source.code_hash("teaching")
    assert source.code_hash("teaching") == first
    helper.write_text("WORDS = 2\n")
    assert source.code_hash("teaching") != first


def test_a_complete_set_is_said_to_be_one(loaded, tmp_path):
    prepare(loaded(), tmp_path, GOOD)
    flags = [f"--root={tmp_path}", f"--out={tmp_path / 'out'}", "--short_side=64"]
    done = subprocess.run(
        [sys.executable, tmp_path / "teaching.py", *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("out: The set was complete already; nothing was done.\n")


# What an author may get wrong -> the text of the guide and what stands in its place, and what is
# said of it.
MISTAKES = {
    "a label too few": (
        ("for name in LABELS]", "for name in LABELS[:1]]"),
        r"record of study 'c\d' has 1 labels, .*2 names \(Pneumonia, Fracture",
    ),
    "data that is not JSON": (
        ('"labels": labels}', '"labels": labels, "path": pathlib.Path(path)}'),
        r"Planner\.add .*PosixPath is not JSON serializable.*data consists of JSON values",
    ),
    "a split by its name": (
        ("split=settings.drawn_split(patient)", 'split="train"'),
        r"Planner\.add .*splits\.split_code",
    ),
    "a split that is not known": (
        ("split=settings.drawn_split(patient)", "split=-1"),
        r"split of an image is -1\. .* from 0 to 2, which stand for train, validate, test",
    ),
    "a patient without an id": (
        ("patient=patient,", 'patient="",'),
        r"patient of image '\d\.jpg' has no id\. .*reject rows without a patient",
    ),
    "a row that is forgotten": (
        ("planner.add(planned_image", "row.line == 2 or planner.add(planned_image"),
        r"Of 2 rows read from cases\.csv, 1 were planned and 0 were rejected",
    ),
    "a field that is forgotten": (
        ('"subject_id": first.patient,', ""),
        r"fields of study 'c\d' are .*fields must be .*subject_id",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_an_author_is_one_line_that_names_it(loaded, tmp_path, mistake):
    replaced, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message):
        prepare(loaded(replaced), tmp_path, GOOD)


def pieces(folder, **cells):
    """What the guide's indented pieces make of a row and of a folder of images."""
    blocks = re.findall(r"\n  ```\n(.*?)\n  ```", guide(), re.S)
    row = types.SimpleNamespace(cells=cells)
    names = {"row": row, "name": "Fracture", "values": values, "splits": splits}
    names |= {"RowProblem": RowProblem, "label_lists": label_lists, "names": set()}
    names |= {"unnamed_files": unnamed_files, "root": folder, "named": {"a.png"}}
    rejected = []
    names["reject"] = rejected.append
    for block in blocks:
        exec(textwrap.dedent(block), names)
    return names["label"], names["code"], names["names"], [one.id for one in rejected]


@pytest.mark.parametrize(
    ("word", "split", "found"),
    [
        ("Yes", "training", (1, 0)),
        ("no", "Dev", (0, 1)),
        ("?", "test", (-1, 2)),
        ("", "valid", (-2, 1)),
        ("1", "val", (1, 1)),
    ],
)
def test_the_pieces_of_the_guide_read_words_and_splits(tmp_path, word, split, found):
    assert pieces(tmp_path, Fracture=word, Split=split, Labels="")[:2] == found


def test_the_pieces_of_the_guide_gather_labels_and_find_images_that_no_row_names(tmp_path):
    for name in ("a.png", "b.png", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    found = pieces(tmp_path, Fracture="no", Split="train", Labels="['nodule', 'effusion']")
    assert found[2:] == ({"nodule", "effusion"}, ["b.png"])


def test_the_pieces_of_the_guide_reject_what_they_do_not_know(tmp_path):
    with pytest.raises(values.CellProblem, match="maybe"):
        pieces(tmp_path, Fracture="maybe", Split="train", Labels="")
    with pytest.raises(RowProblem, match=r"'holdout' is not one of train, training"):
        pieces(tmp_path, Fracture="yes", Split="holdout", Labels="")
    with pytest.raises(RowProblem, match="malformed_labels"):
        pieces(tmp_path, Fracture="yes", Split="train", Labels="['nodule' 'mass']")


def test_the_guides_own_test_passes(teaching, tmp_path, monkeypatch):
    monkeypatch.setattr(data_prep, "teaching", teaching, raising=False)
    (tmp_path / "set").mkdir()
    found = {}
    exec(blocks()[2], found)
    found["test_teaching_files_become_a_sound_set"](tmp_path / "set")


EXCLUDES = (
    "        line=row.line,",
    "        line=row.line,\n        excluded=('wrong_view', 'lateral') if view == 'L' else None,",
)


def test_an_image_is_excluded_as_the_guide_says(loaded, tmp_path):
    rows = f"{GOOD}c3,p3,2.jpg,Clear.,0,0,PA\nc3,p3,3.jpg,Clear.,0,0,L\n"
    manifest = prepare(loaded(EXCLUDES), tmp_path, rows)
    assert manifest.rejected == {"wrong_view": 1}
    lines = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert json.loads(lines)["detail"] == "lateral; line 5"


def test_columns_that_are_not_read_are_printed(teaching, tmp_path):
    header, rows = HEADER.replace("\n", ",Site\n"), GOOD.replace("\n", ",x\n")
    text = finish.summary(prepare(teaching, tmp_path, rows, header=header), out="out")
    assert "cases.csv: not read: 'Site'." in text
    assert "Change --split_fractions or --split_seed.\n" in f"{text}\n"


def test_a_table_in_latin_1_is_refused_with_the_flag_that_reads_it(teaching, tmp_path):
    rows = "".join(f"c{n},p{n},{n}.jpg,Aorta elongación.,0,0,PA\n" for n in range(4))
    with pytest.raises(DataError, match=r"--root: .*column 'Report'.* Set --encoding=cp1252"):
        prepare(teaching, tmp_path, rows, encoded="latin-1")
    manifest = prepare(teaching, tmp_path, rows, encoded="latin-1", encoding="cp1252")
    assert not manifest.rejected


def test_a_flag_of_ones_own_has_the_default_that_the_guide_gives(loaded):
    flag = re.search(r"`(views: .*?)`", guide())[1]
    end = 'Flags of its own would stand here."""\n'
    assert loaded((end, f"{end}\n    {flag}\n")).Settings().views == ("PA", "AP")


def test_the_guide_lists_every_field_of_a_record():
    for field in dataclasses.fields(schema.Record):
        assert f"`{field.name}`" in guide(), field.name
