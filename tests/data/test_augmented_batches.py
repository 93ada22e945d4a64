"""Augmentation: of training alone, and the same however the batches are computed."""

import dataclasses

import numpy as np
import pytest

from prior_jax.data import colours, crops, pipeline
from prior_jax.data import image as image_lib
from prior_jax.errors import ConfigError
from prior_jax.types import BatchPart
from tests.data.batches import arrays, assert_same, assert_shares, take

COLOURS = dict(
    jitter=colours.JitterConfig(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8
    ),
    grey_probability=0.2,
    blur=colours.BlurConfig(sigma=(0.1, 2.0), kernel=None, probability=0.5),
)


@pytest.fixture(scope="module", params=["resized_crop", "crop_from"])
def augmented(request, make_config, cache_dir):
    """A split with every augmentation and one of the two crops, and nine steps of it."""
    crop = crops.ResizedCropConfig(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    chosen = {"resized_crop": crop} if request.param == "resized_crop" else {"crop_from": 20}
    more = image_lib.AugmentConfig(rotation_degrees=5.0, flip_probability=0.5, **COLOURS, **chosen)
    config = make_config(augment=more)
    split = pipeline.open_split(config, "train", cache_dir=cache_dir)
    return config, split, take(split, 9)


def test_augmented_batches_are_the_same_on_resume_and_on_any_number_of_processes(augmented, run):
    _, split, wanted = augmented
    for start in (1, 6, 8):
        assert_same(take(split, 9 - start, start_step=start), wanted[start:])
    for count in (2, 4):
        parts = [take(split, 4, part=BatchPart(blocks=(i,), count=count)) for i in range(count)]
        assert_shares(parts, wanted[:4])
    # The images are others than without, and everything else is the same.
    for (_, batch), (_, plain) in zip(wanted, run, strict=False):
        assert (batch.image != plain.image).any(axis=(1, 2, 3)).all()
        without = arrays(plain)
        for name, value in arrays(batch).items():
            if name != "image":
                np.testing.assert_array_equal(value, without[name], name)


@pytest.mark.parametrize("augmented", ["resized_crop"], indirect=True)
def test_augmented_batches_are_the_same_in_workers_and_threads(augmented, cache_dir):
    config, _, wanted = augmented
    for changes in ({"workers": 1, "threads": 1, "prefetch": 1}, {"threads": 5}):
        other = dataclasses.replace(config, **changes)
        split = pipeline.open_split(other, "train", cache_dir=cache_dir)
        assert_same(take(split, 4, start_step=2), wanted[2:6])


def test_evaluation_does_not_augment(augmented, make_config, cache_dir):
    plain = make_config(augment=image_lib.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0))
    found = []
    for config in (augmented[0], plain):
        split = pipeline.open_split(config, "validate", cache_dir=cache_dir)
        with split.eval_batches(batch_size=5, require_text=False) as batches:
            found.append(list(batches))
    assert_same(*found)


def test_a_cut_larger_than_the_image_is_refused(make_config):
    small = image_lib.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0, crop_from=15)
    with pytest.raises(ConfigError, match=r"^augment\.crop_from: .*image\.size, which is 16"):
        make_config(augment=small)
