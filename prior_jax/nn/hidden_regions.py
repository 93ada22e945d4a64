"""Copies of images with some of their regions hidden from the encoder.

The features of a region may describe what lies beside it. If a sentence is matched with such a
region, the match is lost when either of the two places is hidden; if the region describes its own
pixels, only when that one place is. So training with hidden regions prefers the latter.

Source: Hide-and-Seek, arXiv:1704.04232, section 3, which hides random squares of training images
with the mean pixel. Differs: the hidden places also take no part in what is matched.
"""

import jax
import jax.numpy as jnp
import numpy as np


def draw_visible(
    key: jax.Array, *, images: int, grid: tuple[int, int], share: float, side: int
) -> jax.Array:
    """Draws which squares of regions stay visible, independently.

    Args:
      key: random key.
      images: number N of images.
      grid: size (h, w) of the grid of regions.
      share: probability that a square is hidden.
      side: side of a square in regions; the last squares of a row and of a column are cut at the
        end of the grid.

    Returns:
      Mask of the visible regions, bool[N, h, w].
    """
    height, width = grid
    squares = images, -(-height // side), -(-width // side)
    drawn = jax.random.bernoulli(key, 1 - share, squares)
    return drawn.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width]


def hide(image: jax.Array, visible: jax.Array, *, spacing: int) -> jax.Array:
    """Sets the pixels of hidden regions to 0, the mean of normalised images.

    Args:
      image: normalised images, float32[N, H, W, C].
      visible: mask of the visible regions, bool[N, h, w].
      spacing: distance of regions in pixels. Region i is centred on pixel i * spacing, as the
        padding of torch has it, and holds the pixels that are nearest to it.

    Returns:
      Images, float32[N, H, W, C].
    """
    rows, columns = (
        np.minimum((np.arange(size) + spacing // 2) // spacing, cells - 1)
        for size, cells in zip(image.shape[1:3], visible.shape[1:], strict=True)
    )
    seen = visible[:, rows][:, :, columns]
    return jnp.where(seen[..., None], image, jnp.zeros((), image.dtype))


def append_copies(image: jax.Array, copies: jax.Array) -> jax.Array:
    """Puts a copy of the first image of each group behind the group.

    Rows stay near each other, so that no device needs those of another if it has whole groups.

    Args:
      image: rows, [G * n, ...], in G groups of n.
      copies: one row for each group, [G, ...].

    Returns:
      Rows, [G * (n + 1), ...].
    """
    groups = _in_groups(image, len(copies))
    both = jnp.concatenate([groups, copies[:, None]], axis=1)
    return both.reshape(-1, *image.shape[1:])


def without_copies(rows: jax.Array, *, groups: int) -> jax.Array:
    """Returns the rows that `append_copies` was given, of [G * (n + 1), ...]: [G * n, ...]."""
    found = _in_groups(rows, groups)[:, :-1]
    return found.reshape(-1, *rows.shape[1:])


def with_copies_first(rows: jax.Array, *, groups: int) -> jax.Array:
    """Returns rows with each group's copy in place of its first image.

    Args:
      rows: rows with copies, [G * (n + 1), ...].
      groups: number G of groups.

    Returns:
      Rows, [G * n, ...].
    """
    found = _in_groups(rows, groups)
    found = jnp.concatenate([found[:, -1:], found[:, 1:-1]], axis=1)
    return found.reshape(-1, *rows.shape[1:])


def _in_groups(rows: jax.Array, groups: int) -> jax.Array:
    return rows.reshape(groups, len(rows) // groups, *rows.shape[1:])
