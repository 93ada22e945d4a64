"""Masks of shapes against matplotlib's and Pillow's, which know nothing of ours."""

import numpy as np
import pytest
from matplotlib.path import Path
from PIL import Image, ImageDraw

from data_prep.kit import shapes


def centres(height, width):
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.mark.parametrize("seed", range(20))
def test_a_polygon_has_the_pixels_whose_centres_matplotlib_finds_inside(seed):
    rng = np.random.default_rng(seed)
    height, width = 40, 57
    # Some corners lie outside of the image, and most outlines cross themselves.
    points = rng.uniform(-15, 70, (rng.integers(3, 9), 2))
    mask = shapes.polygon_mask([tuple(p) for p in points.tolist()], height, width)
    path = Path(np.concatenate([points, points[:1]]), closed=True)
    expected = path.contains_points(centres(height, width)).reshape(height, width)
    if expected.any():
        np.testing.assert_array_equal(mask, expected)


def test_a_polygon_of_whole_numbers_covers_whole_pixels():
    mask = shapes.polygon_mask([(2, 3), (7, 3), (7, 9), (2, 9)], 12, 10)
    assert mask[3:9, 2:7].all() and mask.sum() == 30


@pytest.mark.parametrize("box", [(5, 4, 35, 24), (-10, 3, 20, 30), (7.5, 8.25, 11, 19)])
def test_an_ellipse_is_that_of_a_fine_drawing(box):
    height, width, fine = 30, 40, 16
    mask = shapes.ellipse_mask(box, height, width)
    drawn = Image.new("1", (width * fine, height * fine))
    edges = [side * fine for side in box]
    ImageDraw.Draw(drawn).ellipse([edges[0], edges[1], edges[2] - 1, edges[3] - 1], fill=1)
    expected = np.asarray(drawn)[fine // 2 :: fine, fine // 2 :: fine]
    assert (mask != expected).sum() <= max(2, 0.02 * mask.sum())


def test_what_is_thinner_than_a_pixel_keeps_the_pixels_of_its_corners():
    mask = shapes.polygon_mask([(2.6, 1.0), (2.9, 1.0), (2.7, 3.4)], 8, 8)
    assert sorted(zip(*np.nonzero(mask), strict=True)) == [(1, 2), (3, 2)]
    assert shapes.ellipse_mask((2.6, 2.6, 2.9, 2.9), 8, 8).sum() == 1
    assert not shapes.polygon_mask([(20, 20), (21, 20), (20, 21)], 8, 8).any()


def test_a_rectangle_has_the_pixels_from_its_first_to_its_last_side():
    mask = shapes.rectangle_mask((2, 3, 5, 7), 10, 9)
    assert mask[3:7, 2:5].all() and mask.sum() == 12
