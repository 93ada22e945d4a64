"""Arrays to pictures that a page can carry inside itself."""

import base64
import io

import matplotlib
import numpy as np
from matplotlib import colors
from PIL import Image

# Perceptually even, readable without colour vision and in grey.
_COLOURS = "viridis"


def window(image: np.ndarray) -> tuple[float, float]:
    """The grey range of a radiograph.

    Args:
      image: float[H, W]; what is not finite is left out.

    Returns:
      Its 0.5th and 99.5th percentile, always increasing.
    """
    finite = np.asarray(image, np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1.0)


def grey(image: np.ndarray, *, limits: tuple[float, float]) -> np.ndarray:
    """uint8[H, W] of an image between two limits; what is not finite is black."""
    low, high = limits
    scaled = np.nan_to_num((np.asarray(image, np.float64) - low) / (high - low), nan=0.0)
    return np.rint(255.0 * scaled.clip(0.0, 1.0)).astype(np.uint8)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map over a grey image; more heat is brighter and more opaque.

    Args:
      image: uint8[H, W].
      heat: float[H, W], stretched to its own range.

    Returns:
      uint8[H, W, 3].
    """
    spread = heat.max() - heat.min()
    # Rounding in the interpolation is no difference.
    even = spread <= 1e-6 * np.abs(heat).max()
    heat = np.zeros(heat.shape) if even else (heat - heat.min()) / spread
    colour = matplotlib.colormaps[_COLOURS](heat)[..., :3] * 255.0
    opacity = (0.6 * heat)[..., None]
    mixed = (1.0 - opacity) * image[..., None] + opacity * colour
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def legend() -> list[str]:
    """The colours of `overlay` from least to most heat, as CSS colours."""
    return [colors.to_hex(c) for c in matplotlib.colormaps[_COLOURS](np.linspace(0, 1, 7))]


def data_uri(picture: np.ndarray) -> str:
    """A JPEG `data:` address of uint8[H, W] or uint8[H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
