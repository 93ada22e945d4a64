"""Losses between the words of a report and the regions of an image."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import Directions, directed_cross_entropy
from prior_jax.losses.word_region_scores import (
    PRODUCTS,
    compare_caption,
    compare_image,
    exponentials_of,
    gram_of,
    square_of,
    total_of,
)

AGGREGATES = ("sum", "mean", "max")
"""The ways in which the similarities of a caption's words are aggregated."""

Walk = Literal["captions", "images"]
"""What a loop over the pairs goes through: some captions at a time, each with all images, or one
image at a time with all captions. The value is the same.

The first suits images that are split over devices, the second the caches of one CPU: the words of
all captions times the regions of one image are one matrix product, whose result is used in the
layout in which it is computed.
"""

KEPT_BYTES = 2**30
"""Largest size in bytes of the products of all words and regions that are kept for the backward
pass, of the global batch, or of all groups of it together.

A larger batch computes them a second time, chunk by chunk, so that memory does not grow with the
square of the batch.
"""


def word_region_contrast(
    words: jax.Array,
    regions: jax.Array,
    *,
    word_mask: jax.Array,
    weight: jax.Array,
    region_mask: jax.Array | None = None,
    temp1: float | jax.Array = 4.0,
    temp2: float | jax.Array = 5.0,
    temp3: float | jax.Array = 10.0,
    softmax_over_words: bool,
    aggregate: str,
    chunk: int | None = None,
    walk: Walk = "captions",
    groups: int = 1,
) -> Directions:
    """Computes the cross-entropy of all images and captions from words and regions.

    Args:
      words: word embeddings, [B, W, D], row i of image i; their norm influences the attention.
      regions: region embeddings, [B, P, D].
      word_mask: mask of the real words, bool[B, W].
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      region_mask: mask of the real regions, bool[B, P]; None if all regions are real.
      temp1: factor of the scores in the softmax over regions.
      temp2: factor of the cosines of words.
      temp3: factor of the similarities of captions.
      softmax_over_words: order of the softmaxes, see `word_region_attention`.
      aggregate: aggregation over words, see `word_region_similarity`.
      chunk: number of captions or images compared at once, see `word_region_similarity`.
      walk: order in which pairs are compared, see `Walk`.
      groups: number of such calls under one `jax.vmap`, see `word_region_similarity`.

    Returns:
      Two losses, float32[] each, nats per real pair: images among captions (the release's loss0),
      captions among images (loss1). A pair without a word or without a region counts as padding.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent, the aggregate is unknown or the
        chunk is below 1.

    Source: GLoRIA, ICCV 2021, the local contrastive loss; release, gloria/loss/gloria_loss.py,
      `local_loss`. Differs: padded pairs are neither anchors nor negatives, and the batch is the
      global one.
    """
    _check_pairs(words, regions, weight)
    similarity = word_region_similarity(
        words, regions, word_mask=word_mask, region_mask=region_mask, temp1=temp1, temp2=temp2,
        softmax_over_words=softmax_over_words, aggregate=aggregate, chunk=chunk, walk=walk,
        groups=groups,
    )  # fmt: skip
    weight = real_pairs(weight, word_mask=word_mask, region_mask=region_mask)
    return directed_cross_entropy(jnp.asarray(temp3, jnp.float32) * similarity, weight > 0, weight)


def real_pairs(
    weight: jax.Array, *, word_mask: jax.Array, region_mask: jax.Array | None
) -> jax.Array:
    """Returns the weights, float32[B], set to 0 for pairs without a word or a region."""
    present = (weight > 0) & jnp.any(word_mask, axis=1)
    if region_mask is not None:
        present &= jnp.any(region_mask, axis=1)
    return jnp.where(present, weight, jnp.float32(0))


def word_region_similarity(
    words: jax.Array,
    regions: jax.Array,
    *,
    word_mask: jax.Array,
    region_mask: jax.Array | None = None,
    temp1: float | jax.Array = 4.0,
    temp2: float | jax.Array = 5.0,
    softmax_over_words: bool,
    aggregate: str,
    chunk: int | None = None,
    walk: Walk = "captions",
    groups: int = 1,
) -> jax.Array:
    """Computes the similarity of every image with every caption, from their regions and words.

    Each word is compared with the context that it attends to in the image: log(mean(exp(temp2 *
    cosine))).

    Args:
      words: word embeddings, [N, W, D].
      regions: region embeddings, [M, P, D].
      word_mask: mask of the real words, bool[N, W].
      region_mask: mask of the real regions, bool[M, P]; None if all regions are real.
      temp1: factor of the scores in the softmax over regions.
      temp2: factor of the cosines of words.
      softmax_over_words: order of the softmaxes, see `word_region_attention`.
      aggregate: aggregation over a caption's words: "sum" grows with their number (the release's
        training, quirk G4), "mean" does not, "max" takes the best word (its zero-shot, quirk G22).
      chunk: number of captions compared at once; memory grows with chunk x M x W x P. None compares
        all of them. The value does not depend on it.
      walk: order in which pairs are compared, see `Walk`; over "images", `chunk` is the number of
        images compared at once, and memory grows with N x chunk x W x P.
      groups: number of such calls under one `jax.vmap`, which share `KEPT_BYTES`.

    Returns:
      Similarities, float32[M, N], images by captions; in [-temp2, temp2] for "mean" and "max". They
      are finite, but meaningless, for a caption without a word or an image without a region.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent, the aggregate is unknown or the
        chunk is below 1.

    Source: release, gloria/loss/gloria_loss.py, `local_loss`, and gloria/models/gloria_model.py,
      `get_local_similarities`. Differs: masked rather than sliced, and the attended context is
      formed only where it is smaller than the attention, P > D: otherwise its products follow from
      the attention, the scores and the regions' Gram matrix.
    """
    _check(words, regions, word_mask=word_mask, region_mask=region_mask)
    _check_aggregate(aggregate)
    options = dict(
        temp1=temp1, temp2=temp2, softmax_over_words=softmax_over_words, aggregate=aggregate
    )
    every = len(regions) if walk == "images" else len(words)
    chunk = every if chunk is None else chunk
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}. It must be at least 1, or None for all at once.")
    products = (
        groups * 4 * len(words) * words.shape[1] * len(regions) * regions.shape[1]
    )  # bytes, float32
    products *= 2 if regions.shape[1] <= regions.shape[2] else 1  # the products with Gram matrices
    if walk == "images":
        word_square = square_of(words)
        one = functools.partial(
            compare_image, words=words, word_mask=word_mask, word_square=word_square, **options
        )
        # A batch of one image would have an axis more, and another layout.
        size = None if chunk == 1 else chunk
        return jax.lax.map(_again(one, products), (regions, region_mask), batch_size=size)
    compare = functools.partial(
        compare_caption, regions=regions, region_mask=region_mask, gram=gram_of(regions), **options
    )
    if chunk >= len(words):
        return jax.vmap(compare)(words, word_mask).T
    one = _again(lambda caption: compare(*caption), products)
    return jax.lax.map(one, (words, word_mask), batch_size=chunk).T


