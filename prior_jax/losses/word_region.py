"""Losses between the words of a report and the regions of an image."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from prior_jax.losses.contrastive import Directions, directed_cross_entropy
from prior_jax.losses.normalize import cosine_of_products

AGGREGATES = ("sum", "mean", "max")
"""The ways in which the similarities of a caption's words are aggregated."""

# Score of an absent word or region; finite, so that no gradient is NaN.
_ABSENT = -1e30

KEPT_BYTES = 2**29
"""Largest size in bytes of the products of all words and regions of the global batch that are kept
for the backward pass.

A larger global batch computes them a second time, chunk by chunk, so that memory does not grow with
the square of the batch.
"""
_DOTS = "word_region_dots"


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
      chunk: number of captions compared at once, see `word_region_similarity`.

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
        softmax_over_words=softmax_over_words, aggregate=aggregate, chunk=chunk,
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
    compare = functools.partial(
        compare_caption, regions=regions, region_mask=region_mask, gram=gram_of(regions),
        temp1=temp1, temp2=temp2, softmax_over_words=softmax_over_words, aggregate=aggregate,
    )  # fmt: skip
    return _over_captions(compare, words, word_mask, regions, chunk=chunk).T


def _over_captions(
    compare: Callable[[jax.Array, jax.Array], jax.Array],
    words: jax.Array,
    word_mask: jax.Array,
    regions: jax.Array,
    *,
    chunk: int | None,
) -> jax.Array:
    """Compares every caption with all images, float32[N, M]: all at once, or chunk by chunk.

    With a chunk below N, the gradient rematerialises each chunk in the backward pass, but for the
    products of words and regions where all of them fit into `KEPT_BYTES`.
    """
    captions = words.shape[0]
    chunk = captions if chunk is None else chunk
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}. It must be at least 1, or None for all captions.")
    if chunk >= captions:
        return jax.vmap(compare)(words, word_mask)
    # Without this checkpoint, the gradient of the loop would keep the attention of all chunks.
    images, places, _ = regions.shape
    product_bytes = 4 * captions * words.shape[1] * images * places  # float32
    kept = (_DOTS,) if product_bytes <= KEPT_BYTES else ()
    policy = jax.checkpoint_policies.save_only_these_names(*kept)
    compare = jax.checkpoint(compare, prevent_cse=False, policy=policy)
    return jax.lax.map(lambda caption: compare(*caption), (words, word_mask), batch_size=chunk)


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
    return _attention(
        dots,
        word_mask=word_mask,
        region_mask=region_mask,
        temp1=temp1,
        softmax_over_words=softmax_over_words,
    )


