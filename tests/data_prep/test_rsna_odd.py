"""RSNA's preparer on damaged and odd tables, boxes and DICOM files, one case each."""

import pytest

from data_prep import rsna
from data_prep.kit import cli
from prior_jax.errors import DataError
from tests.data_prep import label_sets, odd_cases
from tests.data_prep.odd_cases import Case, Kept, Refused

HEADER = "patientId,x,y,width,height,Target"
BOX, WHOLE = "{n},10,20,30,40,1", (10, 20, 40, 60)
ONE = Kept(labels=(1,), boxes=[WHOLE])
NO_BOX = "is not a box in pixels. Give x and y of at least 0"
MALFORMED = "malformed_annotation"


def box(cells, expect=ONE, **more):
    return Case(rows=[f"{{n}},{cells}"], expect=expect, **more)


def malformed(cells, words=NO_BOX):
    return box(cells, Refused(MALFORMED, words))


CASES = {
    "negative_width": malformed("10,20,-30,40,1", f"negative_width: .*'-30'.* {NO_BOX}"),
    "negative_height": malformed("10,20,30,-40,1"),
    "zero_width": malformed("10,20,0,40,1"),
    "zero_height": malformed("10,20,30,0.0,1"),
    "left_of_the_image": malformed("-3,20,30,40,1"),
    "outside": box("97,10,5,5,1", Refused("box_outside_image", "x 97 to 102.*96x96")),
    "x_and_y_exchanged": box(
        "5,70,20,20,1",
        Refused("box_outside_image", "y 70 to 90.*96x64"),
        draw=odd_cases.dicom(lambda file: None, height=64, width=96),
    ),
    "over_the_edge": box("80,80,30,30,1", Kept(labels=(1,), boxes=[(80, 80, 96, 96)])),
    "on_the_edge": box("0,0,96,96,1", Kept(boxes=[(0, 0, 96, 96)])),
    "decimals": box("10.5,20.25,30,40,1", Kept(boxes=[(10.5, 20.25, 40.5, 60.25)])),
    "as_a_data_frame_writes_it": box("10.0,20.0,30.0,40.0,1.0"),
    "exponents": box("1e1,2E1,3e+1,4e1,1"),
    "blanks_in_cells": box(" 10 , 20 ,30,40, 1 "),
    "nan_for_a_side": malformed("nan,20,30,40,1"),
    "infinite": malformed("10,20,inf,40,1"),
    "words": malformed("ten,20,30,40,1"),
    "half_a_box": malformed("10,20,,40,1"),
    "python_s_underscore": malformed("1_0,20,30,40,1"),
    "decimal_comma": malformed('"10,5",20,30,40,1'),
    "thousands": malformed('"1,000",20,30,40,1'),
    "wide_digits": malformed("\uff11\uff10,20,30,40,1"),
    "hexadecimal": malformed("0xA,20,30,40,1"),
    "box_without_target": malformed("10,20,30,40,", "Target is ''. Set Target to 0 or 1"),
    "target_2": malformed(",,,,2", "Target is '2'"),
    "target_minus_1": malformed(",,,,-1", "Target is '-1'"),
    "target_is_a_class": malformed("10,20,30,40,Lung Opacity", "Target is 'Lung Opacity'"),
    "target_without_box": malformed(",,,,1"),
    "target_without_box_nan": malformed("nan,NaN,NA,None,1"),
    "box_beside_0": malformed("10,20,30,40,0", "Target 0 has the box.*or set Target to 1"),
    "target_true": box("10,20,30,40,True"),
    "no_box": box(",,,,0", Kept(labels=(0,), boxes=[])),
    "no_box_nan": box("nan,NaN,NA,None,0.0", Kept(labels=(0,), boxes=[])),
    "both_targets": Case(
        rows=[BOX, "{n},,,,,0"], expect=Refused(MALFORMED, "both_targets: .*Target 0 and 1")
    ),
    "two_boxes": Case(
        rows=[BOX, "{n},50,60,10,20,1"], expect=Kept(boxes=[WHOLE, (50, 60, 60, 80)])
    ),
    "a_box_twice": Case(rows=[BOX, BOX], expect=Kept(boxes=[WHOLE], counted=["duplicate_row"])),
    "nothing_twice": Case(
        rows=["{n},,,,,0"] * 2, expect=Kept(labels=(0,), boxes=[], counted=["duplicate_row"])
    ),
    "one_row_of_two_too_short": Case(
        rows=["{n},50,60", BOX], expect=Refused("row_left_out", r"line \d+, cannot be read")
    ),
    "one_row_of_two_too_long": Case(
        rows=[BOX, "{n},10,20,30,40,1,1"], expect=Refused("row_left_out", r"line \d+")
    ),
    "only_row_too_short": Case(
        rows=["{n},10,20"], expect=Refused("malformed_row", "3 cells for 6", "labels.csv:{line}")
    ),
    "nul": Case(
        rows=["{n},10,20\0,30,40,1"], expect=Refused("malformed_row", "NUL", "labels.csv:{line}")
    ),
    "no_id": Case(
        rows=[",10,20,30,40,1"],
        expect=Refused("incomplete_row", "'patientId' is blank", "labels.csv:{line}"),
    ),
    "id_with_suffix": Case(rows=["{n}.dcm,10,20,30,40,1"], expect=ONE),
    "id_with_folder": Case(rows=["images/{n}.dcm,10,20,30,40,1"], expect=ONE),
    "id_with_windows_folder": Case(rows=["images\\{n}.DCM,10,20,30,40,1"], expect=ONE),
    "id_with_blanks": Case(rows=["  {n} ,10,20,30,40,1"], expect=ONE),
    "id_in_two_spellings": Case(
        rows=[BOX, "{n}.dcm,50,60,10,20,1"], expect=Kept(boxes=[WHOLE, (50, 60, 60, 80)])
    ),
    "a_box_in_two_spellings": Case(
        rows=[BOX, "{n}.dcm,10,20,30,40,1"], expect=Kept(boxes=[WHOLE], counted=["duplicate_row"])
    ),
    "spreadsheet_error": Case(
        rows=["#NAME?,10,20,30,40,1"],
        expect=Refused("malformed_row", "#NAME", "labels.csv:{line}"),
    ),
    "missing": box(
        "10,20,30,40,1", Refused("missing_image", "missing.dcm"), draw=lambda path: None
    ),
    **odd_cases.dicom_cases([BOX], ONE),
}


