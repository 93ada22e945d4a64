"""CheXpert Plus in its own layout, with what its table is known to hold: right, or refused."""

import csv
import json
import math

import pytest

from data_prep import chexpert, chexpert_plus
from data_prep.kit import cli
from tests.data_prep import label_sets, plus_layout
from tests.data_prep.odd_files import (
    Odd,
    append,
    both,
    check,
    content,
    damaged,
    edit,
    nothing,
    table,
)
from tests.data_prep.odd_files import tables as odd_tables
from tests.data_prep.odd_files import write_image as write
from tests.data_prep.plus_layout import (
    EVERYTHING,
    FINDINGS,
    IMAGE,
    IMPRESSION,
    LABELS,
    NINE,
    ONE,
    TABLE,
    TWO,
    label_line,
    line_of,
)


@pytest.fixture
def root(tmp_path):
    return plus_layout.write(tmp_path / "chexpert_plus")


def prepare(root, *, labels=LABELS, exclude="", **settings):
    return chexpert_plus.prepare(
        chexpert_plus.Paths(
            table=str(root / TABLE),
            images_dir=str(root / "PNG"),
            labels=labels and str(root / labels),
            exclude_5x200=exclude and str(root / exclude),
        ),
        chexpert_plus.Settings(**{"short_side": 32, **settings}),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


def rewritten(change):
    """A change of the table's rows as mappings; `change` returns those that are written."""

    def rewrite(root):
        with open(root / TABLE, newline="") as file:
            rows = list(csv.DictReader(file))
        found = change(rows)
        with open(root / TABLE, "w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)

    return rewrite


def of_two(name, *, reason="", rejected=None, notes=(), records=None, **cells):
    """A case of other cells in the row of the second study, which begins on line 16."""

    def change(rows):
        rows[1].update(cells)
        return rows

    wrong = rejected or ({f"{TABLE}:16": reason} if reason else {})
    fields = {TWO: records} if records else {}
    return Odd(
        name,
        rewritten(change),
        rejected=wrong,
        without=[TWO] if wrong else [],
        records=fields,
        notes=notes,
    )


def added(name, *lines, **expected):
    """A case of rows behind the others, which begin on lines 2, 16 and 30."""
    return Odd(
        name, lambda root: append(TABLE, *(line.rstrip("\n") for line in lines))(root), **expected
    )


def labelled(name, *lines, **expected):
    return Odd(name, append(LABELS, *lines), **expected)


def without(*names):
    return rewritten(
        lambda rows: [{n: v for n, v in row.items() if n not in names} for row in rows]
    )


SECOND = "view2_frontal"
SECOND_IMAGE = f"PNG/{TWO}/{SECOND}.png"


def pair(name, *, study=TWO, rejected=None, records=None, labels=(), notes=(), **cells):
    """A case of a second frontal image of the second study, whose row has other cells."""
    own = {"sex": "Male", "age": "41.0", "ap_pa": "PA"}

    def change(root):
        added("", line_of(study, view=SECOND, **{**own, **cells})).change(root)
        append(LABELS, *(labels or [label_line(TWO, SECOND, Edema=0.0)]))(root)
        write(root / SECOND_IMAGE, 7)

    fields = {TWO: records} if records else {}
    return Odd(name, change, rejected=rejected or {}, records=fields, notes=notes)


def of_labels(**said):
    return tuple(said.get(name.replace(" ", "_"), -2) for name in chexpert.LABELS)


def excluding(name, selection, **expected):
    def change(root):
        (root / "list.txt").write_text(selection)

    settings = {"exclude": "list.txt", **expected.pop("settings", {})}
    return Odd(name, change, settings=settings, **expected)


WHOLE = {"sex": "M", "age": 41.0, "views": ("PA",), "findings": FINDINGS, "impression": IMPRESSION}
OF_ONE = "train/patient00001/study2"
LEFT_OUT = f"{TABLE}:16"
ODD_LABEL = "impression_fixed.json:4"
CASES = [
    Odd(
        "whole",
        nothing,
        records={TWO: WHOLE, ONE: {"labels": of_labels(Edema=1, Fracture=-1)}},
        notes=[rf"{TABLE}: 1 columns without a name, as row numbers are"],
    ),
    *odd_tables(TABLE, flag="--table")[3:],
    Odd("table_with_bom", content(TABLE, lambda b: b"\xef\xbb\xbf" + b), records={TWO: WHOLE}),
    *(
        Odd(
            case.name,
            case.change,
            rejected={**case.rejected, TWO: "no_usable_image"} if case.rejected else {},
        )
        for case in damaged(f"PNG/{IMAGE}.png", name=IMAGE)
    ),
    Odd(
        "images_of_chexpert",
        lambda root: (root / f"PNG/{IMAGE}.png").rename(root / f"PNG/{IMAGE}.jpg"),
        records={TWO: WHOLE},
    ),
    Odd(
        "folder_within_the_folder",
        lambda root: (
            (root / "PNG").rename(root / "x"),
            (root / "PNG").mkdir(),
            (root / "x").rename(root / "PNG/PNG"),
        ),
        refused="Set --images_dir to the folder",
    ),
    Odd(
        "no_columns_of_patients",
        without("sex", "age", "ap_pa", "frontal_lateral"),
        notes=["has no column 'sex', 'age', 'frontal_lateral', 'ap_pa'"],
        records={TWO: {"sex": "", "age": math.nan, "views": ("",)}},
    ),
    Odd(
        "no_column_of_findings", without("section_findings"), refused="--table: .*section_findings"
    ),
    Odd("no_column_of_splits", without("split"), refused="--table: .*split"),
    Odd(
        "no_column_of_splits_is_needed",
        without("split"),
        settings={"split": "seeded"},
        records={TWO: WHOLE},
    ),
    of_two("prefix_of_chexpert", path_to_image=f"CheXpert-v1.0/{IMAGE}.jpg", records=WHOLE),
    of_two("path_of_png", path_to_image=f"{IMAGE}.png", records=WHOLE),
    of_two("windows_path", path_to_image=f"{IMAGE}.jpg".replace("/", "\\"), records=WHOLE),
    of_two("path_blank", path_to_image="", reason="incomplete_row"),
    of_two("path_without_patient", path_to_image="images/7.jpg", reason="unknown_path"),
    of_two(
        "findings_nan", section_findings="nan", records={"findings": "", "impression": IMPRESSION}
    ),
    of_two(
        "impression_alone", section_findings="", records={"findings": "", "impression": IMPRESSION}
    ),
    of_two("no_text", section_findings="", section_impression=" ", rejected={TWO: "no_section"}),
    of_two(
        "text_of_another_language",
        section_findings="Größe normal.",
        records={"findings": "Größe normal."},
    ),
    of_two("age_90", age="90", records={"age": 90.0}),
    of_two("age_0", age="0.0", records={"age": 0.0}),
    of_two("age_of_414", age="414", records={"age": math.nan}),
    of_two("age_is_a_word", age="old", reason="malformed_row: column 'age' holds 'old'"),
    of_two("sex_unknown", sex="Unknown", records={"sex": ""}),
    of_two("sex_is_a_number", sex="2", reason="malformed_row"),
    of_two("view_in_small_letters", ap_pa="pa", records={"views": ("PA",)}),
    of_two("lateral", frontal_lateral="Lateral", reason="wrong_view"),
    of_two("side_is_another_word", frontal_lateral="Oblique", reason="malformed_row"),
    of_two("split_val", split="val", records=WHOLE),
    of_two("split_blank", split="", reason="row_without_split"),
    of_two("split_is_a_number", split="3", reason="unknown_split"),
    added("row_twice", line_of(ONE), rejected={f"{ONE}/view1_frontal": "duplicate_row: .*line 2"}),
    added(
        "image_with_two_ages",
        line_of(ONE, age="59.0"),
        rejected={f"{ONE}/view1_frontal": "conflicting_rows"},
        without=[ONE],
    ),
    Odd(
        "patient_in_two_splits",
        both(
            append(TABLE, line_of(OF_ONE, split="valid").rstrip("\n")),
            lambda root: write(root / f"PNG/{OF_ONE}/view1_frontal.png", 9),
        ),
        records={OF_ONE: {}},
    ),
    added("row_cut", '5,"train/pati"', rejected={f"{TABLE}:44": "malformed_row: .*2 cells"}),
    Odd(
        "quote_not_closed",
        lambda root: (root / TABLE).write_text((root / TABLE).read_text() + '5,"train/x,'),
        refused="--table: .*quotation mark",
    ),
    pair("two_images", records={"views": ("PA", "PA"), "labels": of_labels(Edema=0)}),
    pair("two_reports", section_findings="Other.", rejected={TWO: "conflicting_text"}),
    pair(
        "two_copies_of_the_report",
        section_impression=IMPRESSION.replace("STABLE", "3/18/2009 kollabio STABLE"),
        records={"impression": IMPRESSION, "findings": FINDINGS, "views": ("PA", "PA")},
        notes=["report of 1 studies stands .* and the labels of 0 studies differ"],
    ),
    pair(
        "labels_of_two_copies_of_the_report",
        report="3/18/2009 CHEST",
        labels=[label_line(TWO, SECOND, Edema=1.0)],
        records={"labels": of_labels(Edema=0), "views": ("PA", "PA")},
        notes=["report of 0 studies stands .* and the labels of 1 studies differ"],
    ),
    pair("two_sexes", sex="Female", rejected={TWO: "conflicting_sex"}),
    pair("two_ages", age="42", rejected={TWO: "conflicting_age"}),
    pair(
        "two_labels",
        labels=[label_line(TWO, SECOND, Edema=1.0)],
        rejected={TWO: "conflicting_labels"},
    ),
    labelled("labels_of_another_image", label_line("train/patient00077/study1", Edema=1.0)),
    labelled("labels_twice", label_line(TWO, Edema=0.0), rejected={ODD_LABEL: "duplicate_row"}),
    labelled(
        "labels_that_differ",
        label_line(TWO, Edema=1.0),
        without=[TWO],
        rejected={
            ODD_LABEL: "conflicting_rows",
            LEFT_OUT: "conflicting_labels: rows of impression_fixed",
        },
    ),
    labelled("labels_cut", '{"path_to_image": "train/p', rejected={ODD_LABEL: "malformed_row"}),
    labelled(
        "labels_with_a_key_twice",
        '{"path_to_image": "a", "Edema": 1, "Edema": 0}',
        rejected={ODD_LABEL: "malformed_row: .*'Edema' stands twice"},
    ),
    labelled("labels_without_a_path", '{"Edema": 1.0}', rejected={ODD_LABEL: "incomplete_row"}),
    labelled(
        "label_of_2",
        label_line("train/patient00077/study1", Edema=2.0),
        rejected={ODD_LABEL: "malformed_row"},
    ),
    labelled("blank_lines", "", " "),
    Odd(
        "labels_with_bom",
        content(LABELS, lambda b: b"\xef\xbb\xbf" + b),
        records={ONE: {"labels": of_labels(Edema=1, Fracture=-1)}},
    ),
    Odd(
        "labels_in_one_list",
        lambda root: (root / LABELS).write_text(
            json.dumps([json.loads(line) for line in (root / LABELS).read_text().splitlines()])
        ),
        refused="--labels: .*lack a path",
    ),
    Odd("labels_absent", lambda root: (root / LABELS).unlink(), refused="--labels: "),
    Odd(
        "labels_of_no_image_of_the_study",
        lambda root: (root / LABELS).write_text(label_line(ONE)),
        records={TWO: {"labels": of_labels()}},
    ),
    Odd(
        "labels_of_chexpert",
        lambda root: (root / "train.csv").write_text(
            f"Path,Edema\nCheXpert-v1.0-small/{IMAGE}.jpg,-1.0\n"
        ),
        settings={"labels": "train.csv"},
        records={TWO: {"labels": of_labels(Edema=-1)}},
    ),
    excluding(
        "image_of_5x200",
        f"CheXpert-v1.0/{IMAGE}.jpg\n",
        without=[TWO],
        rejected={LEFT_OUT: "held_out_for_5x200"},
        notes=["Of 1 images of 1 patients to leave out, the table has 1"],
    ),
    excluding(
        "image_of_5x200_twice",
        f"{IMAGE}.jpg\n{IMAGE}.png\n",
        without=[TWO],
        rejected={LEFT_OUT: "held_out_for_5x200"},
        notes=["Of 1 images of 1 patients"],
    ),
    excluding(
        "patient_of_5x200",
        f"{TWO.replace('study1', 'study2')}/view1_frontal.jpg\n",
        notes=["1 patients of the 5x200 stand in the training split with 1 other images"],
        records={TWO: WHOLE},
    ),
    excluding(
        "patient_of_5x200_left_out",
        f"{TWO.replace('study1', 'study2')}/view1_frontal.jpg\n",
        settings={"exclude_patients": True},
        without=[TWO],
        rejected={LEFT_OUT: "patient_of_5x200"},
    ),
    excluding(
        "list_of_5x200_without_patients",
        "images/7.jpg\n",
        refused="--exclude_5x200: .*names no patient",
    ),
    Odd(
        "files_of_macos",
        both(
            lambda root: (root / f"PNG/{TWO}/._view1_frontal.png").write_bytes(b"x"),
            edit(TABLE, ("Male", "male")),
        ),
        records={TWO: WHOLE},
    ),
]


@table(CASES)
def test_odd_files(odd, root):
    check(odd, root, prepare, everything=EVERYTHING)


def test_the_smallest_layout_is_kept_whole(root):
    manifest = prepare(root)
    assert manifest.rejected == {} and manifest.label_names == chexpert.LABELS
    found = label_sets.records(root / "out")
    assert {split: sorted(records) for split, records in found.items()} == {
        "train": [ONE, TWO],
        "validate": [NINE],
    }
    assert len(CASES) >= 30
    label_sets.assert_sound(root / "out")
