"""Boxes and masks as targets: classes, conversions, and what is refused."""

import dataclasses

import numpy as np
import pytest

from prior_jax.data import pipeline, region_targets, regions
from prior_jax.data import plan as plan_lib
from prior_jax.errors import ConfigError, DataError
from tests.data.batches import evaluated
from tests.data.region_sets import (
    BLACK,
    LEFT,
    RIGHT,
    config_of,
    mask_of,
    record,
    studies,
    targets,
    write,
)


def boxes_of(row):
    """Class and corners of the real boxes, in pixels of the stored images of 60 x 40."""
    scale = np.array([60, 40, 60, 40]) / 48
    real = row[1]["real"]
    corners = (row[1]["corners"] * scale)[real]
    return sorted(
        (int(c), tuple(np.round(box, 3).tolist()))
        for c, box in zip(row[1]["classes"][real], corners, strict=True)
    )


def test_boxes_have_the_class_of_their_label_and_lie_on_the_image_that_is_shown(open_regions):
    rows = evaluated(open_regions(regions=targets("boxes", ("A", "B"))))
    assert boxes_of(rows[0]) == [(0, LEFT)]
    assert boxes_of(rows[2]) == [(0, LEFT), (1, RIGHT)]
    assert boxes_of(rows[3]) == [(1, RIGHT)]  # the box of a mask
    assert boxes_of(rows[5]) == [(0, LEFT), (0, RIGHT)]  # C is no class
    assert boxes_of(rows[7]) == []
    other = evaluated(open_regions(regions=targets("boxes", ("B", "A"))))
    assert boxes_of(other[2]) == [(0, RIGHT), (1, LEFT)]


def test_any_of_makes_several_labels_one_class(open_regions):
    chosen = targets("boxes", ("Finding",), any_of=("A", "C"))
    rows = evaluated(open_regions(regions=chosen))
    assert boxes_of(rows[5]) == [(0, LEFT), (0, LEFT), (0, RIGHT)]
    assert boxes_of(rows[2]) == [(0, LEFT)] and boxes_of(rows[3]) == []
    masks = evaluated(open_regions(regions=dataclasses.replace(chosen, kind="masks")))
    assert masks[5][0].shape == (48, 48, 1)
    whole = regions.resized(before=(40, 60), after=(48, 48))
    wanted = regions.moved_mask(mask_of(LEFT) | mask_of(RIGHT), whole)
    np.testing.assert_array_equal(masks[5][0][..., 0], wanted)


def test_masks_have_an_axis_of_classes_and_boxes_fill_theirs(open_regions):
    rows = evaluated(open_regions(regions=targets("masks", ("A", "B"))))
    whole = regions.resized(before=(40, 60), after=(48, 48))
    left, right = (regions.moved_mask(mask_of(box), whole) for box in (LEFT, RIGHT))
    np.testing.assert_array_equal(rows[2][0], np.stack([left, right], axis=-1))
    np.testing.assert_array_equal(rows[3][0], np.stack([left & False, right], axis=-1))
    np.testing.assert_array_equal(rows[5][0], np.stack([left | right, left & False], axis=-1))
    assert not rows[6][0].any() and rows[6][0].dtype == bool


@pytest.mark.parametrize(
    ("kind", "number", "label", "has"), [("boxes", 3, "'B'", "mask"), ("masks", 0, "'A'", "box")]
)
def test_what_is_not_to_be_converted_is_refused_by_name(open_regions, kind, number, label, has):
    split = open_regions(regions=targets(kind, ("A", "B"), convert=False))
    with pytest.raises(ConfigError) as error:
        evaluated(split)
    assert error.value.where == "config.data.regions.convert"
    assert f"s0000{number}" in str(error.value) and label in str(error.value)
    assert f"only a {has}" in str(error.value)


def test_a_region_that_has_both_is_converted_by_nobody(tmp_path):
    both = record(0, images=[BLACK], found=[(0, "A", RIGHT, mask_of(LEFT))])
    path = write(tmp_path / "both", [both] * 1)
    for kind, box in (("boxes", RIGHT), ("masks", LEFT)):
        chosen = targets(kind, ("A",), convert=False)
        split = pipeline.open_split(config_of(path, regions=chosen), "train", cache_dir=tmp_path)
        row = evaluated(split)[0]
        if kind == "boxes":
            assert boxes_of(row) == [(0, box)]
        else:
            whole = regions.resized(before=(40, 60), after=(48, 48))
            np.testing.assert_array_equal(row[0][..., 0], regions.moved_mask(mask_of(box), whole))


def test_the_room_for_boxes_is_the_most_that_an_image_of_the_split_has(open_regions):
    for classes, slots in ((("A", "B"), 2), (("A", "B", "C"), 3), (("C",), 1)):
        rows = evaluated(open_regions(regions=targets("boxes", classes)))
        assert {len(row[1]["real"]) for row in rows.values()} == {slots}
        assert max(row[1]["real"].sum() for row in rows.values()) == slots


def test_filling_rows_have_no_targets(open_regions):
    for kind in ("boxes", "masks"):
        rows = evaluated(open_regions("validate", regions=targets(kind, ("A", "B"))))
        masks, boxes = rows[plan_lib.FILLER]
        if kind == "boxes":
            assert not boxes["real"].any() and not boxes["corners"].any()
            assert not boxes["classes"].any()
        else:
            assert masks.shape == (48, 48, 2) and not masks.any()