def prepare(folder, *, lists="", **settings):
    return rsna.prepare(
        rsna.Paths(
            labels=str(folder / "labels.csv"),
            images_dir=str(folder / "images"),
            split_lists=str(lists),
        ),
        rsna.Settings(**{**odd_cases.TRAIN, **settings}),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rsna")
    (folder / "labels.csv").write_text("\n".join([HEADER, *odd_cases.rows_of(CASES)]) + "\n")
    for name, case in CASES.items():
        (case.draw or odd_cases.PLAIN)(folder / "images" / f"{name}.dcm")
    return odd_cases.found_in(folder / "out", prepare(folder))


@pytest.mark.parametrize("name", CASES)
def test_each_odd_case_is_right_or_refused_by_name(found, name):
    odd_cases.check(found, name, CASES[name], line=odd_cases.line_of(CASES, name))


def test_every_row_is_counted(found):
    rows = found.manifest.tables["labels.csv"]
    assert rows.read == len(odd_cases.rows_of(CASES)) == rows.kept + sum(rows.rejected.values())


TABLE = f"{HEADER}\na,10,20,30,40,1\na,50,60,10,20,1\nb,,,,,0\n"


def small(folder, content):
    (folder / "images").mkdir()
    (folder / "labels.csv").write_bytes(content)
    return folder


@pytest.mark.parametrize("way", odd_cases.SAME)
def test_a_table_says_the_same_however_it_is_written(tmp_path, monkeypatch, way):
    folder = small(tmp_path, odd_cases.SAME[way](TABLE))
    images, rejected = odd_cases.planned(monkeypatch, tmp_path, lambda: prepare(folder))
    assert rejected == []
    assert [(image.id, image.data["labels"], image.data["regions"]) for image in images] == [
        ("a", [1], [["Pneumonia", *WHOLE], ["Pneumonia", 50, 60, 60, 80]]),
        ("b", [0], []),
    ]


@pytest.mark.parametrize("way", odd_cases.REFUSED)
def test_a_table_that_cannot_be_read_is_refused_by_name(tmp_path, way):
    spoil, words = odd_cases.REFUSED[way]
    with pytest.raises(DataError, match=rf"(?s)labels.*({words})"):
        prepare(small(tmp_path, spoil(TABLE)))
    assert not (tmp_path / "out").exists()


def test_two_different_files_of_one_name_are_refused_with_both(tmp_path):
    folder = small(tmp_path, TABLE.encode())
    label_sets.write_dicom(folder / "images" / "first" / "a.dcm", 1)
    label_sets.write_dicom(folder / "images" / "second" / "a.DCM", 2)
    with pytest.raises(
        DataError, match=r"--images_dir: .*first/a\.dcm and second/a\.DCM, and diff"
    ):
        prepare(folder)


LISTS = {
    "an id twice": ("a\na\nb\n", ""),
    "an id twice, once with a suffix": ("a\na.dcm\nb.png\n", ""),
    "labels behind the ids": ("a 1\nb 0\n", ""),
    "CRLF and a byte-order mark": ("\ufeffa\r\nb\r\n", ""),
    "in two splits": ("a\nb\n", "b.dcm\n"),
}


@pytest.mark.parametrize("way", LISTS)
def test_lists_of_ids(tmp_path, monkeypatch, way):
    folder = small(tmp_path, TABLE.encode())
    lists = tmp_path / "lists"
    lists.mkdir()
    train, test = LISTS[way]
    (lists / "train.txt").write_bytes(train.encode())
    if test:
        (lists / "test.txt").write_text(test)
        with pytest.raises(DataError, match=r"--split_lists: 'b.dcm' is in the list of train and"):
            prepare(folder, split="lovt", lists=lists)
        return
    images, rejected = odd_cases.planned(
        monkeypatch, tmp_path, lambda: prepare(folder, split="lovt", lists=lists)
    )
    assert [(image.id, image.split) for image in images] == [("a", 0), ("b", 0)]
    assert rejected == []
