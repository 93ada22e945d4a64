"""Masks in a manifest: a column of files for each label, and rows that say nothing of regions."""

import numpy as np
import pytest
from PIL import Image

from data_prep import manifest, manifest_masks
from prior_jax.data import regions
from prior_jax.data.decode import ImageProblem
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets
from tests.data_prep.test_manifest import prepare, records_of

# The images of these tests have 80x64 pixels and are kept so.
SHAPE = (64, 80)
BOX = ["Mass", 10, 20, 30, 50]


def masked(x1, y1, x2, y2, shape=SHAPE):
    found = np.zeros(shape, bool)
    found[y1:y2, x1:x2] = True
    return found


LUNG, HEART = masked(4, 8, 40, 60), masked(30, 30, 60, 50)


def write(folder, name, mask, **options):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(options.pop("level", 255))).save(
        path, **options
    )
    return name


def masks_of(record):
    return {
        (label, image): regions.decoded_mask(content)
        for label, image, content in zip(
            record.region_labels, record.region_images, record.region_masks, strict=True
        )
        if content
    }


def test_masks_of_several_labels_and_formats_reach_the_records(tmp_path):
    rows = [
        {"image": "a.jpg", "lung": write(tmp_path, "m/a.png", LUNG), "heart": ""},
        {"image": "b.jpg", "lung": write(tmp_path, "m/b.tif", LUNG, level=1),
         "heart": write(tmp_path, "m/b.gif", HEART)},
        {"image": "c.jpg", "lung": write(tmp_path, "m/c.png", LUNG & False)},
        {"image": "d.jpg", "lung": None},
        {"image": "e.jpg", "lung": write(tmp_path, "m/e.bmp", LUNG), "boxes": [BOX]},
    ]  # fmt: skip
    summary = prepare(tmp_path, rows, mask_columns=("lung=Lung", "heart=Heart"))
    found = records_of(tmp_path, summary)
    assert sorted(found) == ["a.jpg", "b.jpg", "c.jpg", "e.jpg"]
    np.testing.assert_array_equal(masks_of(found["a.jpg"])["Lung", 0], LUNG)
    both = masks_of(found["b.jpg"])
    assert list(both) == [("Lung", 0), ("Heart", 0)]
    np.testing.assert_array_equal(both["Lung", 0], LUNG)
    np.testing.assert_array_equal(both["Heart", 0], HEART)
    assert found["c.jpg"].region_labels == ()  # a mask without a pixel says: there is none
    assert found["e.jpg"].region_labels == ("Mass", "Lung")
    assert summary.rejected == {"neither_text_nor_labels": 1}
    assert summary.regions["Lung"].masks == 3 and summary.regions["Heart"].masks == 1
    assert any("masks of 'Lung' from 'lung'" in note for note in summary.notes)
    label_sets.assert_sound(tmp_path / "out")


def test_two_columns_of_one_label_are_two_regions(tmp_path):
    left, right = masked(4, 8, 30, 60), masked(44, 8, 70, 60)
    names = write(tmp_path, "l.png", left), write(tmp_path, "r.png", right)
    rows = [
        {"image": "both.jpg", "left": names[0], "right": names[1]},
        {"image": "left.jpg", "left": names[0], "right": ""},
        {"image": "right.jpg", "left": None, "right": names[1]},
        {"image": "same.jpg", "left": names[0], "right": names[0]},
    ]
    summary = prepare(tmp_path, rows, mask_columns=("left=Lung", "right=Lung"))
    found = records_of(tmp_path, summary)
    for name, expected in (("both", [left, right]), ("left", [left]), ("right", [right])):
        record = found[f"{name}.jpg"]
        assert record.region_labels == ("Lung",) * len(expected)
        masks = [regions.decoded_mask(content) for content in record.region_masks]
        np.testing.assert_array_equal(masks, expected)
    assert summary.rejected == {"malformed_masks": 1}
    assert summary.regions["Lung"].masks == 4


def test_masks_shrink_with_their_image(tmp_path):
    rows = [{"image": "a.jpg", "lung": write(tmp_path, "a.png", LUNG)}]
    summary = prepare(tmp_path, rows, mask_columns=("lung=Lung",), short_side=32)
    (record,) = records_of(tmp_path, summary).values()
    np.testing.assert_array_equal(masks_of(record)["Lung", 0], LUNG[1::2, 1::2])


def test_masks_follow_their_own_image_of_a_study(tmp_path):
    names = [write(tmp_path, f"m/{n}.png", mask) for n, mask in enumerate((LUNG, HEART))]
    rows = [
        {"image": f"{n}.jpg", "study_id": "s", "text": "Clear.", "m": name}
        for n, name in enumerate(names)
    ]
    summary = prepare(tmp_path, rows, mask_columns=("m=Organ",))
    (record,) = records_of(tmp_path, summary).values()
    found = masks_of(record)
    for name, mask in (("0.jpg", LUNG), ("1.jpg", HEART)):
        np.testing.assert_array_equal(found["Organ", record.image_ids.index(name)], mask)


