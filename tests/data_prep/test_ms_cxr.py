"""MS-CXR's preparer on files in its own layout, whole, odd and damaged, as .csv and as .json."""

import csv
import json

import numpy as np
import pytest

from data_prep import ms_cxr
from data_prep.kit import cli
from prior_jax.data import schema
from prior_jax.errors import DataError
from tests.data_prep import label_sets

WIDTH, HEIGHT = 88, 64


def row(dicom, *, phrase="a nodule", label="Pneumonia", box=(10, 20, 30, 16), split="test", **more):
    patient = 10_000_000 + sum(map(ord, dicom))
    return {
        "dicom_id": dicom,
        "category_name": label,
        "label_text": phrase,
        "path": f"files/p{str(patient)[:2]}/p{patient}/s50000001/{dicom}.jpg",
        **dict(zip("xywh", box, strict=True)),
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "split": split,
        **more,
    }


def write_csv(folder, rows, *, name="rows.csv"):
    with open(folder / name, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder / name


def write_json(folder, rows):
    """The same rows in COCO's form, as MS-CXR ships it."""
    images = list({found["dicom_id"]: found for found in rows}.values())
    place = {found["dicom_id"]: number for number, found in enumerate(images, 7)}
    content = {
        "categories": [{"id": n, "name": name} for n, name in enumerate(ms_cxr.LABELS, 1)],
        "images": [
            {"id": place[i["dicom_id"]], "file_name": f"{i['dicom_id']}.jpg", "path": i["path"],
             "width": i["image_width"], "height": i["image_height"], "split": i["split"]}
            for i in images
        ],
        "annotations": [
            {"id": n, "image_id": place[one["dicom_id"]],
             "category_id": 1 + ms_cxr.LABELS.index(one["category_name"]),
             "label_text": [one["label_text"]], "bbox": [one[side] for side in "xywh"]}
            for n, one in enumerate(rows)
        ],
    }  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(content))
    return folder / "rows.json"


def write_images(folder, rows, *, scale=1.0, absent=()):
    for number, found in enumerate(rows):
        if found["dicom_id"] not in absent:
            size = {"height": round(HEIGHT * scale), "width": round(WIDTH * scale)}
            label_sets.write_png(folder / found["path"], number, **size)


def prepare(folder, table, *, out="out", images_dir="", **settings):
    return ms_cxr.prepare(
        ms_cxr.Paths(annotations=str(table), images_dir=str(images_dir or folder)),
        ms_cxr.Settings(short_side=32, **settings),
        cli.RunOptions(out=str(folder / out), workers=1),
    )


WHOLE = [
    row("a", split="train"),
    row("a", box=(40, 2, 10.5, 8), split="train"),
    row("a", phrase="an  edema,\n bilateral", label="Edema", split="train"),
    row("b", split="val"),
    row("c", label="Pneumothorax"),
]


@pytest.mark.parametrize("write", [write_csv, write_json])
def test_phrases_boxes_patients_and_the_official_split(tmp_path, write):
    rows = [dict(one, label_text=" ".join(one["label_text"].split())) for one in WHOLE]
    write_images(tmp_path, rows)
    manifest = prepare(tmp_path, write(tmp_path, rows), split="official")
    found = label_sets.records(tmp_path / "out")
    assert {split: list(records) for split, records in found.items()} == {
        "train": ["a"], "validate": ["b"], "test": ["c"]
    }  # fmt: skip
    one = found["train"]["a"]
    assert one.subject_id == rows[0]["path"].split("/")[2]
    assert one.region_phrases == ("a nodule", "a nodule", "an edema, bilateral")
    assert one.region_labels == ("Pneumonia", "Pneumonia", "Edema")
    np.testing.assert_allclose(one.region_boxes[:2], [[5, 10, 20, 18], [20, 1, 25.25, 5]])
    there = {name for name, value in zip(ms_cxr.LABELS, one.labels, strict=True) if value == 1}
    assert there == {"Pneumonia", "Edema"} and set(one.labels) == {1, schema.LABEL_NOT_MENTIONED}
    assert manifest.regions["Pneumonia"].phrases == 3
    assert any("5 boxes, 4 image-phrase pairs, 3 images" in note for note in manifest.notes)
    label_sets.assert_sound(tmp_path / "out")


