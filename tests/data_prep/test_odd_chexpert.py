"""CheXpert's table and images as people have them: right, or refused by name.

Where a public report shows a case, it is named beside it.
"""

import math
import shutil

import pytest

from data_prep import chexpert
from data_prep.kit import cli
from tests.data_prep import label_sets
from tests.data_prep.odd_files import (
    Odd,
    append,
    both,
    check,
    content,
    damaged,
    edit,
    rows,
    table,
    tables,
    write_image,
)
from tests.data_prep.test_chexpert import HEADER, path_of, row

ONE, TWO = (f"train/patient0000{n}/study1/view1_frontal" for n in (1, 2))
NINE = "valid/patient00009/study1/view1_frontal"
EVERYTHING = (ONE, TWO, NINE)
IMAGE = f"{TWO}.jpg"


@pytest.fixture
def root(tmp_path):
    """Two patients in train.csv and one in valid.csv."""
    base = tmp_path / "CheXpert-v1.0-small"
    base.mkdir()
    train = [row(path_of(1), Edema="1.0"), row(path_of(2), sex="Male", age="40", view="PA")]
    (base / "train.csv").write_text("\n".join([HEADER, *train]) + "\n")
    valid = row(path_of(9, folder="valid"))
    (base / "valid.csv").write_text("\n".join([HEADER, valid]) + "\n")
    for place, name in enumerate(EVERYTHING):
        write_image(base / f"{name}.jpg", place)
    return base


