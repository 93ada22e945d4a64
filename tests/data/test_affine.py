"""Shift, scale and rotation are albumentations', and regions go with the pixels."""

import numpy as np
import pytest
from PIL import Image

from prior_jax.data import affine, regions
from prior_jax.data import image as image_lib
from prior_jax.errors import ConfigError
from tests.data.test_regions import agree

SHAPE = (12, 16)
# What shift_scale_rotate of albumentations 1.3.1 (OpenCV 5.0, bilinear with a constant border)
# makes of `waves()`, which turns about the centre of the image as ours does.
RECORDED = {
    (9.0, 1.1, 0.0, 0.0): (
        "5d7d9fc2d7d9d9d7d2cbc2b7ab9d8e7db9c2c9cfd3d5d5d2cec6bdb3a7998a7ab6bec6cbcfd0d0cec9c2b9aea29486"
        "76b3bac1c6cacccbc8c4bdb5aa9d908173aeb6bcc1c4c6c5c3beb8afa5998b7d6faab0b7bbbec0c0beb9b3aaa09588"
        "7a6ca4abb0b5b8babab7b3ada59b908477689ea5aaafb2b4b4b1ada8a0978c807466989ea3a8abadadaba8a29b9389"
        "7d716491979ca1a4a6a7a5a29d978f857b6f638a90959a9da0a09f9c98938b82786d6281898e9296999a9997948e88"
        "765d4631"
    ),
    (4.0, 1.0, 0.1, -0.05): (
        "0081b2bdc7ced4d7d8d6d2cbc1b5a7970075b0bac3cbd0d3d3d1ccc4bbafa1910068aeb7c0c6cbcececcc6bfb5a99b"
        "8b005baab3bbc1c6c8c8c5c0b9afa29485004ea6aeb5bbc0c2c1bfbab2a89c8e7f0041a0a8afb5b9bbbbb8b3aba296"
        "897a00349ba2a9aeb2b4b4b1aca59b9083750028949ca2a7abadadaaa69f968b7e71001c8d949ba0a4a6a6a39f9990"
        "867a6d0012868d93989d9f9f9d9a948b82766a00087f858c9196989897948e887e746800006b6b67625b53493f3328"
        "1d120900"
    ),
}
# The mask of what is above 140, moved to the nearest pixel, packed to bits.
MASKS = {
    (9.0, 1.1, 0.0, 0.0): "7ffefffcfffcfffcfff8fff8fff8fff8fff87ff07fe03fe0",
    (4.0, 1.0, 0.1, -0.05): "7fff7ffe7ffe7ffe3ffe3ffe3ffc3ffc1ff81ff00ff00300",
}
WIDE = affine.ShiftScaleRotateConfig(shift=0.2, scale=0.5, degrees=90.0, probability=1.0)


