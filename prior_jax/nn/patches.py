"""Between feature maps [B, h, w, C] and rows of patches [B, P, C], rightly and as the release does.

The release reinterprets buffers where it means to transpose (`view` on an NCHW map). Its weights
were trained so: the `scrambled_*` functions repeat it, the others do what the paper says.
"""

import jax


def spatial_patches(feature_map: jax.Array) -> jax.Array:
    """One row per location of the feature map, row-major.

    Args:
      feature_map: [B, h, w, C].

    Returns:
      [B, h * w, C], the map's dtype.

    Source: PRIOR, arXiv:2307.12577, sec. 3.2.
    """
    batch, height, width, channels = feature_map.shape
    return feature_map.reshape(batch, height * width, channels)


def scrambled_patches(feature_map: jax.Array) -> jax.Array:
    """The release's rows: C consecutive numbers of the flat (C, h, w) buffer each.

    A row so holds a few channels over many locations, and no location of its own.

    Args:
      feature_map: [B, h, w, C].

    Returns:
      [B, h * w, C], the map's dtype.

    Source: release, codes/prior/encoders/image/resnet.py, the `view` of local_features.
    """
    batch, height, width, channels = feature_map.shape
    return feature_map.transpose(0, 3, 1, 2).reshape(batch, height * width, channels)


def patches_to_map(patches: jax.Array, *, grid: tuple[int, int]) -> jax.Array:
    """The inverse of `spatial_patches`.

    Args:
      patches: [B, h * w, C].
      grid: (h, w), in patches.

    Returns:
      [B, h, w, C], the patches' dtype.
    """
    return patches.reshape(patches.shape[0], *grid, patches.shape[2])


def scrambled_map(patches: jax.Array, *, grid: tuple[int, int]) -> jax.Array:
    """The release's map: the patches' flat buffer read as (C, h, w).

    Inverse of `scrambled_patches` where C stays the same; the release projects in between.

    Args:
      patches: [B, h * w, C].
      grid: (h, w), in patches.

    Returns:
      [B, h, w, C], the patches' dtype.

    Source: release, codes/prior/models/prior.py, both calls of `view` before the image decoder.
    """
    channels_first = patches.reshape(patches.shape[0], patches.shape[2], *grid)
    return channels_first.transpose(0, 2, 3, 1)
