"""From attention over the patches of an image to its pixels."""

import numpy as np


def spread(heat: np.ndarray, *, shape: tuple[int, int], spacing: float) -> np.ndarray:
    """Lays a map of patches over the pixels that they see, bilinear between their centres.

    Args:
      heat: float[h, w], of the patches.
      shape: (H, W) of the image.
      spacing: pixels from one patch's centre to the next; the first is centred on pixel 0, see
        `ShowsAttention.patch_spacing`.

    Returns:
      float64[H, W]; beyond the outermost centres the nearest patch's value.
    """
    rows, columns = (
        _between(size, cells, spacing) for size, cells in zip(shape, heat.shape, strict=True)
    )
    return rows @ np.asarray(heat, np.float64) @ columns.T


def _between(size: int, cells: int, spacing: float) -> np.ndarray:
    """float64[size, cells], the weight of each patch at each pixel."""
    place = np.arange(size) / spacing
    return np.stack([np.interp(place, np.arange(cells), row) for row in np.eye(cells)], axis=1)
