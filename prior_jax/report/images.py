"""Converts arrays to pictures that are embedded in the page."""

import base64
import io

import matplotlib
import numpy as np
from matplotlib import colors
from PIL import Image

# Perceptually uniform, and readable without colour vision and in grey.
_COLOURS = "viridis"
# Of the image under the legend, near that of lungs.
_GREY = 128


def window(image: np.ndarray) -> tuple[float, float]:
    """Computes the grey range of a radiograph.

    Args:
      image: image, float[H, W]; values that are not finite are left out.

    Returns:
      The 0.5th and 99.5th percentile of the image, always increasing.
    """
    finite = np.asarray(image, np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1.0)


def grey(image: np.ndarray, *, limits: tuple[float, float]) -> np.ndarray:
    """Scales an image between two limits to uint8[H, W]; non-finite values become black."""
    low, high = limits
    scaled = np.nan_to_num((np.asarray(image, np.float64) - low) / (high - low), nan=0.0)
    return np.rint(255.0 * scaled.clip(0.0, 1.0)).astype(np.uint8)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draws a heat map over a grey image; more heat is brighter and more opaque.

    Args:
      image: grey image, uint8[H, W].
      heat: heat map, float[H, W], scaled to its own range.

    Returns:
      Colour image, uint8[H, W, 3].
    """
    spread = heat.max() - heat.min()
    # Rounding in the interpolation does not count as a difference.
    even = spread <= 1e-6 * np.abs(heat).max()
    heat = np.zeros(heat.shape) if even else (heat - heat.min()) / spread
    colour = matplotlib.colormaps[_COLOURS](heat)[..., :3] * 255.0
    opacity = (0.6 * heat)[..., None]
    mixed = (1.0 - opacity) * image[..., None] + opacity * colour
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def legend() -> list[str]:
    """Returns the colours of `overlay` on grey, from least to most heat, as CSS colours."""
    drawn = overlay(np.full((1, 7), _GREY, np.uint8), np.linspace(0.0, 1.0, 7)[None])
    return [colors.to_hex(colour / 255) for colour in drawn[0]]


def data_uri(picture: np.ndarray) -> str:
    """Encodes uint8[H, W] or uint8[H, W, 3] as a JPEG `data:` URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
