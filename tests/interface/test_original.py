"""Predictions go back to the pixels of the image that was given."""

import jax
import numpy as np
import pytest

from prior_jax.data import regions
from prior_jax.data.fitting import resize_transform
from prior_jax.interface.original import boxes_on_original, values_on_original

SHAPES = ((90, 60), (40, 100), (33, 33), (7, 300))


@pytest.mark.parametrize("shape", [(90, 60), (33, 100), (32, 32)])
def test_values_of_a_stretched_image_are_resized_as_jax_resizes_them(shape):
    values = np.random.default_rng(0).normal(size=(32, 32, 2)).astype(np.float32)
    place = resize_transform(shape, size=32, fit="stretch")
    wanted = jax.image.resize(values, (*shape, 2), "bilinear", antialias=False)
    np.testing.assert_allclose(values_on_original(values, place), wanted, atol=1e-5)


@pytest.mark.parametrize("fit", ["stretch", "pad", "pad_evenly"])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_pixel_has_the_value_at_its_own_place(shape, fit):
    size = 48
    place = resize_transform(shape, size=size, fit=fit)
    y, x = np.mgrid[:size, :size] + 0.5
    values = np.stack([x, y], axis=-1).astype(np.float32)
    found = values_on_original(values, place)
    row, column = np.mgrid[: shape[0], : shape[1]] + 0.5
    (a, b, c), (d, e, f) = place.matrix
    wanted = np.stack([a * column + b * row + c, d * column + e * row + f], axis=-1)
    # Beyond the outermost centres of the model's pixels the values stay as they are.
    np.testing.assert_allclose(found, np.clip(wanted, 0.5, size - 0.5), atol=1e-3)


@pytest.mark.parametrize("fit", ["stretch", "pad", "pad_evenly"])
def test_boxes_come_back_to_where_they_were(fit):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        place = resize_transform(shape, size=64, fit=fit)
        low = rng.uniform(0, 0.5, (20, 2)) * shape[::-1]
        boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, (20, 2)) * shape[::-1]], axis=1)
        found = boxes_on_original(regions.moved_boxes(boxes, place), place)
        np.testing.assert_allclose(found, boxes, atol=1e-3)


def test_a_box_on_the_margin_is_none_and_one_across_the_edge_is_cut_off():
    place = resize_transform((20, 40), size=40, fit="pad")  # 10 rows of margin above and below
    found = boxes_on_original(np.float32([[5, 1, 9, 8], [5, 1, 9, 15], [0, 0, 40, 40]]), place)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], [[5, 0, 9, 5], [0, 0, 40, 20]], atol=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_gets_its_stored_pixels_back(orientation):
    upright = regions.turned(orientation, before=(30, 50))
    place = upright.then(resize_transform(upright.after, size=64, fit="pad"))
    mask = np.zeros((30, 50), bool)
    mask[5:12, 20:44] = True
    values = regions.moved_mask(mask, place)[..., None].astype(np.float32)
    found = values_on_original(values, place)[..., 0] > 0.5
    assert (found != mask).sum() <= 0.1 * mask.sum()
