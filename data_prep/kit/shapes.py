"""Draws masks of shapes that annotators have drawn: ellipses and polygons."""

from collections.abc import Sequence

import numpy as np

from prior_jax.data import regions, schema

Points = Sequence[tuple[float, float]]


def ellipse_mask(box: schema.Box, height: int, width: int) -> np.ndarray:
    """Returns the mask of the ellipse that touches the sides of a box.

    Args:
      box: x1, y1, x2, y2 in pixels, see `prior_jax.data.regions`; x1 < x2 and y1 < y2.
      height: height of the image in pixels.
      width: width of the image in pixels.

    Returns:
      bool[height, width]: pixels whose centres are in the ellipse, or, if there are none, the pixel
      of the ellipse's centre.
    """
    x1, y1, x2, y2 = box
    x = (np.arange(width) + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    y = (np.arange(height) + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    inside = x**2 + (y**2)[:, None] <= 1.0
    return _kept(inside, [((x1 + x2) / 2, (y1 + y2) / 2)])


def polygon_mask(points: Points, height: int, width: int) -> np.ndarray:
    """Returns the mask of a polygon; where its line crosses itself, by the even-odd rule.

    Args:
      points: corners (x, y) in pixels; the last is joined to the first.
      height: height of the image in pixels.
      width: width of the image in pixels.

    Returns:
      bool[height, width]: pixels whose centres are in the polygon, or, if there are none because it
      is thinner than a pixel, the pixels of its corners.
    """
    # A row's crossings of the outline turn "outside" into "inside" and back from left to right.
    turns = np.zeros((height, width + 1), np.uint8)
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], *points[:1]], strict=True):
        if y1 == y2:
            continue
        low, high = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in sorted((y1, y2)))
        rows = np.arange(low, high)
        crossed = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
        columns = np.clip(np.ceil(crossed - 0.5), 0, width).astype(np.int64)
        turns[rows, columns] += 1  # an edge crosses a row once
    inside = (np.cumsum(turns[:, :width], axis=1, dtype=np.uint8) & 1).astype(bool)
    return _kept(inside, points)


def rectangle_mask(box: schema.Box, height: int, width: int) -> np.ndarray:
    """Returns bool[height, width]: pixels whose centres are in a box x1, y1, x2, y2."""
    return regions.mask_of_box(np.array(box), height=height, width=width)


def _kept(inside: np.ndarray, points: Points) -> np.ndarray:
    """Marks the pixels of some points in a mask that is empty, as far as they are in the image."""
    if not inside.any():
        height, width = inside.shape
        for x, y in points:
            if 0 <= x < width and 0 <= y < height:
                inside[int(y), int(x)] = True
    return inside
