"""Predictions on a model's images, brought back to the pixels of the images that were given."""

import numpy as np
from PIL import Image

from prior_jax.data.regions import Transform, moved_boxes


def values_on_original(values: np.ndarray, place: Transform) -> np.ndarray:
    """Brings numbers on the pixels of a model's image back to those of the original image.

    Each pixel of the original image takes the value at its centre, interpolated bilinearly between
    the centres of the model's pixels. What lies on margins of the model's image has no place in the
    original one.

    Args:
      values: numbers of K classes, float32[h, w, K].
      place: change from the original image, of H times W pixels, to the model's.

    Returns:
      float32[H, W, K].
    """
    height, width = place.before
    (a, b, c), (d, e, f) = place.matrix
    maps = [
        Image.fromarray(np.ascontiguousarray(values[..., index], np.float32)).transform(
            (width, height),
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            Image.Resampling.BILINEAR,
        )
        for index in range(values.shape[2])
    ]
    return np.stack([np.asarray(one, np.float32) for one in maps], axis=-1)


def boxes_on_original(corners: np.ndarray, place: Transform) -> np.ndarray:
    """Brings boxes on a model's image back to the original image.

    Args:
      corners: x1, y1, x2, y2 in pixels of the model's image, float32[M, 4].
      place: change from the original image to the model's.

    Returns:
      float32[M, 4], in pixels of the original image and cut off at its edges; NaN for a box that
      lies outside of it, on margins of the model's image.
    """
    (a, b, c), (d, e, f) = place.inverse_matrix().tolist()
    back = Transform(matrix=((a, b, c), (d, e, f)), before=place.after, after=place.before)
    return moved_boxes(corners, back)
