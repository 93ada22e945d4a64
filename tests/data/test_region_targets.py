"""Boxes and masks as targets: classes, conversions, the choice of images, and what is refused."""

import dataclasses
import itertools
import multiprocessing

import numpy as np
import pytest

from prior_jax.data import (
    fractions,
    image,
    pipeline,
    reader,
    region_counts,
    region_targets,
    regions,
)
from prior_jax.data import plan as plan_lib
from prior_jax.errors import ConfigError, DataError
from tests.data import region_sets
from tests.data.region_sets import config_of, record, targets, write

BLACK = np.zeros((40, 60), np.uint8)
LEFT, RIGHT = (4.0, 8.0, 20.0, 32.0), (40.0, 8.0, 56.0, 32.0)
TURNED = image.AugmentConfig(rotation_degrees=20.0, flip_probability=0.5)


def mask_of(box):
    return regions.mask_of_box(np.asarray(box), height=40, width=60)


def studies():
    """Twelve studies: 0 to 2 with boxes, 3 to 4 with masks, 5 with both kinds on two images."""
    found = [record(n, images=[BLACK], found=[(0, "A", LEFT, None)]) for n in range(2)]
    found.append(record(2, images=[BLACK], found=[(0, "A", LEFT, None), (0, "B", RIGHT, None)]))
    found += [record(n, images=[BLACK], found=[(0, "B", None, mask_of(RIGHT))]) for n in (3, 4)]
    several = [(1, "A", LEFT, None), (1, "A", RIGHT, None), (1, "C", LEFT, None)]
    found.append(record(5, images=[BLACK, BLACK + 50, BLACK + 99], found=several))
    return found + [record(n, images=[BLACK, BLACK], found=[]) for n in range(6, 12)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write(tmp_path_factory.mktemp("regions"), studies(), validate=studies()[:7])


@pytest.fixture
def open_split(prepared, tmp_path):
    def opened(split="train", path=prepared, **changes):
        return pipeline.open_split(config_of(path, **changes), split, cache_dir=tmp_path)

    return opened


def evaluated(split, batch_size=4):
    """The rows of one pass, by record; filling rows are under -1."""
    found = {}
    with split.eval_batches(batch_size=batch_size, require_text=False) as batches:
        for _, batch in batches:
            for row, number in enumerate(batch.record.tolist()):
                boxes = batch.boxes and {
                    name: getattr(batch.boxes, name)[row] for name in ("corners", "classes", "real")
                }
                found[number] = (batch.masks[row] if batch.masks is not None else None, boxes)
    return found


def boxes_of(row):
    """Class and corners of the real boxes, in pixels of the stored images of 60 x 40."""
    scale = np.array([60, 40, 60, 40]) / 48
    real = row[1]["real"]
    corners = (row[1]["corners"] * scale)[real]
    return sorted(
        (int(c), tuple(np.round(box, 3).tolist()))
        for c, box in zip(row[1]["classes"][real], corners, strict=True)
    )


def test_boxes_have_the_class_of_their_label_and_lie_on_the_image_that_is_shown(open_split):
    rows = evaluated(open_split(regions=targets("boxes", ("A", "B"))))
    assert boxes_of(rows[0]) == [(0, LEFT)]
    assert boxes_of(rows[2]) == [(0, LEFT), (1, RIGHT)]
    assert boxes_of(rows[3]) == [(1, RIGHT)]  # the box of a mask
    assert boxes_of(rows[5]) == [(0, LEFT), (0, RIGHT)]  # C is no class
    assert boxes_of(rows[7]) == []
    other = evaluated(open_split(regions=targets("boxes", ("B", "A"))))
    assert boxes_of(other[2]) == [(0, RIGHT), (1, LEFT)]


def test_any_of_makes_several_labels_one_class(open_split):
    chosen = targets("boxes", ("Finding",), any_of=("A", "C"))
    rows = evaluated(open_split(regions=chosen))
    assert boxes_of(rows[5]) == [(0, LEFT), (0, LEFT), (0, RIGHT)]
    assert boxes_of(rows[2]) == [(0, LEFT)] and boxes_of(rows[3]) == []
    masks = evaluated(open_split(regions=dataclasses.replace(chosen, kind="masks")))
    assert masks[5][0].shape == (48, 48, 1)
    whole = regions.resized(before=(40, 60), after=(48, 48))
    wanted = regions.moved_mask(mask_of(LEFT) | mask_of(RIGHT), whole)
    np.testing.assert_array_equal(masks[5][0][..., 0], wanted)


def test_masks_have_an_axis_of_classes_and_boxes_fill_theirs(open_split):
    rows = evaluated(open_split(regions=targets("masks", ("A", "B"))))
    whole = regions.resized(before=(40, 60), after=(48, 48))
    left, right = (regions.moved_mask(mask_of(box), whole) for box in (LEFT, RIGHT))
    np.testing.assert_array_equal(rows[2][0], np.stack([left, right], axis=-1))
    np.testing.assert_array_equal(rows[3][0], np.stack([left & False, right], axis=-1))
    np.testing.assert_array_equal(rows[5][0], np.stack([left | right, left & False], axis=-1))
    assert not rows[6][0].any() and rows[6][0].dtype == bool


@pytest.mark.parametrize(
    ("kind", "number", "label", "has"), [("boxes", 3, "'B'", "mask"), ("masks", 0, "'A'", "box")]
)
def test_what_is_not_to_be_converted_is_refused_by_name(open_split, kind, number, label, has):
    split = open_split(regions=targets(kind, ("A", "B"), convert=False))
    with pytest.raises(ConfigError) as error:
        evaluated(split)
    assert error.value.where == "config.data.regions.convert"
    assert f"s0000{number}" in str(error.value) and label in str(error.value)
    assert f"only a {has}" in str(error.value)


def test_a_region_that_has_both_is_converted_by_nobody(prepared, tmp_path):
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


def test_the_room_for_boxes_is_the_most_that_an_image_of_the_split_has(open_split):
    for classes, slots in ((("A", "B"), 2), (("A", "B", "C"), 3), (("C",), 1)):
        rows = evaluated(open_split(regions=targets("boxes", classes)))
        assert {len(row[1]["real"]) for row in rows.values()} == {slots}
        assert max(row[1]["real"].sum() for row in rows.values()) == slots


def test_filling_rows_have_no_targets(open_split):
    for kind in ("boxes", "masks"):
        rows = evaluated(open_split("validate", regions=targets(kind, ("A", "B"))))
        masks, boxes = rows[plan_lib.FILLER]
        if kind == "boxes":
            assert not boxes["real"].any() and not boxes["corners"].any()
            assert not boxes["classes"].any()
        else:
            assert masks.shape == (48, 48, 2) and not masks.any()


def test_training_images_are_chosen_by_their_findings(open_split):
    def trained(train_images, classes=("A", "B"), **changes):
        chosen = targets("boxes", classes, train_images=train_images)
        return open_split(regions=chosen, **changes).trained.tolist()

    assert trained("all") == list(range(12))
    assert trained("with_regions") == [0, 1, 2, 3, 4, 5]
    assert trained("with_regions", ("B",)) == [2, 3, 4]
    balanced = trained("balanced", ("B",))
    assert len(balanced) == 6 and {2, 3, 4} < set(balanced) and balanced == sorted(balanced)
    assert balanced == trained("balanced", ("B",))
    draws = {tuple(trained("balanced", ("B",), seed=seed)) for seed in range(8)}
    assert len(draws) > 4
    # There are no more than six without a finding.
    assert trained("balanced") == list(range(12))
    halved = trained("all", fraction=fraction(0.5))
    assert len(halved) == 6
    both = trained("balanced", ("B",), fraction=fraction(0.5))
    positive = [number for number in halved if number in (2, 3, 4)]
    assert set(both) <= set(halved) and len(both) == 2 * len(positive)


def fraction(share):
    return fractions.FractionConfig(
        share=share, rule="patients", seed=1, draws=1, ids=None, absent="refuse"
    )


def test_no_training_image_with_a_finding_is_an_error_by_name(prepared, tmp_path):
    none, some = studies()[6:], studies()[:1]
    path = write(tmp_path / "none", none, validate=some, test=none)
    for train_images in ("with_regions", "all", "balanced"):
        for kind, what in (("boxes", "box"), ("masks", "mask")):
            chosen = targets(kind, ("A",), train_images=train_images)
            config = config_of(path, regions=chosen)
            with pytest.raises(ConfigError, match=f"None of the 6 .* has a {what}") as error:
                pipeline.open_split(config, "train", cache_dir=tmp_path)
            assert error.value.where == "config.data.regions"
            # Only what is trained on has to have findings.
            for split in ("validate", "test"):
                pipeline.open_split(config, split, cache_dir=tmp_path)


def test_tested_images_are_all_or_those_with_findings(open_split):
    every = evaluated(open_split("validate", regions=targets("boxes", ("A", "B"))))
    assert sorted(every) == [-1, 0, 1, 2, 3, 4, 5, 6]
    chosen = targets("boxes", ("B",), test_images="with_regions")
    assert sorted(evaluated(open_split("validate", regions=chosen), batch_size=3)) == [2, 3, 4]
    with open_split("validate", regions=chosen).eval_batches(
        batch_size=2, require_text=False, records=np.array([0, 3, 6])
    ) as batches:
        assert [batch.record.tolist() for _, batch in batches] == [[3, -1]]


def test_of_several_images_one_with_findings_is_shown(open_split, prepared):
    """The pixels tell which of the three images of study 5 a row shows."""
    for chosen, levels in ((targets("boxes", ("A",)), {50}), (targets("boxes", ("B",)), None)):
        split = open_split(regions=chosen, augment=TURNED, batch_size=2)
        seen = set()
        with split.train_batches() as batches:
            for _, batch in itertools.islice(batches, 60):
                for row, number in enumerate(batch.record.tolist()):
                    if number == 5:
                        seen.add(int(np.rint(batch.image[row].max() * 255)))
        # Study 5 has nothing of B: then all of its images are drawn.
        assert seen == (levels or {0, 50, 99})


def flat(batch):
    arrays = {"image": batch.image, "record": batch.record}
    if batch.masks is not None:
        arrays["masks"] = batch.masks
    if batch.boxes is not None:
        arrays |= {name: getattr(batch.boxes, name) for name in ("corners", "classes", "real")}
    return arrays


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for (step, one), (other_step, other) in zip(found, wanted, strict=True):
        assert step == other_step
        one, other = flat(one), flat(other)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], f"step {step}, {name}")


