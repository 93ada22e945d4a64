"""Object-CXR's preparer on damaged and odd tables, shapes and images, one case each."""

import numpy as np
import pytest
from PIL import Image

from data_prep import object_cxr
from data_prep.kit import cli, shapes
from prior_jax.errors import DataError
from tests.data_prep import label_sets, odd_cases
from tests.data_prep.odd_cases import Case, Kept, Refused

SIZE = label_sets.SIZE
HEADER = "image_name,annotation"
MALFORMED = "malformed_annotation"
NO_SHAPE = "A shape is .* Write a rectangle as 0 and an ellipse as 1"
BOX = (10, 20, 40, 60)
SQUARE = np.zeros((SIZE, SIZE), bool)
SQUARE[60:90, 20:60] = True
# The line of a bow tie crosses itself in the middle of the square.
TIE = shapes.polygon_mask([(20, 20), (60, 60), (60, 20), (20, 60)], SIZE, SIZE)
ROUND = shapes.ellipse_mask(BOX, SIZE, SIZE)


def cell(text, expect, **more):
    return Case(rows=[f"{{n}}.jpg,{text}"], expect=expect, **more)


def malformed(text, words=NO_SHAPE):
    return cell(text, Refused(MALFORMED, words))


def boxes(text, *found, masks=(), **more):
    return cell(text, Kept(labels=(1,), boxes=found, masks=masks), **more)


def image(path, *, kind="JPEG", **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label_sets.pixels(1, **size)).save(path, kind)