def _again(compare: Callable[[Any], jax.Array], size: int) -> Callable[[Any], jax.Array]:
    """Rematerialises a comparison in the backward pass.

    The gradient of the loop would keep the attention of all pairs. It keeps the products of words,
    regions and Gram matrices, of `size` bytes over all pairs, where they fit into `KEPT_BYTES`.
    """
    kept = (PRODUCTS,) if size <= KEPT_BYTES else ()
    policy = jax.checkpoint_policies.save_only_these_names(*kept)
    return jax.checkpoint(compare, prevent_cse=False, policy=policy)


def word_region_attention(
    words: jax.Array,
    regions: jax.Array,
    *,
    word_mask: jax.Array,
    region_mask: jax.Array | None = None,
    temp1: float | jax.Array = 4.0,
    softmax_over_words: bool,
) -> jax.Array:
    """Computes the attention of each word of a caption over its own image.

    Args:
      words: word embeddings, [B, W, D], row i belongs to image i.
      regions: region embeddings, [B, P, D].
      word_mask: mask of the real words, bool[B, W].
      region_mask: mask of the real regions, bool[B, P]; None if all regions are real.
      temp1: factor of the scores in the softmax over regions.
      softmax_over_words: whether the dot products first pass through a softmax over the words of
        each region, as in the release (quirk G1): the words then compete for a region, and the
        scores lie in [0, 1]. With False, the dot products themselves are the scores, as in the
        paper.

    Returns:
      Attention weights, float32[B, W, P]: rows of real words sum to 1 over the real regions; 0 at
      padding.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: GLoRIA, ICCV 2021, the attention-weighted image representation; release,
      gloria/loss/gloria_loss.py, `attention_fn`.
    """
    _check(words, regions, word_mask=word_mask, region_mask=region_mask)
    if words.shape[0] != regions.shape[0]:
        raise ValueError(
            f"words {words.shape} and regions {regions.shape} must have the same number of rows."
        )
    dots = jnp.einsum("bwd,bpd->bwp", words, regions, preferred_element_type=jnp.float32)
    found = exponentials_of(
        dots,
        word_mask=word_mask,
        region_mask=region_mask,
        temp1=temp1,
        softmax_over_words=softmax_over_words,
    )
    attention = found / total_of(found)[:, :, None]
    return jnp.where(word_mask[:, :, None], attention, jnp.float32(0))


def check_contrast(
    words: jax.Array,
    regions: jax.Array,
    *,
    word_mask: jax.Array,
    region_mask: jax.Array | None,
    weight: jax.Array,
    aggregate: str,
) -> None:
    """Raises a ValueError that names the invalid argument of `word_region_contrast`."""
    _check_pairs(words, regions, weight)
    _check(words, regions, word_mask=word_mask, region_mask=region_mask)
    _check_aggregate(aggregate)


def _check_pairs(words: jax.Array, regions: jax.Array, weight: jax.Array) -> None:
    if words.ndim != 3 or regions.shape[:1] != words.shape[:1] or weight.shape != words.shape[:1]:
        raise ValueError(
            f"words {words.shape}, regions {regions.shape} and weight {weight.shape} must have the "
            "shapes [B, W, D], [B, P, D] and [B]."
        )


def _check_aggregate(aggregate: str) -> None:
    if aggregate not in AGGREGATES:
        raise ValueError(
            f"aggregate {aggregate!r} is unknown. Choose from {', '.join(map(repr, AGGREGATES))}."
        )


def _check(
    words: jax.Array,
    regions: jax.Array,
    *,
    word_mask: jax.Array,
    region_mask: jax.Array | None,
) -> None:
    if words.ndim != 3 or regions.ndim != 3 or words.shape[2] != regions.shape[2]:
        raise ValueError(
            f"words {words.shape} and regions {regions.shape} must have the shapes [N, W, D] and "
            "[M, P, D]."
        )
    if word_mask.shape != words.shape[:2]:
        raise ValueError(f"word_mask {word_mask.shape} must have the shape {words.shape[:2]}.")
    if region_mask is not None and region_mask.shape != regions.shape[:2]:
        raise ValueError(
            f"region_mask {region_mask.shape} must have the shape {regions.shape[:2]}."
        )
