"""COVIDx's lists and images as people have them: right, or refused by name.

What official lists hold was counted in those of lindawangg/COVID-Net, labels/.
"""

import pytest

from data_prep import covidx
from data_prep.kit import cli
from tests.data_prep import label_sets
from tests.data_prep.odd_files import Odd, append, both, check, content, damaged, edit, table
from tests.data_prep.odd_files import write_image as write

ONE, TWO, TEST = "train/a.png", "train/b.png", "test/c.png"
EVERYTHING = (ONE, TWO, TEST)
NORMAL, PNEUMONIA, COVID = (1, 0, 0), (0, 1, 0), (0, 0, 1)


@pytest.fixture
def root(tmp_path):
    """Two images to train on and one to test on."""
    base = tmp_path / "covidx"
    for place, name in enumerate(EVERYTHING):
        write(base / name, place)
    (base / "train.txt").write_text("3 a.png COVID-19 cohen\np7 b.png normal rsna\n")
    (base / "test.txt").write_text("9 c.png pneumonia rsna\n")
    return base


def prepare(root, *, validation="", test="test.txt", **settings):
    return covidx.prepare(
        covidx.Paths(
            train_list=str(root / "train.txt"),
            test_list=test and str(root / test),
            validation_list=validation and str(root / validation),
            images_dir=str(root),
        ),
        covidx.Settings(**{"short_side": 32, "split_fractions": ("1", "0", "0"), **settings}),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


def line(name, text, *, file="", **expected):
    """A case of a third line of train.txt, with an image if it is named."""

    def change(root):
        append("train.txt", text)(root)
        if file:
            write(root / "train" / file, 9)

    return Odd(name, change, **expected)


def kept(name, text, file, *, words=COVID, patient="5"):
    fields = {"labels": words, "subject_id": patient}
    return line(name, text, file=file, records={f"train/{file}": fields})


def wrong(name, text, pattern, *, file="", key=""):
    left_out = {key or (f"train/{file}" if file else "train.txt:3"): pattern}
    return line(name, text, file=file, rejected=left_out)


def binary(root):
    for name in ("train.txt", "test.txt"):
        text = (root / name).read_text()
        for old, new in (
            ("COVID-19", "positive"),
            ("normal", "negative"),
            ("pneumonia", "negative"),
        ):
            text = text.replace(old, new)
        (root / name).write_text(text)


def one_folder(root):
    for name in EVERYTHING:
        (root / name).rename(root / name.rpartition("/")[2])
    for name in ("train", "test"):
        (root / name).rmdir()


TWO_CLASSES = {"classes": "binary"}
CASES = [
    *damaged(TWO, name=TWO),
    Odd(
        "list_with_bom",
        content("train.txt", lambda b: b"\xef\xbb\xbf" + b),
        records={ONE: {"subject_id": "3"}},
    ),
    Odd(
        "list_with_crlf",
        content("train.txt", lambda b: b.replace(b"\n", b"\r\n")),
        records={ONE: {"labels": COVID}},
    ),
    Odd(
        "list_with_blank_lines",
        content("train.txt", lambda b: b"\n \n" + b.replace(b"\n", b"\n\n")),
    ),
    Odd(
        "list_with_tabs",
        content("train.txt", lambda b: b.replace(b" ", b"\t")),
        records={ONE: {"labels": COVID}},
    ),
    Odd(
        "list_in_utf16",
        content("train.txt", lambda b: b.decode().encode("utf-16")),
        refused=r"--train_list: .*not UTF-8",
    ),
    Odd(
        "list_empty",
        both(*(content(f"{n}.txt", lambda _: b"") for n in ("train", "test"))),
        refused="no row",
    ),
    Odd("list_absent", lambda root: (root / "train.txt").unlink(), refused="--train_list"),
    Odd(
        "list_with_commas",
        both(*(content(f"{n}.txt", lambda b: b.replace(b" ", b",")) for n in ("train", "test"))),
        refused="malformed_row .*is not a patient, a file, a class and a source",
    ),
    # Test lists of versions 3 to 7A: 197 of 300 lines have no source; all of versions 1 and 2.
    kept("line_without_source", "5 d.png normal", "d.png", words=NORMAL),
    kept("line_without_source_and_with_blanks", "5 d e.png normal", "d e.png", words=NORMAL),
    # Lists 7A to 8B: "COVID 1 COVID(1).png COVID-19 sirm" (lindawangg/COVID-Net, issue 126).
    kept(
        "patient_with_a_blank",
        "COVID 1 COVID(1).png COVID-19 sirm",
        "COVID(1).png",
        patient="COVID 1",
    ),
    wrong(
        "patient_with_a_blank_and_no_file",
        "COVID 1 COVID(1).png COVID-19 sirm",
        "missing_image",
        key="train/COVID(1).png",
    ),  # issue 158: the files are called COVID-1.png
    kept("file_with_blanks", "5 a b  c.png COVID-19 sirm", "a b  c.png"),
    kept("patient_and_file_with_blanks", "5 6 a b.png COVID-19 sirm", "a b.png", patient="5 6"),
    kept(
        "file_called_as_a_class",
        "5 pneumonia normal.png normal rsna",
        "pneumonia normal.png",
        words=NORMAL,
    ),
    kept("word_of_9a_by_mistake", "5 d.png positive sirm", "d.png"),  # issue 209
    kept("word_in_capitals", "5 d.png NORMAL rsna", "d.png", words=NORMAL),
    kept("file_with_dots", "5 CR.1.2.840.1.png normal x", "CR.1.2.840.1.png", words=NORMAL),
    kept("suffix_in_capitals", "5 d.PNG normal x", "d.PNG", words=NORMAL),
    kept("file_in_a_folder", "5 deep/d.png normal x", "deep/d.png", words=NORMAL),
    line(
        "file_without_suffix", "5 d normal x", file="d.png", records={"train/d": {"labels": NORMAL}}
    ),
    line(
        "windows_path",
        "5 deep\\d.png normal x",
        file="deep/d.png",
        records={"train/deep\\d.png": {"labels": NORMAL}},
    ),
    wrong(
        "named_suffix_absent",
        "5 d.jpg normal x",
        "missing_image.*d.jpg",
        file="d.png",
        key="train/d.jpg",
    ),
    wrong(
        "word_of_two_classes",
        "5 d.png negative x",
        r"unknown_label: train\.txt:3: 'negative'.*--classes",
        file="d.png",
    ),
    wrong(
        "word_of_version_1", "5 d.png bacteria x", r"unknown_label: train\.txt:3: ", file="d.png"
    ),
    wrong("line_without_file", "5 pneumonia rsna", r"malformed_row: '5 pneumonia rsna' is not"),
    wrong("line_without_class", "5 d.png", r"malformed_row: '5 d\.png' is not"),
    wrong("line_cut", "5", "malformed_row"),
    line("header", "patient filename class source", rejected={"train/filename": "unknown_label"}),
    line(
        "line_twice",
        "3 a.png COVID-19 cohen",
        records={ONE: {"labels": COVID}},
        rejected={ONE: r"duplicate_row: train\.txt:3: line 1 names it"},
    ),
    wrong(
        "image_with_two_classes", "3 a.png normal cohen", r"conflicting_rows: train\.txt:", key=ONE
    ),
    wrong(
        "image_with_two_patients",
        "4 a.png COVID-19 cohen",
        r"conflicting_rows: train\.txt:",
        key=ONE,
    ),
    # issue 230: the list names images that the download does not have.
    wrong(
        "image_not_in_the_download",
        "5 A926447-01.jpg COVID-19 stonybrook",
        "missing_image",
        key="train/A926447-01.jpg",
    ),
    Odd(
        "same_name_in_two_folders",
        both(append("test.txt", "8 a.png normal x"), lambda root: write(root / "test/a.png", 8)),
        records={"test/a.png": {"labels": NORMAL}, ONE: {"labels": COVID}},
    ),
    Odd(
        "image_and_patient_in_two_lists",
        both(one_folder, append("test.txt", "3 a.png COVID-19 cohen")),
        records={"test/a.png": {}},
        settings={"split": "official"},
        notes=["1 patients stand in two splits"],
    ),
    Odd("images_in_one_folder", one_folder, records={ONE: {"labels": COVID}}),
    Odd("files_of_macos", lambda root: (root / "train/._b.png").write_bytes(b"x")),
    Odd(
        "two_classes",
        binary,
        settings=TWO_CLASSES,
        records={ONE: {"labels": (1,)}, TWO: {"labels": (0,)}},
    ),
    Odd(
        "two_classes_without_setting",
        both(binary, edit("train.txt", ("positive", "negative"))),
        refused="unknown_label.*--classes",
    ),
    Odd(
        "three_classes_with_the_wrong_setting",
        lambda root: None,
        settings=TWO_CLASSES,
        refused="--classes",
    ),
    Odd("test_list_absent", lambda root: (root / "test.txt").unlink(), refused="--test_list"),
    Odd(
        "no_folder_of_the_split",
        lambda root: (root / "test").rename(root / "tests"),
        records={TEST: {"labels": PNEUMONIA}},
    ),
]


@table(CASES)
def test_odd_files(odd, root):
    check(odd, root, prepare, everything=EVERYTHING)


def test_the_number_of_cases(root):
    assert len(CASES) >= 30
    prepare(root)
    label_sets.assert_sound(root / "out")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 a.png normal rsna", [("1", "a.png")]),
        ("1 a.png normal", [("1", "a.png")]),
        ("1 b a.png normal x", [("1", "b a.png"), ("1 b", "a.png")]),
        ("1  b  c.png normal x", [("1", "b  c.png"), ("1 b", "c.png")]),
    ],
)
def test_a_line_is_read_by_each_of_its_blanks(tmp_path, text, expected):
    (tmp_path / "x.txt").write_text(text)
    (found,) = covidx.lines_of(tmp_path / "x.txt", flag="--train_list")
    assert list(found.readings()) == expected and found.word == "normal"