def test_a_damaged_mask_is_named_with_its_study(tmp_path):
    whole = studies()
    damaged = dataclasses.replace(whole[3], region_masks=(whole[3].region_masks[0][:40],))
    other = record(3, images=[BLACK], found=[(0, "B", None, np.ones((9, 9), bool))])
    for name, broken in (("damaged", damaged), ("size", other)):
        path = write(tmp_path / name, [*whole[:3], broken])
        for kind in ("masks", "boxes"):
            config = config_of(path, regions=targets(kind, ("A", "B")))
            split = pipeline.open_split(config, "train", cache_dir=tmp_path)
            with pytest.raises(DataError) as error:
                evaluated(split)
            assert "study 's00003'" in error.value.where and "mask 0" in error.value.where, name


def test_labels_that_no_region_has_are_refused_with_the_nearest(open_regions, tmp_path):
    with pytest.raises(ConfigError) as error:
        open_regions(regions=targets("boxes", ("A", "D")))
    assert error.value.where == "config.model.classes"
    assert "'D'" in str(error.value) and "A, B, C" in str(error.value)
    assert "any_of" not in str(error.value)  # several classes are not joined
    with pytest.raises(ConfigError, match=r"\"--task\.regions\.any_of=\('A',\)\""):
        open_regions(regions=targets("boxes", ("D",)))
    with pytest.raises(ConfigError) as error:
        open_regions(regions=targets("boxes", ("Finding",), any_of=("A", "X")))
    assert error.value.where == "config.data.regions.any_of" and "'X'" in str(error.value)
    path = write(tmp_path / "none", studies()[6:])
    with pytest.raises(ConfigError) as error:
        open_regions(path=path, regions=targets("boxes", ("A",)))
    assert error.value.where == "config.data.path"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("kind", {"kind": "points"}),
        ("train_images", {"train_images": "some"}),
        ("test_images", {"test_images": "balanced"}),
        ("classes", {"classes": ()}),
        ("classes", {"classes": ("A", "A")}),
        ("any_of", {"any_of": ("A", "B")}),
    ],
)
def test_values_that_define_no_targets_are_refused_by_name(field, changes):
    good = dict(
        kind="boxes", classes=("A", "B"), any_of=(), convert=True, train_images="all",
        test_images="all",
    )  # fmt: skip
    with pytest.raises(ConfigError) as error:
        region_targets.RegionConfig(**(good | changes))
    assert error.value.where == field


def test_a_box_that_a_crop_leaves_out_is_no_box():
    """A crop of the right half leaves the box on the right alone, in its row."""
    found = record(0, images=[BLACK], found=[(0, "A", LEFT, None), (0, "A", RIGHT, None)])
    place = regions.placed(top=0, left=-30, before=(40, 60), after=(40, 30))
    chosen = targets("boxes", ("A",))
    rows = region_targets.row_targets(found, 0, place, config=chosen, slots=3, name="x")
    assert rows["real"].tolist() == [False, True, False]
    np.testing.assert_array_equal(rows["corners"], [[0] * 4, [10, 8, 26, 32], [0] * 4])
    masks = region_targets.row_targets(
        found, 0, place, config=dataclasses.replace(chosen, kind="masks"), slots=0, name="x"
    )["masks"]
    assert masks.sum() == 16 * 24


@pytest.mark.parametrize("given", ["mask", "box"])
@pytest.mark.parametrize("column", range(0, 60, 7))
def test_a_finding_of_one_pixel_is_still_one_at_a_fifth_of_the_size(given, column):
    box = (float(column), 11.0, column + 1.0, 12.0)
    region = (0, "A", box, None) if given == "box" else (0, "A", None, mask_of(box))
    found = record(0, images=[BLACK], found=[region])
    smaller = regions.resized(before=(40, 60), after=(8, 12))
    masks = region_targets.row_targets(
        found, 0, smaller, config=targets("masks", ("A",)), slots=0, name="x"
    )["masks"]
    assert np.argwhere(masks[..., 0]).tolist() == [[2, column // 5]]
    # What a crop cuts off is gone, whatever its size.
    crop = regions.placed(top=-20, left=0, before=(40, 60), after=(20, 60))
    cut = region_targets.row_targets(
        found, 0, crop, config=targets("masks", ("A",)), slots=0, name="x"
    )["masks"]
    assert not cut.any()


def test_a_box_and_a_mask_of_one_finding_are_one_box():
    near = tuple(edge + 0.4 for edge in LEFT)

    def rows(*found, classes=("A", "B"), **changes):
        given = record(0, images=[BLACK], found=found)
        whole = regions.unchanged(height=40, width=60)
        chosen = targets("boxes", classes, **changes)
        row = region_targets.row_targets(given, 0, whole, config=chosen, slots=3, name="x")
        return row["corners"][row["real"]].tolist()

    mask = (0, "A", None, mask_of(LEFT))
    for box in (LEFT, near):
        kept = [pytest.approx(box)]
        assert rows((0, "A", box, None), mask) == rows(mask, (0, "A", box, None)) == kept
    # Another finding, another class and another place are boxes of their own, and so are two boxes.
    assert len(rows((0, "A", RIGHT, None), mask)) == 2
    assert len(rows((0, "B", LEFT, None), mask)) == 2
    assert len(rows((0, "A", tuple(edge + 0.6 for edge in LEFT), None), mask)) == 2
    assert len(rows((0, "A", LEFT, None), (0, "A", LEFT, None))) == 2
    joined = rows((0, "B", LEFT, None), mask, classes=("Finding",), any_of=("A", "B"))
    assert joined == [pytest.approx(LEFT)]
