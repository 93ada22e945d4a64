import base64
import io

import numpy as np
import pytest
from PIL import Image

from prior_jax.report import images


def test_heat_lands_where_its_patch_is():
    heat = np.zeros((60, 90))
    heat[30:, :30] = 5.0
    heat[0:30, :30] = 1.0
    drawn = images.overlay(np.full((60, 90), 128, np.uint8), heat).astype(int)
    changed = np.abs(drawn - 128).sum(axis=2)
    assert changed[45, 15] > 100
    assert changed[15, 75] == 0 and changed[15, 15] < changed[45, 15] / 2


def test_the_legend_has_the_colours_that_are_seen_on_grey():
    least, *between, most = images.legend()
    assert least == "#808080" and len(set(between)) == 5
    red, green, blue = (int(most[i : i + 2], 16) for i in (1, 3, 5))
    assert min(red, green) > 1.5 * blue  # yellow


def test_even_attention_leaves_the_image_alone():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    drawn = images.overlay(grey, np.full((8, 8), 0.25))
    np.testing.assert_array_equal(drawn, np.repeat(grey[..., None], 3, axis=2))


def test_the_window_ignores_outliers_and_what_is_not_finite():
    image = np.linspace(0.0, 1.0, 10000).reshape(100, 100)
    image[0, :3] = [np.nan, np.inf, 1000.0]
    low, high = images.window(image)
    assert (low, high) == (pytest.approx(0.005, abs=1e-3), pytest.approx(0.995, abs=1e-3))
    assert images.window(np.full((2, 2), 3.0)) == (3.0, 4.0)
    assert images.window(np.full((2, 2), np.nan)) == (0.0, 1.0)


def test_grey_runs_from_black_to_white_and_clips():
    drawn = images.grey(np.array([[-9.0, 0.0, 1.0], [2.0, 9.0, np.nan]]), limits=(0.0, 2.0))
    np.testing.assert_array_equal(drawn, [[0, 0, 128], [255, 255, 0]])


def test_an_address_holds_the_picture():
    picture = np.full((16, 24), 77, np.uint8)
    head, body = images.data_uri(picture).split(",")
    assert head == "data:image/jpeg;base64"
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    np.testing.assert_allclose(read, picture, atol=1)
