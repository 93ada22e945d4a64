"""NIH ChestX-ray14's preparer on files in its own layout, whole, odd and damaged."""

import math

import numpy as np
import pytest
from PIL import Image

from data_prep import nih
from data_prep.kit import cli, finish
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
ROW = "{name},{labels},0,{patient},{age},{sex},{view},2682,2749,0.143,0.143,"


def row(name, labels="No Finding", *, age="58", sex="M", view="PA"):
    patient = name.partition("_")[0].lstrip("0")
    return ROW.format(name=name, labels=labels, patient=patient, age=age, sex=sex, view=view)


def write(folder, rows, *, boxes=(), absent=()):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "entries.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "boxes.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    (folder / "images").mkdir(exist_ok=True)
    for place, name in enumerate(dict.fromkeys(r.partition(",")[0] for r in rows)):
        if name and name not in absent:
            part = folder / "images" / f"images_{place % 2 + 1:03d}" / "images"
            label_sets.write_png(part / name, place)
    return folder


def prepare(folder, *, lists="", boxes="boxes.csv", **settings):
    return nih.prepare(
        nih.Paths(
            labels=str(folder / "entries.csv"),
            boxes=str(folder / boxes) if boxes else "",
            images_dir=str(folder / "images"),
            split_lists=str(lists),
        ),
        nih.Settings(**{"short_side": 48, "boxes_drawn_on": 0, **settings}),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


TRAIN = {"split_fractions": ("1", "0", "0")}


def test_labels_boxes_and_subgroups_are_kept(tmp_path):
    rows = [
        row("00000001_000.png", "Cardiomegaly|Pleural_Thickening", age="058Y", sex="F"),
        row("00000001_001.png", age="414", view="AP"),
        row("00000002_000.png", "Infiltration"),
    ]
    boxes = [
        "00000001_000.png,Cardiomegaly,10,20.5,30,40",
        "00000002_000.png,Infiltrate,50,60,46.5,20",
    ]
    write(tmp_path, rows, boxes=boxes)
    manifest = prepare(tmp_path, **TRAIN)
    found = label_sets.every(tmp_path / "out")
    one, two, three = (found[name] for name in sorted(found))
    assert one.subject_id == two.subject_id == "00000001"
    positive = {n for n, v in zip(nih.LABELS, one.labels, strict=True) if v == 1}
    assert positive == {"Cardiomegaly", "Pleural Thickening"} and sum(one.labels) == 2
    assert two.labels[-1] == 1 and sum(two.labels) == 1
    assert (one.sex, one.age, one.views) == ("F", 58.0, ("PA",))
    assert math.isnan(two.age) and two.views == ("AP",)
    np.testing.assert_allclose(one.region_boxes, [[5, 10.25, 20, 30.25]])
    assert three.region_labels == ("Infiltration",)
    np.testing.assert_allclose(three.region_boxes, [[25, 30, 48, 40]])
    assert manifest.tables["entries.csv"].kept == 3 and manifest.tables["boxes.csv"].kept == 2
    assert manifest.regions["Infiltration"].clipped == 1
    label_sets.assert_sound(tmp_path / "out")


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    rows = [
        row("00000001_000.png"),
        row("00000002_000.png", "Sarcoidosis"),
        row("00000003_000.png", "Mass|No Finding"),
        row("00000004_000.png", ""),
        row("00000005_000.png", sex="X"),
        row("00000006_000.png", age="old"),
        row("00000007_000.png"),
        row("00000007_000.png"),
        row("00000008_000.png", "Mass"),
        row("00000008_000.png", "Nodule"),
        row("00000009_000.png"),
        row("00000010_000.png", "Mass"),
        row("00000011_000.png", "Mass"),
        row("00000012_000.png", "Mass", sex="", age="", view=""),
        row("", "Mass"),
        "00000013_000.png,Mass",
        row("00000014_000.png", "Mass"),
    ]
    boxes = [
        "00000010_000.png,Mass,10,20,-30,40",
        "00000011_000.png,Mass,200,20,30,40",
        "00000099_000.png,Mass,10,20,30,40",
        "00000014_000.png,Bump,10,20,30,40",
        "00000012_000.png,Mass,10,20,30,40",
        "00000012_000.png,Mass,10,20,30,40",
    ]
    write(tmp_path, rows, boxes=boxes, absent=["00000009_000.png"])
    manifest = prepare(tmp_path, **TRAIN)
    found = label_sets.every(tmp_path / "out")
    assert sorted(found) == ["00000001_000", "00000007_000", "00000012_000"]
    assert found["00000012_000"].sex == "" and found["00000012_000"].views == ("",)
    assert manifest.tables["entries.csv"].rejected == {
        "box_left_out": 2,
        "box_outside_image": 1,
        "conflicting_labels": 1,
        "conflicting_rows": 2,
        "duplicate_row": 1,
        "incomplete_row": 2,
        "malformed_row": 3,
        "missing_image": 1,
        "unknown_label": 1,
    }
    boxes = manifest.tables["boxes.csv"]
    assert (boxes.read, boxes.kept) == (6, 2)
    assert boxes.rejected == {
        "box_of_unknown_image": 1,
        "duplicate_row": 1,
        "malformed_box": 1,
        "unknown_label": 1,
    }
    label_sets.assert_sound(tmp_path / "out")


def test_the_official_split_keeps_patients_apart(tmp_path):
    names = [f"{patient:08d}_{number:03d}.png" for patient in range(30) for number in range(2)]
    write(tmp_path, [row(name) for name in names])
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:50]))
    (tmp_path / "test_list.txt").write_text("\n".join([*names[50:], "00009999_000.png"]))
    manifest = prepare(tmp_path, split="official", lists=tmp_path, boxes="")
    found = label_sets.records(tmp_path / "out")
    assert {f"{name}.png" for name in found["test"]} == set(names[50:])
    assert len(found["validate"]) > 0 and len(found["train"]) > len(found["validate"])
    assert manifest.rejected == {"listed_without_row": 1}
    assert any("no sizes are published" in note for note in manifest.notes)
    label_sets.assert_sound(tmp_path / "out")