def test_masks_that_cannot_be_used_reject_their_image_by_reason(tmp_path):
    (tmp_path / "cut.png").write_bytes(
        (tmp_path / write(tmp_path, "w.png", LUNG)).read_bytes()[:60]
    )
    rows = [
        {"image": "a.jpg", "m": "absent.png"},
        {"image": "b.jpg", "m": "cut.png"},
        {"image": "c.jpg", "m": write(tmp_path, "small.png", LUNG[:9])},
        {"image": "d.jpg", "m": write(tmp_path, "lossy.jpg", LUNG)},
        {"image": "e.jpg", "m": 7},
        {"image": "f.jpg", "m": "w.png"},
        {"image": "g.jpg", "m": write(tmp_path, "blank.png", LUNG[:9] & False)},
        {"image": "h.jpg", "m": "./m/../h.jpg"},
    ]
    (tmp_path / "m").mkdir()
    summary = prepare(tmp_path, rows, mask_columns=("m=Lung",))
    assert sorted(records_of(tmp_path, summary)) == ["f.jpg"]
    assert summary.rejected == {
        "malformed_row": 1,
        "mask_of_another_size": 2,
        "missing_mask": 1,
        "undecodable_mask": 3,
    }


def test_an_image_is_no_mask_of_itself_under_any_path(tmp_path):
    write(tmp_path, "a.png", LUNG)
    (tmp_path / "link.png").symlink_to("a.png")
    for name in ("a.png", "./a.png", "link.png", str(tmp_path / "a.png")):
        (region,) = manifest_masks.regions_of([("Lung", name)], folder=tmp_path, image="a.png")
        with pytest.raises(ImageProblem, match="the file of the image itself"):
            region.mask(*SHAPE)
    write(tmp_path, "b.png", LUNG)  # the same content in another file is a mask
    (region,) = manifest_masks.regions_of([("Lung", "b.png")], folder=tmp_path, image="a.png")
    np.testing.assert_array_equal(region.mask(*SHAPE), LUNG)


def test_rows_that_say_nothing_of_regions_are_left_out_on_demand(tmp_path):
    rows = [
        {"image": "a.jpg", "labels": ["Mass"], "m": write(tmp_path, "a.png", LUNG), "boxes": ""},
        {"image": "b.jpg", "labels": ["Mass"], "boxes": [BOX]},
        {"image": "c.jpg", "labels": ["Mass"], "boxes": []},
        {"image": "d.jpg", "labels": ["Mass"]},
        {"image": "e.jpg", "labels": ["Mass"], "text": "A mass.", "boxes": None},
    ]
    kept = prepare(tmp_path, rows, mask_columns=("m=Lung",))
    assert len(records_of(tmp_path, kept)) == 5 and not kept.rejected
    summary = prepare(tmp_path, rows, out="some", mask_columns=("m=Lung",), regions_only=True)
    assert sorted(records_of(tmp_path, summary, out="some")) == ["a.jpg", "b.jpg", "c.jpg"]
    assert summary.rejected == {"row_without_regions": 2}
    # Which columns are read decides what a row says.
    fewer = prepare(
        tmp_path, rows, out="fewer", boxes_columns=(), mask_columns=("m=Lung",), regions_only=True
    )
    assert sorted(records_of(tmp_path, fewer, out="fewer")) == ["a.jpg"]
    assert list(fewer.regions) == ["Lung"]


def test_of_several_columns_of_boxes_the_named_ones_are_read(tmp_path):
    organ = [{"label": "Left Lung", "bbox": [4, 8, 36, 52]}]
    rows = [{"image": "a.jpg", "boxes": [BOX], "organs": organ}, {"image": "b.jpg", "boxes": [BOX]}]
    summary = prepare(tmp_path, rows, boxes_columns=("organs",), regions_only=True)
    (record,) = records_of(tmp_path, summary).values()
    assert record.region_labels == ("Left Lung",)
    np.testing.assert_allclose(record.region_boxes, [[4, 8, 40, 60]])
    assert any("not read: 'boxes'" in note for note in summary.notes)


def test_a_column_that_is_not_there_is_refused_by_name(tmp_path):
    rows = [{"image": "a.jpg", "labels": ["Mass"]}]
    with pytest.raises(DataError, match=r"--mask_columns.*'lung'"):
        prepare(tmp_path, rows, mask_columns=("lung=Lung",))


@pytest.mark.parametrize(
    "entries", [("lung",), ("lung=",), ("=Lung",), ("lung=Lung", "lung=Heart"), ("",)]
)
def test_an_entry_without_a_column_and_a_label_is_refused(entries):
    with pytest.raises(ConfigError, match="--mask_columns"):
        manifest.Settings(mask_columns=entries)
    assert manifest_masks.label_by_column(("a = Left Lung", "b=x=y")) == {
        "a": "Left Lung",
        "b": "x=y",
    }


def test_a_column_of_masks_cannot_be_ignored():
    with pytest.raises(ConfigError, match="--ignore_columns"):
        manifest.Settings(mask_columns=("lung=Lung",), ignore_columns=("lung",))
