"""Interpolates attention over the patches of an image to attention over its pixels."""

import numpy as np


def spread(heat: np.ndarray, *, shape: tuple[int, int], spacing: float) -> np.ndarray:
    """Interpolates a map of patches to pixels, bilinearly between the patch centres.

    Args:
      heat: attention of the patches, float[h, w].
      shape: size (H, W) of the image.
      spacing: distance in pixels from one patch centre to the next; the first patch is centred on
        pixel 0, see `ShowsAttention.patch_spacing`.

    Returns:
      Attention of the pixels, float64[H, W]; beyond the outermost centres it has the value of the
      nearest patch.
    """
    rows, columns = (
        _between(size, cells, spacing) for size, cells in zip(shape, heat.shape, strict=True)
    )
    return rows @ np.asarray(heat, np.float64) @ columns.T


def _between(size: int, cells: int, spacing: float) -> np.ndarray:
    """Returns the weight of each patch at each pixel, float64[size, cells]."""
    place = np.arange(size) / spacing
    return np.stack([np.interp(place, np.arange(cells), row) for row in np.eye(cells)], axis=1)
