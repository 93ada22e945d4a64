"""Object-CXR's preparer on files in its own layout, whole, odd and damaged."""

import json
import zlib

import numpy as np
import pytest

from data_prep import object_cxr
from data_prep.kit import cli, shapes
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import regions, schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

HEADER = "image_name,annotation"
TRAIN = {"split_fractions": ("1", "0", "0")}


def row(name, annotation=""):
    return f"{name},{annotation}"


def write(folder, rows, *, dev=(), test=(), absent=()):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "train.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    if dev:
        (folder / "dev.csv").write_text("\n".join([HEADER, *dev]) + "\n")
    if test:
        (folder / "test.csv").write_text("\n".join(["image_path,annotation", *test]) + "\n")
    for part, found in (("train", rows), ("dev", dev), ("test", test)):
        (folder / part).mkdir(exist_ok=True)
        for line in found:
            name = line.split(",")[0].rpartition("/")[2]
            if name and name not in absent:
                label_sets.write_png(folder / part / name, zlib.crc32(name.encode()))
    return folder


def prepare(folder, *, lists="", **settings):
    return object_cxr.prepare(
        object_cxr.Paths(tables=str(folder), images_dir=str(folder), split_lists=str(lists)),
        object_cxr.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def test_boxes_and_masks_are_kept_at_the_size_of_the_stored_image(tmp_path):
    polygon = "2 20 60 60 60 60 90 20 90"
    write(tmp_path, [row("00001.jpg", f"0 10 20 30 60;1 40 10 80 50;{polygon}"), row("00002.jpg")])
    manifest = prepare(tmp_path, **TRAIN)
    found = label_sets.every(tmp_path / "out")
    one, two = found["00001"], found["00002"]
    assert (one.labels, two.labels) == ((1,), (0,))
    np.testing.assert_allclose(
        one.region_boxes, [[5, 10, 15, 30], [20, 5, 40, 25], [10, 30, 30, 45]]
    )
    assert one.region_masks[0] == b""
    ellipse, outline = (regions.decoded_mask(content) for content in one.region_masks[1:])
    whole = shapes.ellipse_mask((40, 10, 80, 50), label_sets.SIZE, label_sets.SIZE)
    np.testing.assert_array_equal(ellipse, whole[1::2, 1::2])
    assert outline[30:45, 10:30].all() and outline.sum() == 15 * 20
    assert manifest.regions == {
        "Foreign Object": manifest_lib.RegionCounts(regions=3, boxes=3, masks=2, phrases=0)
    }
    assert manifest.tables["rows of the tables"].kept == 2
    label_sets.assert_sound(tmp_path / "out")


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    rows = [
        row("good.jpg", "0 10 20 30 60;"),
        row("turned.jpg", "0 30 60 10 20"),
        row("clip.jpg", "1 80 80 120 110"),
        row("thin.jpg", "2 10 10 10 40 11 40"),
        row("kind.jpg", "3 10 20 30 60"),
        row("short.jpg", "0 10 20 30"),
        row("two.jpg", "2 10 20 30 60"),
        row("odd.jpg", "2 10 20 30 60 70"),
        row("words.jpg", "box"),
        row("gap.jpg", "0 10 20 30 60;;1 1 2 3 4"),
        row("nan.jpg", "0 10 nan 30 60"),
        row("half.jpg", "0.5 10 20 30 60"),
        row("flat.jpg", "1 10 20 30 20"),
        row("outside.jpg", "2 200 200 220 200 220 240"),
        row("again.jpg", "0 10 20 30 60"),
        row("again.jpg", "0 10 20 30 60"),
        row("both.jpg", "0 10 20 30 60"),
        row("both.jpg"),
        row("", "0 10 20 30 60"),
        row("missing.jpg"),
        row("cut.jpg"),
        "cells.jpg,a,b",
    ]
    write(tmp_path, rows, dev=[row("good.jpg")], absent=("missing.jpg",))
    label_sets.truncate(tmp_path / "train" / "cut.jpg")
    manifest = prepare(tmp_path, **TRAIN)
    counted = manifest.tables["rows of the tables"]
    assert counted.read == 23 and counted.kept == 5
    assert counted.rejected == {
        "box_outside_image": 1,
        "box_without_area": 1,
        "conflicting_rows": 2,
        "duplicate_row": 2,
        "incomplete_row": 1,
        "malformed_annotation": 8,
        "malformed_row": 1,
        "missing_image": 1,
        "truncated_image": 1,
    }
    found = label_sets.every(tmp_path / "out")
    assert sorted(found) == ["again", "clip", "good", "thin", "turned"]
    assert found["turned"].region_boxes == found["good"].region_boxes
    assert manifest.regions["Foreign Object"].clipped == 1
    assert regions.decoded_mask(found["thin"].region_masks[0]).any()
    lines = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    listed = {entry["id"]: entry["detail"] for entry in map(json.loads, lines)}
    assert "'0 10 20 30'" in listed["short"]
    label_sets.assert_sound(tmp_path / "out")


def three_tables(tmp_path):
    rows = [row(f"{place:05d}.jpg") for place in range(1, 21)]
    dev = [row(f"{place:05d}.jpg") for place in range(21, 24)]
    test = [row(f"test/{place:05d}.jpg") for place in range(24, 26)]
    return write(tmp_path, rows, dev=dev, test=test)


def test_the_tables_are_the_official_split(tmp_path):
    manifest = prepare(three_tables(tmp_path), split="official")
    found = label_sets.records(tmp_path / "out")
    assert {split: len(records) for split, records in found.items()} == {
        "train": 20,
        "validate": 3,
        "test": 2,
    }
    assert "00024" in found["test"]
    (note,) = (note for note in manifest.notes if "official" in note)
    assert "8,000 / 1,000 / 1,000" in note


def test_mgca_divides_the_training_table_and_tests_on_the_other(tmp_path):
    prepare(three_tables(tmp_path), split="mgca")
    found = label_sets.records(tmp_path / "out")
    order = np.random.RandomState(0).permutation(20)
    assert set(found["validate"]) == {f"{place + 1:05d}" for place in order[:2]}
    assert set(found["train"]) == {f"{place + 1:05d}" for place in order[2:]}
    assert sorted(found["test"]) == ["00021", "00022", "00023"]


def test_lovt_s_lists_and_geometry(tmp_path):
    folder = write(
        tmp_path,
        [row("00001.jpg", "0 10 20 30 80;2 20 60 60 60 60 90 20 90"), row("00002.jpg")],
        dev=[row("00003.jpg", "1 10 20 30 80")],
    )
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.csv").write_text("ID,boxes,classes\n00001,10;20;60;20,1\n")
    (lists / "validation.csv").write_text("ID,boxes,classes\n00002,,\n")
    (lists / "test.csv").write_text("ID,boxes,classes\n00003,10;20;60;20,1\n")
    prepare(folder, split="lovt", lists=lists, geometry="lovt")
    found = label_sets.records(tmp_path / "out")
    boxes = found["train"]["00001"].region_boxes
    np.testing.assert_allclose(boxes, [[5, 10, 35, 20], [10, 30, 25, 48]])
    plain, transposed = map(regions.decoded_mask, found["train"]["00001"].region_masks)
    assert plain[10:40, 5:15].all() and plain.sum() == 300
    assert transposed[10:30, 30:45].all() and transposed.sum() == 300
    (filled,) = map(regions.decoded_mask, found["test"]["00003"].region_masks)
    assert filled[10:40, 5:15].all() and filled.sum() == 300
    label_sets.assert_sound(tmp_path / "out")


def test_benchx_fills_ellipses():
    (region,) = object_cxr.regions_of([[1, 10, 20, 30, 80]], geometry="benchx")
    assert region.mask is not None and region.mask(96, 96)[20:80, 10:30].all()
    (box,) = object_cxr.regions_of([[0, 10, 20, 30, 80]], geometry="benchx")
    assert box.mask is None


def test_wrong_settings_and_tables_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="--geometry"):
        object_cxr.Settings(geometry="mine")
    with pytest.raises(DataError, match=r"--tables.*train\.csv"):
        prepare(tmp_path)
    (tmp_path / "train.csv").write_text("image,annotation\n")
    with pytest.raises(DataError, match=r"--tables.*image_name"):
        prepare(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "0 10 20 30 40;0 30 40 10 20",  # the corners exchanged
        "1 10 20 30 40;1 10 40 30 20",
        "2 1 1 5 5 9 1;2 5 5 9 1 1 1",  # begun at another corner
        "2 1 1 5 5 9 1;2 9 1 5 5 1 1",  # and the other way round
        "2 1 1 5 5 9 1;2 1 1 5 5 9 1 1 1",  # closed
    ],
)
def test_a_shape_that_stands_twice_in_other_words_is_refused(text):
    with pytest.raises(DataError, match="stands twice"):
        object_cxr.shapes_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "0 10 20 30 40;1 10 20 30 40",
        "0 10 20 30 40;0 10 20 30 41",
        "2 20 20 60 60 60 20 20 60;2 20 20 60 20 60 60 20 60",  # other lines between the corners
    ],
)
def test_different_shapes_of_one_box_stay_two(text):
    assert len(object_cxr.shapes_of(text)) == 2