def take(split, steps, **options):
    with split.train_batches(**options) as batches:
        return list(itertools.islice(batches, steps))


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_a_resumed_iterator_goes_on_with_the_same_boxes_and_masks(open_split, kind):
    split = open_split(regions=targets(kind, ("A", "B")), augment=TURNED)
    whole = take(split, 9)
    assert_same(take(split, 4, start_step=5), whole[5:])
    again = open_split(regions=targets(kind, ("A", "B")), augment=TURNED, threads=1)
    assert_same(take(again, 9), whole)
    drawn = [batch.masks if kind == "masks" else batch.boxes.real for _, batch in whole]
    assert sum(int(one.any()) for one in drawn) > 4
    halves = [take(split, 3, process_index=n, process_count=2) for n in range(2)]
    for step in range(3):
        joined = {
            name: np.concatenate([flat(half[step][1])[name] for half in halves])
            for name in flat(whole[step][1])
        }
        for name, value in flat(whole[step][1]).items():
            np.testing.assert_array_equal(joined[name], value, name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_workers_give_the_same_boxes_and_masks(open_split, kind):
    chosen = dict(regions=targets(kind, ("A", "B")), augment=TURNED)
    assert_same(take(open_split(workers=2, **chosen), 5), take(open_split(**chosen), 5))
    assert not multiprocessing.active_children()


def test_a_damaged_mask_is_named_with_its_study(prepared, tmp_path):
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


def test_findings_are_counted_once_and_kept(prepared, tmp_path, monkeypatch):
    opened = reader.RecordReader(prepared, "train")
    chosen = targets("boxes", ("A", "B"))
    counts = region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=2)
    assert counts.tolist() == [1, 1, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0] and counts.dtype == np.int32
    (kept,) = tmp_path.glob("findings-*.npy")
    monkeypatch.setattr(reader.RecordReader, "read", None)  # nothing is read a second time
    again = region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=2)
    np.testing.assert_array_equal(again, counts)
    # Masks, and classes in another order, have the same findings; other labels have others.
    same = targets("masks", ("B", "A"))
    region_counts.measure(opened, same, cache_dir=tmp_path, threads=2)
    assert list(tmp_path.glob("findings-*.npy")) == [kept]
    monkeypatch.undo()
    other = region_counts.measure(opened, targets("boxes", ("C",)), cache_dir=tmp_path, threads=2)
    assert other.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert len(list(tmp_path.glob("findings-*.npy"))) == 2


