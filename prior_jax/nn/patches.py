"""Conversions between feature maps and patches, correct ones and those of the release.

Feature maps are [B, h, w, C] and patches [B, P, C]. The release reinterprets buffers (`view` on an
NCHW map) where a transpose is meant. Its weights were trained in this way: the `scrambled_*`
functions reproduce it, the others follow the paper.
"""

import jax


def spatial_patches(feature_map: jax.Array) -> jax.Array:
    """Returns one row per location of the feature map, row-major.

    Args:
      feature_map: feature maps, [B, h, w, C].

    Returns:
      Patches, [B, h * w, C], in the dtype of the map.

    Source: PRIOR, arXiv:2307.12577, sec. 3.2.
    """
    batch, height, width, channels = feature_map.shape
    return feature_map.reshape(batch, height * width, channels)


def scrambled_patches(feature_map: jax.Array) -> jax.Array:
    """Returns the release's rows: C consecutive numbers each of the flat (C, h, w) buffer.

    Such a row holds a few channels at many locations, so it has no location of its own.

    Args:
      feature_map: feature maps, [B, h, w, C].

    Returns:
      Patches, [B, h * w, C], in the dtype of the map.

    Source: release, codes/prior/encoders/image/resnet.py, the `view` of local_features.
    """
    batch, height, width, channels = feature_map.shape
    return feature_map.transpose(0, 3, 1, 2).reshape(batch, height * width, channels)


def patches_to_map(patches: jax.Array, *, grid: tuple[int, int]) -> jax.Array:
    """Reverses `spatial_patches`.

    Args:
      patches: patch embeddings, [B, h * w, C].
      grid: size (h, w) of the map, in patches.

    Returns:
      Feature maps, [B, h, w, C], in the dtype of the patches.
    """
    return patches.reshape(patches.shape[0], *grid, patches.shape[2])


def scrambled_map(patches: jax.Array, *, grid: tuple[int, int]) -> jax.Array:
    """Returns the release's map: the flat buffer of the patches read as (C, h, w).

    It is the inverse of `scrambled_patches` if C stays the same; the release projects in between.

    Args:
      patches: patch embeddings, [B, h * w, C].
      grid: size (h, w) of the map, in patches.

    Returns:
      Feature maps, [B, h, w, C], in the dtype of the patches.

    Source: release, codes/prior/models/prior.py, both calls of `view` before the image decoder.
    """
    channels_first = patches.reshape(patches.shape[0], patches.shape[2], *grid)
    return channels_first.transpose(0, 2, 3, 1)