def test_a_leak_of_a_published_split_is_reported_and_not_repaired(tmp_path):
    names = [f"{patient:08d}_{number:03d}.png" for patient in range(4) for number in range(2)]
    write(tmp_path, [row(name) for name in names])
    for split, part in (("train", names[:5]), ("val", names[5:6]), ("test", names[6:])):
        (tmp_path / f"{split}.txt").write_text("\n".join(part))
    manifest = prepare(tmp_path, split="benchx", lists=tmp_path, boxes="")
    (note,) = (note for note in manifest.notes if "stand in two splits" in note)
    assert "1 patients" in note and "00000002" in note
    assert set(label_sets.records(tmp_path / "out")["train"]) == {n[:-4] for n in names[:5]}
    assert {split: counts.images for split, counts in manifest.splits.items()} == {
        "train": 5,
        "validate": 1,
        "test": 2,
    }
    label_sets.assert_sound(tmp_path / "out", leaks=True)


def test_images_without_a_box_are_left_out_on_demand(tmp_path):
    rows = [row("00000001_000.png", "Mass"), row("00000002_000.png", "Mass")]
    write(tmp_path, rows, boxes=["00000001_000.png,Mass,10,20,30,40"])
    manifest = prepare(tmp_path, boxed_only=True, **TRAIN)
    assert list(label_sets.every(tmp_path / "out")) == ["00000001_000"]
    assert manifest.rejected == {"image_without_box": 1}
    with pytest.raises(ConfigError, match="--boxed_only"):
        prepare(tmp_path, boxed_only=True, boxes="")


def test_a_table_without_its_columns_is_refused_by_name(tmp_path):
    write(tmp_path, [row("00000001_000.png")])
    (tmp_path / "boxes.csv").write_text("Image Index,Finding Label,x,y,w,h\n")
    with pytest.raises(DataError, match="--boxes"):
        prepare(tmp_path, **TRAIN)
    assert schema.SPLITS == ("train", "validate", "test")


@pytest.mark.parametrize(("side", "warned"), [(1024, True), (0, False)])
def test_boxes_in_pixels_of_files_that_are_no_shrunk_copies_are_told(tmp_path, side, warned):
    rows = [row("00000001_000.png", "Mass"), row("00000002_000.png")]
    write(tmp_path, rows, boxes=["00000001_000.png,Mass,10,20,30,15"])
    oblong = Image.fromarray(label_sets.pixels(3, height=40, width=60))
    oblong.save(tmp_path / "images/images_001/images/00000001_000.png")
    manifest = prepare(tmp_path, boxes_drawn_on=side, **TRAIN)
    assert manifest.rejected == ({"image_of_another_size": 1} if warned else {})
    text = finish.summary(manifest, out="out")
    assert ("Warning: 1 images with boxes are no shrunk copies" in text) is warned


@pytest.mark.parametrize(
    "text", ["pleural_thickening", "Pleural thickening", "PLEURAL THICKENING "]
)
def test_findings_are_known_in_any_case(text):
    assert nih.finding(text) == "Pleural Thickening"
    assert nih.labels_of(f"mass|{text}") == nih.labels_of("Mass|Pleural_Thickening")
    assert nih.labels_of("No finding") == nih.labels_of("No Finding")