def prepare(root, **settings):
    return chexpert.prepare(
        chexpert.Paths(root=str(root)),
        chexpert.Settings(**{"short_side": 32, "split": "official", **settings}),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


def added(name, *lines, rejected=(), **expected):
    """A case of rows behind those of train.csv, which stand in lines 2 and 3."""
    wrong = {f"train.csv:{4 + place}": pattern for place, pattern in rejected}
    wrong |= expected.pop("also", {})
    return Odd(name, append("train.csv", *lines), rejected=wrong, **expected)


def of_two(name, *pairs, reason="", **fields):
    """A case of a change in the row of the second patient."""
    wrong = {TWO: rf"{reason}.*train\.csv:3: "} if reason else {}
    records = {} if reason else {TWO: fields}
    return Odd(name, edit("train.csv", *pairs), rejected=wrong, records=records)


def of_labels(**said):
    return tuple(said.get(name.replace(" ", "_"), -2) for name in chexpert.LABELS)


def batches(root):
    """The layout of the full download (folders as public code that reads it names them)."""
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir()
    for name in ("train.csv", "valid.csv", "valid"):
        (root / name).rename(first / name)
    for patient, batch in (("patient00001", "2 (train 1)"), ("patient00002", "3 (train 2)")):
        folder = root / f"CheXpert-v1.0 batch {batch}"
        folder.mkdir()
        (root / "train" / patient).rename(folder / patient)
    (root / "train").rmdir()


def moved_tables(root):
    batches(root)
    for name in ("train.csv", "valid.csv"):
        (root / "CheXpert-v1.0 batch 1 (validate & csv)" / name).rename(root / name)


MALE = ",Male,40,Frontal,PA,"
WHOLE = {"sex": "M", "age": 40.0, "views": ("PA",)}
CASES = [
    *tables("train.csv", flag="--root", alone=False),
    *damaged(IMAGE, name=TWO),
    # mlmed/torchxrayvision, pull request 145: the full table has another prefix.
    Odd("prefix_of_the_full_set", edit("train.csv", ("v1.0-small", "v1.0")), records={TWO: WHOLE}),
    Odd("no_prefix", edit("train.csv", ("CheXpert-v1.0-small/", "")), records={TWO: WHOLE}),
    Odd(
        "absolute_path_below_a_folder_train",
        edit("train.csv", ("CheXpert-v1.0-small/", "/mnt/train/CheXpert-v1.0/")),
        records={TWO: WHOLE},
    ),
    of_two("windows_path", (path_of(2), path_of(2).replace("/", "\\")), **WHOLE),
    of_two("double_slashes", (path_of(2), path_of(2).replace("/", "//")), **WHOLE),
    Odd("full_download_in_batches", batches, records={ONE: {"sex": "F"}, TWO: WHOLE, NINE: {}}),
    Odd("batches_with_the_tables_beside_them", moved_tables, records={TWO: WHOLE, NINE: {}}),
    Odd(
        "index_of_a_data_frame",  # train_visualCheXbert.csv has one
        rows("train.csv", lambda line: f"{'' if line == HEADER else 7},{line}"),
        notes=[r"train\.csv: 1 columns without a name"],
    ),
    Odd("index_called_unnamed", rows("train.csv", lambda line: f"Unnamed: 0,{line}")),
    Odd("trailing_comma", rows("train.csv", lambda line: f"{line},"), records={TWO: WHOLE}),
    Odd("semicolons", rows("train.csv", lambda line: line.replace(",", ";")), records={TWO: WHOLE}),
    Odd("column_called_path", edit("train.csv", ("Path,", "path,")), refused="did you mean 'path'"),
    Odd("column_twice", edit("train.csv", ("Fracture", "Edema")), refused=r"called \['Edema'\]"),
    Odd(
        "no_column_of_a_label",
        edit("train.csv", ("Fracture", "Broken")),
        notes=[r"train\.csv has no column 'Fracture'", r"not read: 'Broken'"],
    ),
    Odd(
        "no_column_of_a_label_for_the_5x200",
        edit("train.csv", ("Fracture", "Broken")),
        settings={"split": "gloria"},
        refused="no column 'Fracture'",
    ),
    Odd(
        "test_table_with_labels_alone",  # as the test set of Stanford has it
        lambda root: (root / "valid.csv").write_text(
            "Path,Atelectasis,Cardiomegaly,Consolidation,Edema,Pleural Effusion\n"
            "valid/patient00009/study1/view1_frontal.jpg,1,0,0,0,0\n"
        ),
        records={
            NINE: {
                "sex": "",
                "views": ("",),
                "labels": of_labels(
                    Atelectasis=1, Cardiomegaly=0, Consolidation=0, Edema=0, Pleural_Effusion=0
                ),
            }
        },
        notes=[r"valid\.csv has no column 'Sex', 'Age'"],
    ),
    of_two(
        "labels_of_all_kinds",
        (MALE + "," * 13, MALE + "-1.0,0.0,1,nan,TRUE,-1" + "," * 8),
        labels=of_labels(
            No_Finding=-1, Enlarged_Cardiomediastinum=0, Cardiomegaly=1, Lung_Lesion=1, Edema=-1
        ),
    ),
    of_two("label_of_2", (MALE, MALE + "2"), reason="malformed_row"),
    of_two("label_is_a_word", (MALE, MALE + "present"), reason="malformed_row"),
    of_two("age_0", ("Male,40", "Male,0"), age=0.0),
    of_two("age_of_90_and_more", ("Male,40", "Male,90.0"), age=90.0),
    of_two("age_of_200", ("Male,40", "Male,200"), age=math.nan),
    of_two("age_blank", ("Male,40", "Male,"), age=math.nan),
    of_two("age_is_a_word", ("Male,40", "Male,forty"), reason="malformed_row"),
    of_two("sex_unknown", ("Male,40", "Unknown,40"), sex=""),  # one row of CheXpert has it
    of_two("sex_is_a_number", ("Male,40", "1,40"), reason="malformed_row"),
    of_two("view_in_small_letters", ("Frontal,PA", "frontal,pa"), views=("PA",)),
    of_two("view_ll", ("Frontal,PA", "Frontal,LL"), views=("LL",)),
    of_two("side_blank", ("Frontal,PA", ",PA"), views=("PA",)),
    of_two("side_is_another_word", ("Frontal,PA", "Oblique,PA"), reason="malformed_row"),
    of_two("lateral", ("Frontal,PA", "Lateral,"), reason="wrong_view"),
    added("path_blank", row(""), rejected=[(0, "incomplete_row: column 'Path' is blank")]),
    added("path_without_patient", row("train/a.jpg"), rejected=[(0, "unknown_path.*names no pat")]),
    added(
        "row_twice",
        row(path_of(1), Edema="1.0"),
        rejected=[(0, rf"duplicate_row: {ONE} stands in train\.csv:2 before")],
    ),
    added(
        "row_twice_with_another_label",
        row(path_of(1), Edema="0.0"),
        rejected=[(0, r"conflicting_rows: train\.csv:2 says other things")],
        also={ONE: r"conflicting_rows: train\.csv:2: train\.csv:4 says other"},
    ),
    added("header_twice", HEADER, rejected=[(0, "malformed_row: the row repeats the header")]),
    added("row_cut", "CheXpert-v1.0-small/train/pati", rejected=[(0, "malformed_row.*1 cells")]),
    added("nul", row(path_of(3), sex="\0"), rejected=[(0, "malformed_row.*NUL")]),
    Odd("quote_not_closed", append("train.csv", '"' + row(path_of(3))), refused="quotation mark"),
    Odd(
        "image_of_train_in_valid_too",
        append("valid.csv", row(path_of(2), sex="Male", age="40", view="PA")),
        rejected={"valid.csv:3": r"duplicate_row.*train\.csv:3 before"},
    ),
    Odd(
        "suffix_in_capitals",
        both(
            edit("train.csv", (path_of(2), path_of(2).replace(".jpg", ".JPG"))),
            lambda root: (root / IMAGE).rename((root / IMAGE).with_suffix(".JPG")),
        ),
        records={TWO: WHOLE},
    ),
    Odd(
        "files_of_macos",
        lambda root: (root / "train/patient00002/study1/._view1_frontal.jpg").write_bytes(b"x"),
        records={TWO: WHOLE},
    ),
    Odd(
        "folder_within_the_folder",
        lambda root: shutil.move(root / "train.csv", root / "train"),
        refused=r"--root: .*train\.csv does not exist",
    ),
    Odd(
        "latin_1",
        content("train.csv", lambda b: b + "ä".encode("latin-1") * 3),
        rejected={"train.csv:4": "malformed_row.*1 cells for 19"},
    ),
]


@table(CASES)
def test_odd_files(odd, root):
    check(odd, root, prepare, everything=EVERYTHING)


def test_all_of_chexpert_is_there_in_its_own_layout(root):
    manifest = prepare(root)
    assert manifest.rejected == {} and len(CASES) >= 30
    label_sets.assert_sound(root / "out")
