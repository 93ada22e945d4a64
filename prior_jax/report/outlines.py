"""Draws lines around regions of an image, dark at their edges, so that they show on any grey."""

import numpy as np
from PIL import Image
from scipy import ndimage

LEAST_SIDE = 256
"""Least length of the longer side of a drawn picture, in pixels, so that its lines are thin."""
HALO = (0, 0, 0)
TRUTH = (255, 255, 255)


def factor_of(height: int, width: int) -> int:
    """Returns by how much a picture is enlarged: 1, unless it is small."""
    return max(1, -(-LEAST_SIDE // max(height, width)))


def enlarged(mask: np.ndarray, factor: int) -> np.ndarray:
    """Repeats each pixel of bool[H, W]; returns bool[factor H, factor W]."""
    return np.kron(mask, np.ones((factor, factor), bool))


def outline(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of the line around a region and those of its halo, bool[H, W] each.

    The edge of the region runs in the middle of the line, which is 2 pixels wide.
    """
    block = np.ones((3, 3), bool)

    def band(steps: int) -> np.ndarray:
        wide = np.asarray(ndimage.binary_dilation(mask, block, iterations=steps), bool)
        return wide & ~np.asarray(ndimage.binary_erosion(mask, block, iterations=steps), bool)

    line = band(1)
    return line, band(2) & ~line


def paint(picture: np.ndarray, line: np.ndarray, halo: np.ndarray, *, colour) -> None:
    """Paints a line and its halo over uint8[H, W, 3], in place."""
    picture[halo] = HALO
    picture[line] = colour


def outlined(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns a picture with the outline of the true region, enlarged if it is small.

    Args:
      picture: uint8[H, W, 3].
      truth: bool[H, W].
    """
    height, width = truth.shape
    factor = factor_of(height, width)
    size = width * factor, height * factor
    large = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    paint(large, *outline(enlarged(truth, factor)), colour=TRUTH)
    return large
