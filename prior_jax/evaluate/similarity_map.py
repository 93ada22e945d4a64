"""Maps of where an image matches a phrase, by BioViL's protocol and by MaCo's.

The similarity of each patch is smoothed and interpolated to the size of the original image, with
NaN where a centre crop removed pixels. BioViL's thresholds are of such a map of cosines; MaCo then
scales each map to the range -1 to 1 by its own least and greatest value. The similarity may be the
attention of an objective that has one, or `patch_text_cosine` for one that has none.

Source: BioViL, arXiv:2204.09817, sec. 4.3, as released in hi-ml-multimodal (`inference_engine.py`),
and MaCo, arXiv:2309.05904 (eval/common.py; eval/utils.py, `norm_heatmap`).
"""

import math
from typing import Literal

import numpy as np
from scipy import ndimage

from prior_jax.errors import DataError

SIGMA = 1.5
"""Standard deviation of BioViL's smoothing, in patches."""

Scale = Literal["map", "none"]

Margins = tuple[tuple[int, int], tuple[int, int]]
"""Rows above and below, columns on the left and on the right."""

NO_MARGINS: Margins = ((0, 0), (0, 0))


def patch_text_cosine(
    patches: np.ndarray, text: np.ndarray, *, normalise: bool = True
) -> np.ndarray:
    """Compares every patch of an image with a phrase.

    Args:
      patches: patch features, float[..., P, D], such as `ImageFeatures.local`.
      text: feature of the phrase as a whole, float[..., D], such as `ReportFeatures.global_`.
      normalise: True for the cosine; False for the dot product, in which long patches stand out
        whatever the phrase says, as MaCo's release has it (quirk C19).

    Returns:
      Similarity of each patch, float64[..., P]; the cosine of a zero vector is 0.

    Raises:
      DataError: if there is no patch, or patches and text have different widths.
    """
    patches, text = np.asarray(patches, np.float64), np.asarray(text, np.float64)
    if not patches.size:
        raise DataError(
            "The image features hold no patch.",
            "Choose an objective that keeps the features of patches, such as gloria or lovt.",
        )
    if patches.shape[-1] != text.shape[-1]:
        raise DataError(
            f"Patches have {patches.shape[-1]} features and the text has {text.shape[-1]}.",
            "Choose an objective that projects both to the same width.",
        )
    if normalise:
        patches, text = _unit(patches), _unit(text)
    return np.einsum("...pd,...d->...p", patches, text)


def smooth(heat: np.ndarray, *, sigma: float = SIGMA) -> np.ndarray:
    """Smooths a map of patches with a Gaussian whose values beyond the edge are mirrored.

    Args:
      heat: map, float[h, w].
      sigma: standard deviation in patches; the Gaussian is cut off at 4 of them.

    Returns:
      Smoothed map, float64[h, w].
    """
    return ndimage.gaussian_filter(np.asarray(heat, np.float64), sigma, mode="reflect", truncate=4)


def visible(shape: tuple[int, int], *, resize: int | None, crop: int | None) -> tuple[slice, slice]:
    """Returns the part of an image that a centre crop kept.

    Args:
      shape: size (H, W) of the original image.
      resize: length that the image's shorter side was resized to before the crop, in pixels; None
        without resizing.
      crop: side of the square centre crop, in pixels; None without a crop.

    Returns:
      Rows and columns of the part. Of an odd margin the larger half is at the bottom and the right.

    Raises:
      DataError: if the crop is larger than the image.
    """
    height, width = shape
    if crop is None:
        return slice(0, height), slice(0, width)
    side = crop if resize is None else int(crop * min(shape) / resize)
    if side > min(shape):
        raise DataError(
            f"A crop of {side} pixels does not fit into an image of {height}x{width}.",
            "Give the size that the image was resized to before it was cropped.",
        )
    top, left = math.floor((height - side) / 2), math.floor((width - side) / 2)
    return slice(top, top + side), slice(left, left + side)