def waves(shape=SHAPE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    levels = 120 + 60 * np.sin(x / 5.0) + 50 * np.cos(y / 7.0 + x / 11.0)
    return np.clip(levels, 0, 255).astype(np.uint8)


def change_of(angle, scale, right, down):
    height, width = SHAPE
    turned = regions.rotated(angle, height=height, width=width, scale=scale)
    return regions.shifted(turned, right=right * width, down=down * height)


@pytest.mark.parametrize("change", RECORDED)
def test_pixels_and_masks_are_albumentations(change):
    place = change_of(*change)
    found = np.asarray(affine.warped(Image.fromarray(waves()), place))
    wanted = np.frombuffer(bytes.fromhex(RECORDED[change]), np.uint8).reshape(SHAPE)
    # At the edge OpenCV mixes the image with the black beyond it.
    inner = regions.moved_mask(np.pad(np.ones((SHAPE[0] - 2, SHAPE[1] - 2), bool), 1), place)
    assert inner.mean() > 0.6
    np.testing.assert_array_equal(found[inner], wanted[inner])
    mask = np.unpackbits(np.frombuffer(bytes.fromhex(MASKS[change]), np.uint8)).reshape(SHAPE) > 0
    moved = regions.moved_mask(waves() > 140, place)
    np.testing.assert_array_equal(moved[inner], mask[inner])


def test_the_ranges_are_those_of_the_config_and_are_used_in_full():
    config = affine.ShiftScaleRotateConfig(shift=0.25, scale=0.1, degrees=10.0, probability=0.5)
    image, rng = Image.fromarray(waves((40, 80))), np.random.default_rng(0)
    found = []
    for _ in range(2000):
        moved, place = affine.placed_shift_scale_rotate(image, config=config, rng=rng)
        matrix = np.asarray(place.matrix)
        if np.array_equal(matrix, np.eye(2, 3)):
            assert moved is image
            continue
        centre = matrix @ (40, 20, 1) - (40, 20)
        scale = np.hypot(*matrix[0, :2])
        angle = np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0]))
        found.append([angle, scale, centre[0] / 80, centre[1] / 40])
    found = np.array(found)
    assert 900 < len(found) < 1100
    limits = np.array([[-10, 10], [0.9, 1.1], [-0.25, 0.25], [-0.25, 0.25]])
    spread = limits[:, 1] - limits[:, 0]
    assert (np.abs(found.min(axis=0) - limits[:, 0]) < 0.02 * spread).all()
    assert (np.abs(found.max(axis=0) - limits[:, 1]) < 0.02 * spread).all()
    # Each is uniform, and none follows another.
    assert (np.abs(found.mean(axis=0) - limits.mean(axis=1)) < 0.03 * spread).all()
    assert (np.abs(found.std(axis=0) - spread / 12**0.5) < 0.02 * spread).all()
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.1


def test_a_colour_image_moves_as_its_channels_do():
    grey, other = waves(), waves()[:, ::-1]
    colour = Image.fromarray(np.stack([grey, other, grey], axis=2))
    place = change_of(20.0, 0.8, 0.1, 0.0)
    found = np.asarray(affine.warped(colour, place))
    for channel, pixels in enumerate((grey, other, grey)):
        alone = np.asarray(affine.warped(Image.fromarray(pixels.copy()), place))
        np.testing.assert_array_equal(found[..., channel], alone)


def test_a_rectangle_is_found_where_its_mask_and_box_went():
    pixels = np.zeros((90, 120), np.uint8)
    pixels[30:60, 40:90] = 255
    for seed in range(40):
        moved, place = affine.placed_shift_scale_rotate(
            Image.fromarray(pixels), config=WIDE, rng=np.random.default_rng(seed)
        )
        agree(moved, place, pixels, (40, 30, 90, 60), upright=False, slack=1)


def test_what_is_switched_off_leaves_the_other_draws_alone():
    image = Image.fromarray(waves((40, 40)))
    target = image_lib.ImageConfig(size=32, channels=1, mean=None, std=None)
    never = affine.ShiftScaleRotateConfig(shift=0.1, scale=0.1, degrees=9.0, probability=0.0)
    found = []
    for chosen in (None, never):
        config = image_lib.AugmentConfig(
            rotation_degrees=5.0, flip_probability=0.5, crop_from=36, shift_scale_rotate=chosen
        )
        rng = np.random.default_rng(4)
        found.append(
            image_lib.placed_training_image(image, image_config=target, config=config, rng=rng)
        )
    assert found[0][0].tobytes() == found[1][0].tobytes()
    np.testing.assert_allclose(found[0][1].matrix, found[1][1].matrix)


@pytest.mark.parametrize(
    "field", [{"shift": 1.0}, {"scale": 1.0}, {"degrees": 181.0}, {"probability": 1.1}]
)
def test_values_that_make_no_change_are_refused_by_name(field):
    good = dict(shift=0.0, scale=0.1, degrees=10.0, probability=0.5)
    with pytest.raises(ConfigError) as error:
        affine.ShiftScaleRotateConfig(**(good | field))
    assert error.value.where == next(iter(field))