RECTANGLE = "0 10 20 40 60"
ONE = Kept(labels=(1,), boxes=[BOX], masks=[])
CASES = {
    "rectangle": boxes(RECTANGLE, BOX),
    "ellipse": boxes("1 10 20 40 60", BOX, masks=[ROUND]),
    "polygon": boxes("2 20 60 60 60 60 90 20 90", (20, 60, 60, 90), masks=[SQUARE]),
    "polygon_closed": boxes("2 20 60 60 60 60 90 20 90 20 60", (20, 60, 60, 90), masks=[SQUARE]),
    "polygon_closed_twice": boxes(
        "2 20 60 60 60 60 90 20 90 20 60 20 60", (20, 60, 60, 90), masks=[SQUARE]
    ),
    "polygon_with_a_corner_twice": boxes(
        "2 20 60 20 60 60 60 60 90 20 90", (20, 60, 60, 90), masks=[SQUARE]
    ),
    "polygon_the_other_way_round": boxes(
        "2 20 90 60 90 60 60 20 60", (20, 60, 60, 90), masks=[SQUARE]
    ),
    "polygon_that_crosses_itself": boxes(
        "2 20 20 60 60 60 20 20 60", (20, 20, 60, 60), masks=[TIE]
    ),
    "polygon_thinner_than_a_pixel": cell(
        "2 10 10 10 40 10.2 40", Kept(labels=(1,), boxes=[(10, 10, 10.2, 40)])
    ),
    "polygon_of_one_corner": malformed("2 20 60"),
    "polygon_of_two_corners": malformed("2 20 60 60 90"),  # cvat#1769
    "polygon_with_half_a_corner": malformed("2 20 60 60 60 60 90 20"),
    "polygon_on_a_line": cell("2 10 10 10 20 10 30", Refused("box_without_area", "has no area")),
    "polygon_at_a_point": cell("2 5 5 5 5 5 5", Refused("box_without_area", "has no area")),
    "rectangle_reversed": boxes("0 40 60 10 20", BOX),
    "ellipse_reversed": boxes("1 40 60 10 20", BOX, masks=[ROUND]),
    "ellipse_half_reversed": boxes("1 40 20 10 60", BOX, masks=[ROUND]),
    "ellipse_without_height": cell("1 10 20 40 20", Refused("box_without_area", "has no area")),
    "rectangle_without_width": cell("0 10 20 10 60", Refused("box_without_area", "has no area")),
    "decimals": boxes("0 10.5 20.25 40 60", (10.5, 20.25, 40, 60)),
    "over_the_edge": boxes("0 80 80 120 110", (80, 80, 96, 96)),
    "left_of_the_image": boxes("0 -5 -5 20 20", (0, 0, 20, 20)),  # eyetracking#2
    "outside": cell("0 97 10 105 20", Refused("box_outside_image", "x 97 to 105.*96x96")),
    "ellipse_outside": cell("1 200 200 220 240", Refused("box_outside_image", "96x96")),
    "polygon_outside": cell("2 200 9 220 9 220 40", Refused("box_outside_image", "96x96")),
    "x_and_y_exchanged": cell(  # as PosterLayout-CVPR2023#13
        "0 10 70 20 90",
        Refused("box_outside_image", "y 70 to 90.*96x64"),
        draw=lambda path: image(path, height=64, width=96),
    ),
    "unknown_kind": malformed("3 10 20 40 60"),
    "kind_is_a_word": malformed("rect 10 20 40 60"),
    "kind_is_a_fraction": malformed("0.5 10 20 40 60"),
    "kind_as_a_decimal": boxes("0.0 10 20 40 60", BOX),
    "no_kind": malformed("10 20 40 60"),
    "rectangle_of_three_sides": malformed("0 10 20 40"),
    "rectangle_of_five_sides": malformed("0 10 20 40 60 70"),
    "nan_in_a_shape": malformed("0 10 nan 40 60"),
    "infinite": malformed("0 10 20 inf 60"),
    "python_s_underscore": malformed("0 1_0 20 40 60"),
    "wide_digits": malformed("0 \uff11\uff10 20 40 60"),
    "commas": malformed('"0,10,20,40,60"'),
    "a_list": malformed('"[0, 10, 20, 40, 60]"'),
    "two_shapes": boxes("0 10 20 40 60;0 1 2 3 4", BOX, (1, 2, 3, 4)),
    "two_shapes_with_blanks": boxes(" 0 10 20 40 60 ; 0 1 2 3 4 ; ", BOX, (1, 2, 3, 4)),
    "semicolon_at_the_end": boxes("0 10 20 40 60;", BOX),
    "two_semicolons_between": malformed("0 10 20 40 60;;0 1 2 3 4"),
    "only_semicolons": malformed(";;"),
    "a_shape_twice": malformed("0 10 20 40 60;0 10 20 40 60", "stands twice. Leave one of them"),
    "a_shape_twice_in_other_words": malformed("0 10 20 40 60;0.0 10.0 20 40 60", "stands twice"),
    "one_good_and_one_bad": malformed("0 10 20 40 60;0 1 2 3"),
    "no_object": cell("", Kept(labels=(0,), boxes=[])),
    "no_object_nan": cell("nan", Kept(labels=(0,), boxes=[])),
    "no_object_blanks": cell('"  "', Kept(labels=(0,), boxes=[])),
    "a_row_twice": Case(
        rows=[f"{{n}}.jpg,{RECTANGLE}"] * 2,
        expect=Kept(labels=(1,), boxes=[BOX], counted=["duplicate_row"]),
    ),
    "two_rows_that_differ": Case(
        rows=[f"{{n}}.jpg,{RECTANGLE}", "{n}.jpg,0 1 2 3 4"],
        expect=Refused("conflicting_rows", "2 rows of one image differ"),
    ),
    "with_and_without_object": Case(
        rows=[f"{{n}}.jpg,{RECTANGLE}", "{n}.jpg,"], expect=Refused("conflicting_rows", "differ")
    ),
    "one_row_of_two_too_long": Case(
        rows=[f"{{n}}.jpg,{RECTANGLE}", "{n}.jpg,a,b"], expect=Refused("row_left_out", "line")
    ),
    "only_row_too_long": Case(
        rows=["{n}.jpg,0 10 20,40 60"],
        expect=Refused("malformed_row", "3 cells for 2", "train.csv:{line}"),
    ),
    "no_name": Case(
        rows=[f",{RECTANGLE}"],
        expect=Refused("incomplete_row", "'image_name' is blank", "train.csv:{line}"),
    ),
    "name_without_suffix": Case(rows=[f"{{n}},{RECTANGLE}"], expect=ONE),
    "name_with_folder": Case(rows=[f"train/{{n}}.jpg,{RECTANGLE}"], expect=ONE),
    "name_with_windows_folder": Case(rows=[f"train\\{{n}}.JPG,{RECTANGLE}"], expect=ONE),
    "name_in_two_spellings": Case(
        rows=[f"{{n}}.jpg,{RECTANGLE}", f"{{n}},{RECTANGLE}"],
        expect=Kept(boxes=[BOX], counted=["duplicate_row"]),
    ),
    "upper_case_suffix": cell(RECTANGLE, ONE, draw=odd_cases.moved(image, "{stem}.JPG")),
    "another_suffix": cell(
        RECTANGLE,
        ONE,
        draw=odd_cases.moved(lambda path: image(path, kind="PNG"), "deep/er/{stem}.png"),
    ),
    "apple_double_beside": cell(
        RECTANGLE,
        ONE,
        draw=odd_cases.beside(image, "._{stem}.jpg", odd_cases.APPLE_DOUBLE),
    ),
    "missing": cell(RECTANGLE, Refused("missing_image", "missing.jpg"), draw=lambda path: None),
    "cut_off": cell(RECTANGLE, Refused("truncated_image"), draw=odd_cases.cut(image)),
    "empty_file": cell(RECTANGLE, Refused("zero_byte_image"), draw=odd_cases.written(b"")),
    "text_file": cell(RECTANGLE, Refused("undecodable_image"), draw=odd_cases.written(b"<html>")),
    "tiny": cell(
        RECTANGLE,
        Refused("absurd_image_size", "20x20"),
        draw=lambda path: image(path, height=20, width=20),
    ),
}


