"""Boxes, sex and age in a manifest: every form in which they may be written, and damage."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from data_prep import manifest, manifest_boxes
from data_prep.kit import similar_names
from data_prep.kit.plan import RowProblem
from prior_jax.data import schema
from prior_jax.errors import DataError
from tests.data_prep import label_sets
from tests.data_prep.test_manifest import prepare, records_of

# The images of these tests have 80x64 pixels and are kept so.
BOX = ["Mass", 10, 20, 30, 50]
FORMS = {
    "mapping": [{"label": "Mass", "x": 10, "y": 20, "width": 20, "height": 30}],
    "coco": [{"label": "Mass", "bbox": [10, 20, 20, 30], "from": "somewhere"}],
    "corners": [{"label": "Mass", "x1": 10, "y1": 20.0, "x2": "30", "y2": 50}],
    "list": [BOX],
    "single": {"label": "Mass", "x1": 10, "y1": 20, "x2": 30, "y2": 50},
    "text": "Mass 10 20 30 50",
    "json": json.dumps([BOX]),
    "python": str([{"label": "Mass", "x": 10, "y": 20, "width": 20, "height": 30}]),
}
DAMAGED = {
    "number": 7,
    "word": "yes",
    "three": "Mass 10 20 30",
    "half": [{"label": "Mass", "x": 10, "y": 20, "width": 20}],
    "both": [{"label": "Mass", "bbox": [1, 2, 3, 4], "x1": 1, "y1": 2, "x2": 3, "y2": 4}],
    "unlabelled": [{"bbox": [1, 2, 3, 4]}],
    "blank label": [["  ", 1, 2, 30, 40]],
    "not a number": [["Mass", 1, 2, "wide", 4]],
    "nan": [["Mass", 1, 2, math.nan, 4]],
    "truth": [["Mass", 1, 2, True, 4]],
    "short": [["Mass", 1, 2, 3]],
    "bbox": [{"label": "Mass", "bbox": [1, 2, 3]}],
    "phrase": [{"label": "Mass", "bbox": [1, 2, 3, 4], "phrase": 5}],
    "shares": [["Mass", 0.1, 0.2, 0.4, 0.9]],
    "numpy": "[['Mass' 1 2 3 4]]",
    "open": '[["Mass", 1, 2, 3, 4]',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same_box(form):
    assert manifest_boxes.boxes_in(FORMS[form]) == [("Mass", "", 10.0, 20.0, 30.0, 50.0)]


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_boxes_are_refused_by_name(damage):
    with pytest.raises(RowProblem) as caught:
        manifest_boxes.boxes_in(DAMAGED[damage])
    assert caught.value.reason == "malformed_boxes" and caught.value.detail


def test_what_is_missing_is_not_an_empty_list():
    for blank in (None, "", "nan", math.nan):
        assert manifest_boxes.boxes_in(blank) is None
    assert manifest_boxes.boxes_in([]) == manifest_boxes.boxes_in("[]") == []


def test_labels_of_several_words_and_several_boxes_in_one_cell():
    assert manifest_boxes.boxes_in("Lung Opacity 1 2 30.5 40 | Mass 5 6 7 8") == [
        ("Lung Opacity", "", 1.0, 2.0, 30.5, 40.0),
        ("Mass", "", 5.0, 6.0, 7.0, 8.0),
    ]


def test_boxes_sex_and_age_reach_the_records(tmp_path):
    rows = [
        {"image": "a.jpg", "labels": ["Mass"], "boxes": [BOX, ["Edema", -5, 0, 8, 90]],
         "sex": "female", "age": "054Y"},
        {"image": "b.jpg", "text": "The lungs are clear.", "boxes": [], "sex": None, "age": 414},
        {"image": "c.jpg", "boxes": [{"label": "Mass", "phrase": "a mass", "bbox": [1, 2, 3, 4]}]},
        {"image": "d.jpg", "boxes": []},
        {"image": "e.jpg"},
        {"image": "f.jpg", "labels": ["Mass"], "boxes": [["Mass", 81, 2, 90, 9]]},
        {"image": "g.jpg", "labels": ["Mass"], "boxes": [["Mass", 30, 2, 10, 9]]},
        {"image": "h.jpg", "labels": ["Mass"], "boxes": ["Mass"]},
        {"image": "i.jpg", "labels": ["Mass"], "sex": "2"},
        {"image": "j.jpg", "labels": ["Mass"], "age": "sixty"},
    ]  # fmt: skip
    summary = prepare(tmp_path, rows)
    found = records_of(tmp_path, summary)
    assert sorted(found) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    one = found["a.jpg"]
    assert (one.sex, one.age, one.region_labels) == ("F", 54.0, ("Mass", "Edema"))
    np.testing.assert_allclose(one.region_boxes, [[10, 20, 30, 50], [0, 0, 8, 64]])
    assert summary.regions["Edema"].clipped == 1
    assert found["b.jpg"].sex == "" and math.isnan(found["b.jpg"].age)
    assert found["c.jpg"].region_phrases == ("a mass",)
    assert found["c.jpg"].text_source == found["d.jpg"].text_source == "none"
    assert summary.rejected == {
        "box_outside_image": 1,
        "box_without_area": 1,
        "malformed_boxes": 1,
        "malformed_row": 2,
        "neither_text_nor_labels": 1,
    }
    assert any("boxes from 'boxes'" in note for note in summary.notes)
    label_sets.assert_sound(tmp_path / "out")


def test_boxes_follow_their_own_image_of_a_study(tmp_path):
    rows = [
        {"image": "a.jpg", "study_id": "s", "text": "A mass.", "boxes": [BOX], "age": 40},
        {"image": "b.jpg", "study_id": "s", "text": "A mass.", "boxes": "Edema 1 2 3 4"},
        {"image": "c.jpg", "study_id": "t", "text": "A mass.", "age": 40},
        {"image": "d.jpg", "study_id": "t", "text": "A mass.", "age": 41},
        {"image": "e.jpg", "study_id": "u", "text": "A mass.", "sex": "F"},
        {"image": "f.jpg", "study_id": "u", "text": "A mass.", "sex": "M"},
    ]
    summary = prepare(tmp_path, rows)
    (record,) = records_of(tmp_path, summary).values()
    by_image = {record.image_ids[i]: n for i, n in zip(record.region_images, "ab", strict=True)}
    assert by_image == {"a.jpg": "a", "b.jpg": "b"} and record.age == 40
    assert record.region_labels == ("Mass", "Edema")
    assert summary.rejected == {"conflicting_age": 1, "conflicting_sex": 1}


def test_labels_that_differ_in_case_or_punctuation_alone_are_told(tmp_path):
    boxes = [["mass", 1, 2, 30, 40], ["Pleural-Effusion", 1, 2, 30, 40], ["Edema", 1, 2, 30, 40]]
    rows = [
        {"image": "a.jpg", "boxes": [BOX, *boxes, ["Pleural Effusion", 5, 5, 30, 40]]},
        {"image": "b.jpg", "labels": ["edema"]},
    ]
    notes = [note for note in prepare(tmp_path, rows).notes if note.startswith("Warning")]
    pairs = [("Edema", "edema"), ("Mass", "mass"), ("Pleural Effusion", "Pleural-Effusion")]
    assert len(notes) == len(pairs)
    for pair, note in zip(pairs, notes, strict=True):
        assert f"{pair[0]!r} and {pair[1]!r} differ in case or punctuation alone" in note
    assert similar_names.notes(["Mass", "Nodule", "Mass", "+", "-"]) == []


def test_columns_that_say_none_and_some_contradict_each_other(tmp_path):
    rows = [
        {"image": "a.jpg", "boxes": [], "finding_boxes": [BOX]},
        {"image": "b.jpg", "boxes": "[]", "finding_boxes": "Mass 1 2"},
        {"image": "c.jpg", "boxes": [], "finding_boxes": []},
        {"image": "d.jpg", "boxes": [], "finding_boxes": ""},
        {"image": "e.jpg", "boxes": None, "finding_boxes": [BOX]},
        {"image": "f.jpg", "boxes": [BOX], "finding_boxes": [["Edema", 1, 2, 30, 40]]},
    ]
    summary = prepare(tmp_path, rows)
    found = records_of(tmp_path, summary)
    assert {name: record.region_labels for name, record in found.items()} == {
        "c.jpg": (), "d.jpg": (), "e.jpg": ("Mass",), "f.jpg": ("Mass",)
    }  # fmt: skip
    assert summary.rejected == {"malformed_boxes": 2}
    lines = (tmp_path / "out" / schema.REJECTED_NAME).read_text()
    assert "column 'boxes' says that there is no box, and 'finding_boxes' has 1" in lines


def test_boxes_are_half_as_large_where_the_image_is(tmp_path):
    summary = prepare(tmp_path, [{"image": "a.jpg", "boxes": [BOX]}], short_side=32)
    (record,) = records_of(tmp_path, summary).values()
    np.testing.assert_allclose(record.region_boxes, [[5, 10, 15, 25]])


def test_a_table_that_pandas_wrote_is_read(tmp_path):
    frame = pd.DataFrame(
        {
            "image": ["a.jpg", "b.jpg", "c.jpg"],
            "rects": [FORMS["mapping"], [], None],
            "Gender": ["M", "F", None],
            "years": [40.0, math.nan, 3],
            "labels": ["Mass", "Edema", "Edema"],
        }
    )
    frame.to_csv(tmp_path / "frame.csv", index=False)
    rows = pd.read_csv(tmp_path / "frame.csv", dtype=str).fillna("").to_dict("records")
    flags = {"boxes_columns": ("rects",), "sex_column": "Gender", "age_column": "years"}
    summary = prepare(tmp_path, rows, name="rows.csv", **flags)
    found = records_of(tmp_path, summary)
    np.testing.assert_allclose(found["a.jpg"].region_boxes, [[10, 20, 30, 50]])
    assert [found[name].sex for name in ("a.jpg", "b.jpg", "c.jpg")] == ["M", "F", ""]
    assert found["a.jpg"].age == 40 and math.isnan(found["b.jpg"].age)


def test_a_column_of_another_name_is_told_and_one_that_is_absent_is_refused(tmp_path):
    rows = [{"image": "a.jpg", "labels": ["Mass"], "Sex": "F", "Boxes": [BOX]}]
    notes = " ".join(prepare(tmp_path, rows).notes)
    assert "--sex_column=Sex reads it" in notes and "--boxes_columns=Boxes reads it" in notes
    with pytest.raises(DataError, match=r"--boxes_columns.*'rects'"):
        prepare(tmp_path, rows, out="other", boxes_columns=("rects",))
    settings = manifest.Settings(ignore_columns=("boxes",))
    assert settings.columns().ignored == ("boxes",)
