"""Boxes of a manifest, damaged and odd, from the row to the record, one case each."""

import json

import pytest

from data_prep import manifest
from data_prep.kit import cli
from tests.data_prep import label_sets, odd_cases
from tests.data_prep.odd_cases import Case, Kept, Refused

WHOLE = (10, 20, 40, 60)
ONE, NONE = Kept(boxes=[WHOLE]), Kept(boxes=[])
MASS = {"label": "Mass", "x1": 10, "y1": 20, "x2": 40, "y2": 60}


def cell(boxes, expect, **more):
    """A case whose row has this value for its boxes."""
    return Case(rows=[boxes], expect=expect, **more)


def malformed(boxes, words):
    return cell(boxes, Refused("malformed_boxes", words, at="rows.jsonl:{line}"))


def sized(**changes):
    return [{"label": "Mass", "x": 10, "y": 20, "width": 30, "height": 40, **changes}]


def box(*edges, label="Mass"):
    return [[label, *edges]]


CASES = {
    "a_list": cell(box(10, 20, 40, 60), ONE),
    "a_mapping": cell([MASS], ONE),
    "a_mapping_without_list": cell(MASS, ONE),
    "sized": cell(sized(), ONE),
    "coco": cell([{"label": "Mass", "bbox": [10, 20, 30, 40], "iscrowd": 0}], ONE),
    "a_text": cell("Mass 10 20 40 60", ONE),
    "a_text_of_two": cell(
        "Lung Opacity 10 20 40 60 | Mass 1 2 3 4", Kept(boxes=[WHOLE, (1, 2, 3, 4)])
    ),
    "json_in_a_text": cell(json.dumps([MASS]), ONE),
    "python_in_a_text": cell(str([MASS]), ONE),
    "numbers_as_texts": cell(box("10", "2e1", "40.0", "60"), ONE),
    "decimals": cell(box(10.5, 20.25, 40, 60), Kept(boxes=[(10.5, 20.25, 40, 60)])),
    "with_phrase": cell([{**MASS, "phrase": " a mass "}], Kept(boxes=[WHOLE], phrases=["a mass"])),
    "phrase_nan": cell([{**MASS, "phrase": None}], Kept(boxes=[WHOLE], phrases=[""])),
    "no_box": cell([], NONE),
    "no_box_as_text": cell("[]", NONE),
    "boxes_of_two_labels": cell(
        [*box(10, 20, 40, 60), *box(10, 20, 40, 60, label="Edema")], Kept(boxes=[WHOLE, WHOLE])
    ),
    "over_the_edge": cell(box(80, 80, 120, 99), Kept(boxes=[(80, 80, 96, 96)])),
    "left_of_the_image": cell(box(-5, -9, 20, 20), Kept(boxes=[(0, 0, 20, 20)])),
    "outside": cell(box(97, 2, 120, 9), Refused("box_outside_image", "x 97 to 120.*96x96")),
    "x_and_y_exchanged": cell(
        box(10, 70, 20, 90),
        Refused("box_outside_image", "y 70 to 90.*96x64"),
        draw=lambda path: label_sets.write_png(path, 1, height=64, width=96),
    ),
    "reversed": cell(box(40, 60, 10, 20), Refused("box_without_area", "x 40 to 10")),
    "no_width": cell(box(10, 20, 10, 60), Refused("box_without_area", "has no area")),
    "negative_width": cell(sized(width=-30), Refused("box_without_area", "x 10 to -20")),
    "zero_height": cell(sized(height=0), Refused("box_without_area", "has no area")),
    "shares": malformed(box(0.1, 0.2, 0.4, 0.9), "written in pixels"),
    "shares_around_a_centre": malformed(box(0.5, 0.5, 0.2, 0.3), "written in pixels"),  # YOLO
    "the_first_pixel": malformed(box(0, 0, 1, 1), "written in pixels"),
    "shares_just_above_1": malformed(box(0.1, 0.2, 1.0000001, 0.9), "looks relative"),
    "shares_just_below_0": malformed(box(-1e-9, 0.2, 0.9, 0.9), "looks relative"),
    "shares_beyond_the_image": malformed(box(0.3, -0.2, 1.3, 0.9), "looks relative"),
    "shares_of_a_centre_in_coco_s_form": malformed(
        [{"label": "Mass", "bbox": [0.7, 0.6, 0.5, 0.3]}], "looks relative"
    ),
    "shares_of_a_centre_and_sides": malformed(
        sized(x=0.8, y=0.5, width=0.4, height=0.3), "looks relative"
    ),
    "shares_rounded_and_added_up": malformed(
        [{"label": "Mass", "bbox": [1.005, 0.6, 1.005, 0.3]}], "looks relative"
    ),
    "shares_in_a_text": malformed("Mass 0.5 0.5 1.2 0.9", "looks relative"),
    "two_pixels": cell(box(0, 0, 2, 2), Kept(boxes=[(0, 0, 2, 2)])),
    "small_but_not_near_0": cell(box(2, 2, 2.5, 2.5), Kept(boxes=[(2, 2, 2.5, 2.5)])),
    "thin": cell(box(0.5, 0.5, 1.5, 40), Kept(boxes=[(0.5, 0.5, 1.5, 40)])),
    "a_box_twice": malformed(box(10, 20, 40, 60) * 2, "stands twice"),
    "a_box_twice_in_other_words": malformed([*box(10, 20, 40, 60), *sized()], "stands twice"),
    "a_box_twice_but_for_rounding": malformed(
        [*box(10, 20, 40, 60), *box(10, 20.0000001, 40, 59.9999999)], "stands twice"
    ),
    "a_box_and_one_beside_it": cell(
        [*box(10, 20, 40, 60), *box(10, 20, 40, 60.5)], Kept(boxes=[WHOLE, (10, 20, 40, 60.5)])
    ),
    "nan_for_an_edge": malformed(box(10, float("nan"), 40, 60), "'nan' in the box"),
    "null_for_an_edge": malformed(box(10, None, 40, 60), "'None' in the box"),
    "infinite": malformed(box(10, 20, float("inf"), 60), "'inf' in the box"),
    "a_truth_value": malformed(box(10, 20, True, 60), "'True' in the box"),
    "words": malformed(box("left", 20, 40, 60), "'left' in the box"),
    "python_s_underscore": malformed(box("1_0", 20, 40, 60), "'1_0' in the box"),
    "decimal_comma": malformed(box("10,5", 20, 40, 60), "'10,5' in the box"),
    "three_edges": malformed(box(10, 20, 40), "neither a mapping nor"),
    "five_edges": malformed(box(10, 20, 40, 60, 0.9), "neither a mapping nor"),
    "three_edges_in_a_text": malformed("Mass 10 20 40", "four numbers behind it"),
    "no_edge_in_a_text": malformed("Mass", "four numbers behind it"),
    "a_mark_too_many": malformed("Mass 10 20 40 60 |", "four numbers behind it"),
    "boxes_behind_a_comma": malformed("Mass 5 5 20 20, Mass 30 10 50 30", "four numbers.*by |"),
    "boxes_behind_a_semicolon": malformed("Mass 5 5 20 20; Edema 30 10 50 30", "four numbers"),
    "boxes_behind_a_blank": malformed("Mass 5 5 20 20 Edema 30 10 50 30", "four numbers"),
    "boxes_of_a_detector": malformed(
        "0 0.9 5 5 20 20 1 0.8 30 10 50 30", "number '0.8'; .*scores are not read"
    ),
    "a_class_and_no_name": malformed("0 5 5 20 20", "ends with the number '0'"),
    "a_score_before": malformed("Mass 0.87 5 5 20 20", "'0.87'; .*scores are not read"),
    "a_score_behind": malformed("Mass 5 5 20 20 0.87", "the number '5'"),
    "a_colon": malformed("Mass: 5 5 20 20", "ends with ':'"),
    "a_comma_behind_the_label": malformed("Mass, 5 5 20 20", "ends with ','"),
    "a_number_within_a_label": cell("Mass 2 cm 10 20 40 60", ONE),
    "a_number_behind_a_label_in_json": cell(box(10, 20, 40, 60, label="Grade 2"), ONE),
    "no_label": malformed([{"bbox": [10, 20, 30, 40]}], "has no label"),
    "label_nan": malformed(box(10, 20, 40, 60, label="nan"), "has no label"),
    "label_is_a_number": malformed(box(10, 20, 40, 60, label=3), "has no label"),
    "no_side": malformed([{"label": "Mass", "x": 1, "y": 2, "width": 3}], "has not one of"),
    "two_ways_at_once": malformed([{**MASS, "bbox": [1, 2, 3, 4]}], "has not one of"),
    "no_way": malformed([{"label": "Mass", "xmin": 1}], "has not one of"),
    "bbox_of_three": malformed([{"label": "Mass", "bbox": [1, 2, 3]}], "is not"),
    "bbox_is_a_text": malformed([{"label": "Mass", "bbox": "1 2 3 4"}], "is not"),
    "phrase_is_a_number": malformed([{**MASS, "phrase": 5}], "is no text"),
    "a_number": malformed(7, "is not a list of boxes"),
    "a_list_of_texts": malformed(["Mass 10 20 40 60"], "neither a mapping nor"),
    "flat": malformed(["Mass", 10, 20, 40, 60], "neither a mapping nor"),
    "numpy_s_list": malformed("[['Mass' 10 20 40 60]]", "Mass 10 20 60 90"),
    "numpy_s_numbers": malformed("[['Mass', np.float64(10.0), 20, 40, 60]]", "Mass 10 20 60 90"),
    "not_closed": malformed('[["Mass", 10, 20, 40, 60]', "Mass 10 20 60 90"),
    "a_call": malformed("[__import__('os')]", "Mass 10 20 60 90"),
    "missing": cell(
        box(10, 20, 40, 60), Refused("missing_image", "missing.png"), draw=lambda path: None
    ),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    lines = [
        {"image": f"{name}.png", "id": name, "split": "train", "labels": ["Mass"], "boxes": boxes}
        for name, case in CASES.items()
        for boxes in case.rows
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, case in CASES.items():
        (case.draw or label_sets.write_png)(folder / f"{name}.png")
    made = manifest.prepare(
        manifest.Paths(manifest=str(folder / "rows.jsonl")),
        manifest.Settings(short_side=label_sets.SIZE),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )
    return odd_cases.found_in(folder / "out", made)


@pytest.mark.parametrize("name", CASES)
def test_each_odd_case_is_right_or_refused_by_name(found, name):
    case, line = CASES[name], odd_cases.line_of(CASES, name) - 1  # a .jsonl has no header
    odd_cases.check(found, name, case, line=line)


def test_every_row_is_counted(found):
    rows = found.manifest.tables["rows.jsonl"]
    assert rows.read == len(CASES) == rows.kept + sum(rows.rejected.values())