def gram_of(regions: jax.Array) -> jax.Array | None:
    """Computes the Gram matrix of an image's regions [B, P, D]: float32[B, P, P].

    Returns None where there are more regions than dimensions, because computing the contexts
    themselves then costs less.
    """
    if regions.shape[1] > regions.shape[2]:
        return None
    return jnp.einsum(
        "bpd,bqd->bpq",
        regions,
        regions,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def compare_caption(
    words: jax.Array,
    word_mask: jax.Array,
    *,
    regions: jax.Array,
    region_mask: jax.Array | None,
    gram: jax.Array | None,
    temp1: float | jax.Array,
    temp2: float | jax.Array,
    softmax_over_words: bool,
    aggregate: str,
) -> jax.Array:
    """Computes the similarities of one caption with all images.

    The result is one column of `word_region_similarity`.

    Args:
      words: word embeddings, [W, D].
      word_mask: mask of the real words, bool[W].
      regions: region embeddings, [M, P, D].
      region_mask: mask of the real regions, bool[M, P], or None.
      gram: Gram matrices, float32[M, P, P], or None, from `gram_of(regions)`.
      temp1: factor of the region scores, see `word_region_similarity`.
      temp2: factor of the cosines of words, see `word_region_similarity`.
      softmax_over_words: order of the softmaxes, see `word_region_attention`.
      aggregate: aggregation over words, see `word_region_similarity`.

    Returns:
      Similarities, float32[M].
    """
    dots = jnp.einsum("wd,bpd->bwp", words, regions, preferred_element_type=jnp.float32)
    dots = checkpoint_name(dots, _DOTS)
    attention = _attention(
        dots,
        word_mask=word_mask[None, :],
        region_mask=region_mask,
        temp1=temp1,
        softmax_over_words=softmax_over_words,
    )
    # With context = attention @ regions, these are words . context and |context|^2.
    word_context = jnp.sum(attention * dots, axis=-1)
    context_square = _context_square(attention, regions, gram)
    word_square = jnp.sum(jnp.square(words.astype(jnp.float32)), axis=-1)
    cosines = cosine_of_products(word_context, word_square[None, :], context_square)
    return _aggregate(
        jnp.asarray(temp2, jnp.float32) * cosines, word_mask[None, :], aggregate=aggregate
    )


def _context_square(attention: jax.Array, regions: jax.Array, gram: jax.Array | None) -> jax.Array:
    """Computes |attention @ regions|^2, float32[M, W], from the Gram matrices if there are any."""
    if gram is None:
        context = jnp.einsum("bwp,bpd->bwd", attention, regions, preferred_element_type=jnp.float32)
        return jnp.sum(jnp.square(context), axis=-1)
    return _quadratic(attention, gram)


@jax.custom_jvp
def _quadratic(attention: jax.Array, gram: jax.Array) -> jax.Array:
    """Computes a G a for each word's attention a, float32[M, W], with a symmetric G."""
    return jnp.sum(_pulled(attention, gram) * attention, axis=-1)


@_quadratic.defjvp
def _quadratic_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Derives a G a by a as 2 G a, which saves the product with the transpose of G."""
    (attention, gram), (change, change_of_gram) = primals, tangents
    pulled = _pulled(attention, gram)
    by_attention = 2 * jnp.sum(pulled * change, axis=-1)
    by_gram = jnp.sum(_pulled(attention, change_of_gram) * attention, axis=-1)
    return jnp.sum(pulled * attention, axis=-1), by_attention + by_gram


def _pulled(attention: jax.Array, gram: jax.Array) -> jax.Array:
    # Entries of the Gram matrix cancel in the sum, so this product needs full precision.
    return jnp.einsum("bwp,bpq->bwq", attention, gram, precision=jax.lax.Precision.HIGHEST)


def _attention(
    dots: jax.Array,
    *,
    word_mask: jax.Array,
    region_mask: jax.Array | None,
    temp1: float | jax.Array,
    softmax_over_words: bool,
) -> jax.Array:
    """Computes attention over regions from the dot products [B, W, P].

    The masks are bool[B or 1, W] and bool[B, P].
    """
    real = word_mask[:, :, None]
    if region_mask is not None:
        real = real & region_mask[:, None, :]
    scores = dots
    if softmax_over_words:
        scores = jax.nn.softmax(jnp.where(real, scores, jnp.float32(_ABSENT)), axis=1)
    scores = jnp.where(real, jnp.asarray(temp1, jnp.float32) * scores, jnp.float32(_ABSENT))
    return jnp.where(real, jax.nn.softmax(scores, axis=2), jnp.float32(0))


def _aggregate(values: jax.Array, mask: jax.Array, *, aggregate: str) -> jax.Array:
    """Computes log(sum, mean or max of exp(values)) over the real words: float32[B].

    The mask of the real words is [1, W].
    """
    values = jnp.where(mask, values, jnp.float32(_ABSENT))
    if aggregate == "max":
        return jnp.max(values, axis=-1)
    total = jax.nn.logsumexp(values, axis=-1)
    if aggregate == "sum":
        return total
    count = jnp.sum(mask.astype(jnp.float32), axis=-1)
    return total - jnp.log(jnp.maximum(count, jnp.float32(1)))


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
