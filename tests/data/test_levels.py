"""Equalisation is scikit-image's, and stretching to white OpenCV's."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from prior_jax.data import image as image_lib
from prior_jax.data import levels


def skewed(shape=(60, 50), seed=0, low=20, high=230):
    """An image whose dark levels are the most frequent."""
    uniform = np.random.default_rng(seed).random(shape)
    return (low + (high - low) * uniform**3).astype(np.uint8)


def test_shares_are_scikit_image_s():
    exposure = pytest.importorskip("skimage.exposure")
    for seed in range(5):
        pixels = skewed(seed=seed, low=seed * 9)
        wanted = exposure.equalize_hist(pixels / 255.0)
        np.testing.assert_allclose(levels.shares(pixels)[pixels], wanted, rtol=1e-12)


def test_recorded_shares():
    """skimage 0.26, equalize_hist of these levels divided by 255."""
    pixels = np.array([[0, 0, 10, 200], [7, 7, 7, 255], [10, 11, 12, 13]], np.uint8)
    wanted = [
        [0.16666666666666666, 0.16666666666666666, 0.5065359477124183, 0.9166666666666666],
        [0.2985294117647058, 0.2985294117647058, 0.2985294117647058, 1.0],
        [0.5065359477124183, 0.62859477124183, 0.7122549019607842, 0.7959150326797386],
    ]
    np.testing.assert_allclose(levels.shares(pixels)[pixels], wanted, rtol=1e-9)


def test_an_equalised_image_uses_all_levels_alike():
    drawn = np.random.default_rng(0).normal(90, 25, (200, 200))
    pixels = np.clip(drawn, 0, 255).astype(np.uint8)
    found = np.asarray(levels.equalized(Image.fromarray(pixels)))
    before, counts = (np.histogram(one, bins=8, range=(0, 256))[0] for one in (pixels, found))
    assert counts.std() < 0.1 * counts.mean() and before.std() > counts.mean()


def test_equalised_images_are_normalised_by_what_they_all_have():
    drawn = np.random.default_rng(0).normal(90, 25, (200, 200))
    pixels = Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8))
    config = image_lib.ImageConfig(size=200, channels=1, mean=None, std=None, equalize=True)
    mean, std = image_lib.statistics(config, mean=0.35, std=0.1)
    shown, _ = image_lib.placed_input(pixels, config=config)
    found = image_lib.normalise(shown, mean=mean, std=std)
    assert abs(found.mean()) < 0.03 and abs(found.std() - 1) < 0.03
    own = dataclasses.replace(config, mean=(0.2,), std=(0.3,))
    assert image_lib.statistics(own, mean=0.35, std=0.1)[0] == np.float32(0.2)


def test_the_order_of_levels_is_kept():
    pixels = skewed()
    found = np.asarray(levels.equalized(Image.fromarray(pixels)))
    order = np.argsort(pixels.reshape(-1), kind="stable")
    assert (np.diff(found.reshape(-1)[order].astype(int)) >= 0).all()


def test_grey_in_three_channels_stays_the_same_grey():
    grey = Image.fromarray(skewed())
    for change in (levels.equalized, levels.white_at_most):
        found = np.asarray(change(grey.convert("RGB")))
        np.testing.assert_array_equal(found, np.asarray(change(grey).convert("RGB")))


def test_an_image_of_one_level_is_not_an_error():
    for level in (0, 9, 255):
        plain = Image.new("L", (5, 4), level)
        assert len(set(np.asarray(levels.equalized(plain)).reshape(-1).tolist())) == 1
    black = Image.new("L", (5, 4))
    assert levels.white_at_most(black) is black


def test_the_brightest_level_becomes_white_and_halves_are_rounded_to_even():
    pixels = np.array([[0, 1, 2, 51, 102]], np.uint8)  # a factor of 2.5
    found = np.asarray(levels.white_at_most(Image.fromarray(pixels)))
    assert found.tolist() == [[0, 2, 5, 128, 255]]
    white = Image.fromarray(np.array([[3, 255]], np.uint8))
    assert levels.white_at_most(white) is white


def test_stretching_is_opencv_s():
    cv2 = pytest.importorskip("cv2")
    for high in range(1, 256):
        pixels = np.arange(high + 1, dtype=np.uint8)[None]
        wanted = cv2.convertScaleAbs(pixels, alpha=255.0 / pixels.max())
        np.testing.assert_array_equal(levels.white_at_most(Image.fromarray(pixels)), wanted)