@pytest.mark.parametrize("damage", ["cut off", "empty", "another length", "another type"])
def test_damaged_counts_are_refused_by_name(prepared, tmp_path, damage):
    opened, chosen = reader.RecordReader(prepared, "train"), targets("boxes", ("A", "B"))
    region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=1)
    (kept,) = tmp_path.glob("findings-*.npy")
    if damage == "cut off":
        kept.write_bytes(kept.read_bytes()[:-9])
    elif damage == "empty":
        kept.write_bytes(b"")
    else:
        wrong = np.zeros(5, np.int32) if damage == "another length" else np.zeros(12)
        np.save(kept, wrong)
    with pytest.raises(DataError) as error:
        region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=1)
    assert error.value.where == str(kept) and "Delete the file" in str(error.value)


def test_labels_that_no_region_has_are_refused_with_the_nearest(open_split, prepared, tmp_path):
    with pytest.raises(ConfigError) as error:
        open_split(regions=targets("boxes", ("A", "D")))
    assert error.value.where == "config.model.classes"
    assert "'D'" in str(error.value) and "A, B, C" in str(error.value)
    assert "any_of" not in str(error.value)  # several classes are not joined
    with pytest.raises(ConfigError, match=r"\"--task\.regions\.any_of=\('A',\)\""):
        open_split(regions=targets("boxes", ("D",)))
    with pytest.raises(ConfigError) as error:
        open_split(regions=targets("boxes", ("Finding",), any_of=("A", "X")))
    assert error.value.where == "config.data.regions.any_of" and "'X'" in str(error.value)
    path = write(tmp_path / "none", studies()[6:])
    with pytest.raises(ConfigError) as error:
        open_split(path=path, regions=targets("boxes", ("A",)))
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


def test_a_box_that_a_crop_leaves_out_is_no_box(prepared, tmp_path):
    """A crop of the right half leaves the box on the right alone, in its row."""
    found = region_sets.record(
        0, images=[BLACK], found=[(0, "A", LEFT, None), (0, "A", RIGHT, None)]
    )
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
    found = region_sets.record(0, images=[BLACK], found=[region])
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
        given = region_sets.record(0, images=[BLACK], found=found)
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
