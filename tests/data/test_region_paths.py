"""Whatever the loader does to an image, boxes and masks stay on what they are of."""

import itertools

import numpy as np
import pytest

from prior_jax.data import affine, colours, crops, image, pipeline, regions
from tests.data import region_sets
from tests.data.test_regions import thick, widened

STUDIES = 24
FITS = ("stretch", "pad", "pad_evenly")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return region_sets.write(tmp_path_factory.mktemp("shapes"), region_sets.shapes(STUDIES))


def drawn_augment(rng, size):
    """An augmentation with each of its parts on or off."""
    on = rng.random(7) < 0.6
    chosen = {}
    if on[0]:
        chosen["crop_from"] = size + int(rng.integers(0, size // 3))
    elif on[1]:
        low = rng.uniform(0.3, 0.9)
        chosen["resized_crop"] = crops.ResizedCropConfig(
            scale=(low, rng.uniform(low, 1.0)), ratio=(rng.uniform(0.6, 1.0), rng.uniform(1.0, 1.6))
        )
    if on[2]:
        chosen["shift_scale_rotate"] = affine.ShiftScaleRotateConfig(
            shift=rng.uniform(0, 0.2),
            scale=rng.uniform(0, 0.3),
            degrees=rng.uniform(0, 40),
            probability=0.8,
        )
    if on[3]:
        chosen["jitter"] = colours.JitterConfig(
            brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, probability=0.8
        )
    if on[4]:
        chosen["blur"] = colours.BlurConfig(sigma=(0.1, 0.8), kernel=None, probability=0.5)
    return image.AugmentConfig(
        rotation_degrees=rng.uniform(0, 30) if on[5] else 0.0,
        flip_probability=0.5 if on[6] else 0.0,
        **chosen,
    )


def bright(pixels):
    """The pixels of the shape: jitter changes its level, and what is black stays dark."""
    top = pixels.max()
    return pixels > top / 2 if top > 0.3 else np.zeros(pixels.shape, bool)


def rows_of(prepared, cache, kind, *, size, augment, fit, seed):
    """Every training row of one pass, by record."""
    config = region_sets.config_of(
        prepared,
        regions=region_sets.targets(kind),
        size=size,
        augment=augment,
        image_options={"fit": fit},
        seed=seed,
    )
    split = pipeline.open_split(config, "train", cache_dir=cache)
    with split.train_batches() as batches:
        for _, batch in itertools.islice(batches, split.steps_per_epoch()):
            for row, number in enumerate(batch.record.tolist()):
                if kind == "masks":
                    yield number, (batch.image[row, ..., 0], batch.masks[row])
                else:
                    parts = (batch.boxes.corners, batch.boxes.classes, batch.boxes.real)
                    yield number, (batch.image[row, ..., 0], *(part[row] for part in parts))


@pytest.mark.parametrize("seed", range(8))
def test_masks_and_boxes_lie_on_their_shapes_under_every_augmentation(prepared, tmp_path, seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(41, 80))
    how = dict(size=size, augment=drawn_augment(rng, size), fit=FITS[seed % 3], seed=seed)
    masks = dict(rows_of(prepared, tmp_path, "masks", **how))
    boxes = dict(rows_of(prepared, tmp_path, "boxes", **how))
    assert len(masks) == len(boxes) == STUDIES
    compared = 0
    for number, (shown, mask) in masks.items():
        np.testing.assert_array_equal(shown, boxes[number][0])  # both draw alike
        seen = bright(shown)
        mine = 0 if number % 2 else 1  # odd studies show a Ball, even ones a Brick
        own, other = mask[..., mine], mask[..., 1 - mine]
        assert not other.any()
        assert not (thick(seen, 1) & ~widened(own, 2)).any(), number
        assert not (thick(own, 2) & ~widened(seen, 1)).any(), number
        _, corners, classes, real = boxes[number]
        assert real.sum() <= 1 and not real[1:].any()
        if not real[0]:
            assert not thick(seen, 1).any(), number
            continue
        assert classes[0] == mine
        box = corners[0]
        assert (box >= 0).all() and (box <= size).all()
        inside = regions.mask_of_box(box, height=size, width=size)
        assert not (thick(seen, 1) & ~widened(inside, 1)).any(), number
        assert not (own & ~widened(inside, 1)).any(), number
        compared += int(thick(seen, 1).sum() > 20)
    assert compared > STUDIES // 2


@pytest.mark.parametrize("fit", FITS)
def test_without_augmentation_they_fit_to_the_pixel(prepared, tmp_path, fit):
    how = dict(size=61, augment=region_sets.PLAIN, fit=fit, seed=0)
    boxes = dict(rows_of(prepared, tmp_path, "boxes", **how))
    for number, (shown, mask) in rows_of(prepared, tmp_path, "masks", **how):
        seen, own = bright(shown), mask[..., 0 if number % 2 else 1]
        assert not (seen & ~widened(own)).any() and not (own & ~widened(seen)).any()
        assert (seen ^ own).sum() <= 0.5 * (own & ~thick(own, 1)).sum()
        box = np.array(regions.box_of_mask(seen))
        assert np.abs(box - boxes[number][1][0]).max() <= 1


def test_a_row_shows_the_image_that_has_the_finding(prepared, tmp_path):
    how = dict(size=48, augment=region_sets.PLAIN, fit="stretch", seed=0)
    for _, (shown, mask) in rows_of(prepared, tmp_path, "masks", **how):
        assert bright(shown).any() and mask.any()