def test_a_shrunk_copy_of_the_images_gives_the_same_boxes(tmp_path):
    write_images(tmp_path, WHOLE, scale=0.5)
    prepare(tmp_path, write_csv(tmp_path, WHOLE), split="official")
    found = label_sets.every(tmp_path / "out")["a"]
    np.testing.assert_allclose(found.region_boxes[:2], [[5, 10, 20, 18], [20, 1, 25.25, 5]])
    assert found.region_phrases[2] == "an edema, bilateral"


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    rows = [
        row("good"),
        row("good"),
        row("clip", box=(70, 50, 20, 20)),
        row("zero", box=("0", "0.0", 5, 5)),
        row("outside", box=(88, 5, 9, 9)),
        row("flat", box=(10, 20, 0, 9)),
        row("words", box=("left", 20, 5, 9)),
        row("half", box=(1, 20, "", 9)),
        row("half"),
        row("silent", phrase=""),
        row("other", label="Fracture"),
        row("named", dicom_id="another"),
        row("lost", path="images/lost.jpg"),
        row("sized", image_width=""),
        row("where", split="fold 3"),
        row("both", split="train"),
        row("both", box=(1, 2, 3, 4), split="test"),
        row("large", image_width=WIDTH * 2),
        row("missing"),
        row("cut"),
    ]
    files = [one for one in rows if one["path"].startswith("files/")]
    write_images(tmp_path, files, absent=("missing",))
    label_sets.truncate(tmp_path / rows[-1]["path"])
    manifest = prepare(tmp_path, write_csv(tmp_path, rows), split_fractions=("0", "0", "1"))
    counts = manifest.tables["rows.csv"]
    assert counts.rejected == {
        "box_left_out": 1,
        "box_outside_image": 1,
        "conflicting_rows": 2,
        "duplicate_row": 1,
        "image_of_another_size": 1,
        "malformed_annotation": 5,
        "missing_image": 1,
        "truncated_image": 1,
        "unknown_label": 1,
        "unknown_path": 2,
        "unknown_split": 1,
    }
    assert counts.read == 20 == counts.kept + sum(counts.rejected.values())
    assert sorted(label_sets.records(tmp_path / "out")["test"]) == ["clip", "good", "zero"]
    assert manifest.regions["Pneumonia"].clipped == 1
    label_sets.assert_sound(tmp_path / "out")


def test_the_folder_files_itself_may_be_given(tmp_path):
    write_images(tmp_path, WHOLE)
    manifest = prepare(tmp_path, write_csv(tmp_path, WHOLE), images_dir=tmp_path / "files")
    assert manifest.tables["rows.csv"].kept == 5


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "categories": 3}', "7"])
def test_a_damaged_json_is_refused_by_name(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match="--annotations"):
        prepare(tmp_path, tmp_path / "rows.json")


def test_odd_annotations_of_a_json_are_counted(tmp_path):
    table = write_json(tmp_path, WHOLE)
    write_images(tmp_path, WHOLE)
    content = json.loads(table.read_text())
    odd = [{"image_id": 99}, {"image_id": [], "category_id": {}}, {"image_id": 9, "bbox": 3}]
    content["annotations"] += odd
    table.write_text(json.dumps(content))
    manifest = prepare(tmp_path, table)
    rejected = {"unknown_path": 2, "unknown_label": 1, "box_left_out": 1}
    assert manifest.tables["rows.json"].rejected == rejected


def test_a_table_without_a_split_or_a_column_is_refused_by_name(tmp_path):
    rows = [{k: v for k, v in one.items() if k != "split"} for one in WHOLE]
    with pytest.raises(DataError, match=r"--split: .*1\.1\.0"):
        prepare(tmp_path, write_csv(tmp_path, rows), split="official")
    rows = [{k: v for k, v in one.items() if k != "label_text"} for one in WHOLE]
    with pytest.raises(DataError, match=r"--annotations.*label_text"):
        prepare(tmp_path, write_csv(tmp_path, rows))