def to_image(
    heat: np.ndarray,
    *,
    shape: tuple[int, int],
    resize: int | None,
    crop: int | None,
    shift: float = 0.0,
    margins: Margins = NO_MARGINS,
) -> np.ndarray:
    """Interpolates a map of patches over the part of the original image that the model saw.

    Args:
      heat: map, float[h, w]; patches tile the visible part.
      shape: size (H, W) of the original image.
      resize: see `visible`.
      crop: see `visible`.
      shift: distance, in patches, by which the centre of each patch lies nearer to the first pixel
        than the centre of its tile. With the padding of torch, patch i of a map of stride s is
        centred on pixel i * s, which is (s - 1) / (2 s) before the centre of its tile.
      margins: rows that were added above and below the original image, and columns added on its
        left and right, before anything else.

    Returns:
      Map, float64[H, W], bilinear between the centres of the patches and constant beyond the
      outermost ones; NaN where the crop removed pixels.
    """
    (above, below), (left, right) = margins
    padded = shape[0] + above + below, shape[1] + left + right
    rows, columns = visible(padded, resize=resize, crop=crop)
    heat = np.asarray(heat, np.float64)
    found = np.full(padded, np.nan)
    down = _between(rows.stop - rows.start, heat.shape[0], shift)
    across = _between(columns.stop - columns.start, heat.shape[1], shift)
    found[rows, columns] = down @ heat @ across.T
    return found[above : above + shape[0], left : left + shape[1]]


def to_unit_range(pixels: np.ndarray) -> np.ndarray:
    """Scales a map to the range -1 to 1; NaN stays NaN.

    Args:
      pixels: map, float[H, W].

    Returns:
      Scaled map, float64[H, W]. A constant map becomes 0, which is above no threshold; MaCo's
      release cannot go on with such a map (quirk C20).
    """
    pixels = np.asarray(pixels, np.float64)
    real = pixels[~np.isnan(pixels)]
    if not real.size or np.ptp(real) == 0:
        return np.where(np.isnan(pixels), np.nan, 0.0)
    return 2 * (pixels - real.min()) / np.ptp(real) - 1


def phrase_map(
    heat: np.ndarray,
    *,
    shape: tuple[int, int],
    resize: int | None = None,
    crop: int | None = None,
    sigma: float = SIGMA,
    scale: Scale = "map",
    shift: float = 0.0,
    margins: Margins = NO_MARGINS,
) -> np.ndarray:
    """Makes the map of a phrase that the metrics compare with its boxes.

    Args:
      heat: similarity or attention of each patch, float[h, w].
      shape: size (H, W) of the original image.
      resize: see `visible`.
      crop: see `visible`.
      sigma: see `smooth`; 0 leaves the map as it is.
      scale: "map" scales the map to the range -1 to 1 by `to_unit_range`; "none" keeps its values.
      shift: see `to_image`.
      margins: see `to_image`.

    Returns:
      Map, float64[H, W], NaN where the crop removed pixels. Where all patches are equal it is the
      same everywhere: 0, or their value if it is not scaled.

    Raises:
      DataError: if a value is not finite, or the crop is larger than the image.
    """
    if not np.isfinite(heat).all():
        raise DataError(
            f"{int((~np.isfinite(heat)).sum())} values of the map are not finite numbers.",
            "Check the checkpoint: its features must be finite.",
        )
    heat = np.asarray(heat, np.float64)
    if np.ptp(heat) == 0:
        # Smoothing would add rounding, which scaling and the greatest value would take for a map.
        smoothed, level = np.zeros_like(heat), 0.0 if scale == "map" else float(heat.flat[0])
    else:
        smoothed, level = smooth(heat, sigma=sigma) if sigma else heat, 0.0
    found = to_image(smoothed, shape=shape, resize=resize, crop=crop, shift=shift, margins=margins)
    return (to_unit_range(found) if scale == "map" else found) + level


def _between(size: int, cells: int, shift: float) -> np.ndarray:
    """Returns the weight of each patch at each pixel, float64[size, cells]."""
    place = (np.arange(size) + 0.5) * (cells / size) - 0.5 + shift
    return np.stack([np.interp(place, np.arange(cells), row) for row in np.eye(cells)], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