def prepare(folder, **settings):
    return object_cxr.prepare(
        object_cxr.Paths(tables=str(folder), images_dir=str(folder)),
        object_cxr.Settings(**{**odd_cases.TRAIN, **settings}),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("object")
    (folder / "train.csv").write_text("\n".join([HEADER, *odd_cases.rows_of(CASES)]) + "\n")
    for name, case in CASES.items():
        (case.draw or image)(folder / "train" / f"{name}.jpg")
    return odd_cases.found_in(folder / "out", prepare(folder))


@pytest.mark.parametrize("name", CASES)
def test_each_odd_case_is_right_or_refused_by_name(found, name):
    odd_cases.check(found, name, CASES[name], line=odd_cases.line_of(CASES, name))


def test_every_row_is_counted(found):
    rows = found.manifest.tables["rows of the tables"]
    assert rows.read == len(odd_cases.rows_of(CASES)) == rows.kept + sum(rows.rejected.values())


TABLE = f"{HEADER}\na.jpg,{RECTANGLE}\nb.jpg,\n"


@pytest.mark.parametrize("way", odd_cases.SAME)
def test_a_table_says_the_same_however_it_is_written(tmp_path, monkeypatch, way):
    (tmp_path / "train.csv").write_bytes(odd_cases.SAME[way](TABLE))
    images, rejected = odd_cases.planned(monkeypatch, tmp_path, lambda: prepare(tmp_path))
    assert rejected == []
    assert [(image.id, image.data["labels"], image.data["regions"]) for image in images] == [
        ("a", [1], [[0, *BOX]]),
        ("b", [0], []),
    ]


@pytest.mark.parametrize("way", odd_cases.REFUSED)
def test_a_table_that_cannot_be_read_is_refused_by_name(tmp_path, way):
    spoil, words = odd_cases.REFUSED[way]
    (tmp_path / "train.csv").write_bytes(spoil(TABLE))
    with pytest.raises(DataError, match=rf"(?s)(--tables|train).*({words})"):
        prepare(tmp_path)


def test_an_image_in_two_tables_is_kept_once_and_told(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text(TABLE)
    (tmp_path / "dev.csv").write_text(f"{HEADER}\na.jpg,{RECTANGLE}\nc.jpg,\n")
    images, rejected = odd_cases.planned(
        monkeypatch, tmp_path, lambda: prepare(tmp_path, split="official")
    )
    assert [(image.id, image.split) for image in images] == [("a", 0), ("b", 0), ("c", 1)]
    assert [(one.id, one.reason, one.detail) for one in rejected] == [
        ("a", "duplicate_row", "train.csv has it too")
    ]


def test_two_different_files_of_one_name_are_refused_with_both(tmp_path):
    (tmp_path / "train.csv").write_text(TABLE)
    image(tmp_path / "train" / "a.jpg")
    image(tmp_path / "small" / "a.jpg", height=40, width=40)
    with pytest.raises(DataError, match=r"--images_dir: .*small/a\.jpg and train/a\.jpg"):
        prepare(tmp_path)
