"""Features of an image's regions from shifted copies of the image, and from its mirror image.

A convolutional encoder computes the same function at every region. With the image shifted by a part
of the regions' spacing it computes that function between them, so that K x K shifts give a grid K
times as fine, as the offsets of OverFeat do (Sermanet et al., arXiv:1312.6229, sec. 3.3).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from prior_jax.errors import ConfigError, DataError, check_field, check_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Grid on which the regions of an image are compared with a text.

    Attributes:
      shifts: number of shifts of the image along each axis: with 2, an image is encoded four times
        and its grid is twice as fine. 1 is the encoder's own grid. A divisor of the spacing of the
        regions in pixels.
      smoothing: standard deviation of the Gaussian with which the features of neighbouring regions
        are averaged, in spacings of the encoder's own grid; 0 for none.
      mirrored: whether a text's attention is the mean of that in the image and that in the mirror
        image, of which the text says left for right. A region that stands for what is to its left
        stands for what is to its right there, so that the mean favours neither side.
    """

    shifts: int
    smoothing: float
    mirrored: bool = False  # as in files without the setting

    def __post_init__(self):
        """Refuses values that define no grid."""
        check_least(self, shifts=1)
        fits = math.isfinite(self.smoothing) and self.smoothing >= 0
        check_field(self, "smoothing", fits, "a finite number from 0 on")

    @property
    def name(self) -> str:
        """Returns the part of the name of results that tells them from those of other grids.

        It is "" for the encoder's own regions, "fine" for `FINE`, and otherwise lists the settings,
        such as "shifts_4_smoothing_0_5_mirrored".
        """
        if self == FINE:
            return "fine"
        parts = [f"shifts_{self.shifts}"] if self.shifts > 1 else []
        parts += [f"smoothing_{self.smoothing:g}".replace(".", "_")] if self.smoothing else []
        return "_".join([*parts, "mirrored"] if self.mirrored else parts)

    @property
    def own_grid(self) -> bool:
        """Returns whether the regions of an image are the encoder's own."""
        return self.shifts == 1 and self.smoothing == 0


OWN = AttentionConfig(shifts=1, smoothing=0.0)
"""The regions as the encoder gives them."""
FINE = AttentionConfig(shifts=2, smoothing=0.7, mirrored=True)
"""A grid twice as fine, averaged over neighbours and with the mirror image."""


def step_of(config: AttentionConfig, *, spacing: float) -> int:
    """Returns the distance of two shifts in pixels.

    Args:
      config: grid.
      spacing: distance of the encoder's regions in pixels, `ShowsAttention.patch_spacing`.

    Raises:
      ConfigError: if the spacing is not a multiple of the number of shifts.
    """
    if spacing % config.shifts:
        raise ConfigError(
            f"The value is {config.shifts}, but the regions of this model are {spacing:g} pixels "
            "apart, which is not a multiple of it.",
            f"Set it to a divisor of {spacing:g}, or to 1 for the regions of the model.",
            where="task.attention.shifts",
        )
    return int(spacing) // config.shifts


def fine_regions(
    own: np.ndarray,
    image: jax.Array,
    *,
    encode: Callable[[jax.Array], np.ndarray],
    config: AttentionConfig,
    spacing: float,
) -> np.ndarray:
    """Computes the features of regions on a finer grid.

    Args:
      own: features of the images' regions as the encoder gives them, float32[B, h * w, D],
        row-major, h = w.
      image: images, float32[B, H, W, C].
      encode: function that gives such features of shifted images, on the host; it is called once
        for every shift but that by nothing.
      config: finer grid; K is its number of shifts.
      spacing: distance of the encoder's regions in pixels.

    Returns:
      Features, float32[B, (K h) * (K w), D], row-major, with regions `spacing` / K pixels apart and
      the first one where the encoder has it. A shifted image is continued with the pixels of its
      last row and column, a smoothed grid with its outermost regions.

    Raises:
      ConfigError: if the spacing is not a multiple of K, or the smoothing is wider than the image.
      DataError: if the regions do not lie on a square grid.
    """
    step, shifts = step_of(config, spacing=spacing), config.shifts
    rows, side, features = len(own), grid_side(own.shape[1]), own.shape[2]
    if config.smoothing > side:
        raise ConfigError(
            f"The value is {config.smoothing:g}, but an image of this model has only {side} "
            "regions along each axis.",
            "Set it to a fraction of a region or a few regions, e.g. 0.7.",
            where="task.attention.smoothing",
        )
    ways = itertools.product(range(0, shifts * step, step), repeat=2)
    moved = (encode(_shifted(image, down=d, right=r)) if d or r else own for d, r in ways)
    each = np.stack(list(moved), axis=1).reshape(rows, shifts, shifts, side, side, features)
    fine = each.transpose(0, 3, 1, 4, 2, 5).reshape(rows, shifts * side, shifts * side, features)
    sigma = config.smoothing * shifts
    if sigma:
        fine = ndimage.gaussian_filter(fine, (0, sigma, sigma, 0), mode="nearest", truncate=4)
    return fine.reshape(rows, -1, features)


def grid_side(count: int) -> int:
    """Returns the side of the square grid of `count` regions.

    Raises:
      DataError: if the number is not the square of a positive one.
    """
    side = math.isqrt(count)
    if side * side != count or not count:
        raise DataError(
            f"The map has {count} cells, which is not a square number.",
            "Use an objective whose regions or patches lie on a square grid.",
        )
    return side


def mirror(image: jax.Array, *, spacing: float, cells: int) -> jax.Array:
    """Mirrors images so that the regions of the mirror image lie on those of the image.

    Args:
      image: images, float32[B, H, W, C].
      spacing: distance of the regions in pixels; the first is centred on pixel 0.
      cells: number w of regions in a row, (w - 1) * `spacing` < W.

    Returns:
      Images of the same shape. Region j of a row is centred on what region w - 1 - j of the image
      is centred on; what the last region leaves over at the right of the image is lost, and the
      right end continued with its last pixels.
    """
    beyond = image.shape[2] - 1 - int(spacing * (cells - 1))
    return _shifted(image[:, :, ::-1], down=0, right=beyond)


def mirror_map(attention: np.ndarray) -> np.ndarray:
    """Returns maps with left and right exchanged, float[..., h * w], row-major with h = w."""
    side = grid_side(attention.shape[-1])
    rows = attention.reshape(*attention.shape[:-1], side, side)
    return rows[..., ::-1].reshape(attention.shape)


@functools.partial(jax.jit, static_argnames=("down", "right"))
def _shifted(image: jax.Array, *, down: int, right: int) -> jax.Array:
    """Moves what is at pixel (down, right) to pixel (0, 0)."""
    height, width = image.shape[1:3]
    padded = jnp.pad(image, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")
    return padded[:, down : down + height, right : right + width]
