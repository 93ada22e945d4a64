"""Similarity of one caption with every image, or of one image with every caption, by words."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from prior_jax.losses.normalize import cosine_of_products

PRODUCTS = "word_region_products"
"""Name of the largest products of words and regions, by which rematerialisation keeps them."""

# Score of an absent word or region; finite, so that no gradient is NaN.
_ABSENT = -1e30


def gram_of(regions: jax.Array) -> jax.Array | None:
    """Computes the Gram matrix of an image's regions [..., P, D]: float32[..., P, P].

    Returns None where there are more regions than dimensions, because computing the contexts
    themselves then costs less.
    """
    if regions.shape[-2] > regions.shape[-1]:
        return None
    return jnp.einsum(
        "...pd,...qd->...pq",
        regions,
        regions,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def square_of(words: jax.Array) -> jax.Array:
    """Computes the squared norms of words [..., D]: float32[...]."""
    return jnp.sum(jnp.square(words.astype(jnp.float32)), axis=-1)


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
    return _similarities(
        dots, lambda attention: _context_square(attention, regions, gram),
        word_square=square_of(words)[None], word_mask=word_mask[None], region_mask=region_mask,
        temp1=temp1, temp2=temp2, softmax_over_words=softmax_over_words, aggregate=aggregate,
    )  # fmt: skip


def compare_image(
    image: tuple[jax.Array, jax.Array | None],
    *,
    words: jax.Array,
    word_mask: jax.Array,
    word_square: jax.Array,
    **options: Any,
) -> jax.Array:
    """Computes the similarities of one image with all captions: float32[N].

    The result is one row of `word_region_similarity`.

    Args:
      image: region embeddings, [P, D], and the mask of the real ones, bool[P], or None.
      words: word embeddings, [N, W, D].
      word_mask: mask of the real words, bool[N, W].
      word_square: squared norms of the words, float32[N, W], from `square_of(words)`.
      **options: temperatures, order of the softmaxes and aggregate, see `word_region_similarity`.
    """
    regions, region_mask = image
    captions, count, features = words.shape
    rows = words.reshape(captions * count, features)
    dots = jnp.einsum("rd,pd->rp", rows, regions, preferred_element_type=jnp.float32)
    gram = gram_of(regions)

    def context_square(attention: jax.Array) -> jax.Array:
        found = _context_square(attention.reshape(dots.shape), regions, gram)
        return found.reshape(captions, count)

    return _similarities(
        dots.reshape(captions, count, -1), context_square,
        word_square=word_square, word_mask=word_mask,
        region_mask=None if region_mask is None else region_mask[None],
        **options,
    )  # fmt: skip


def _similarities(
    dots: jax.Array,
    context_square: Callable[[jax.Array], jax.Array],
    *,
    word_square: jax.Array,
    word_mask: jax.Array,
    region_mask: jax.Array | None,
    temp1: float | jax.Array,
    temp2: float | jax.Array,
    softmax_over_words: bool,
    aggregate: str,
) -> jax.Array:
    """Computes the similarity of each pair from its products of words and regions, float32[B].

    Args:
      dots: products, float32[B, W, P].
      context_square: function from weights of the regions, float32[B, W, P], to the squared norm of
        each word's context, float32[B, W].
      word_square: squared norms of the words, float32[B or 1, W].
      word_mask: mask of the real words, bool[B or 1, W].
      region_mask: mask of the real regions, bool[B or 1, P], or None.
      temp1: factor of the region scores.
      temp2: factor of the cosines of words.
      softmax_over_words: order of the softmaxes.
      aggregate: aggregation over words.
    """
    dots = checkpoint_name(dots, PRODUCTS)
    attention = exponentials_of(
        dots,
        word_mask=word_mask,
        region_mask=region_mask,
        temp1=temp1,
        softmax_over_words=softmax_over_words,
    )
    # With context = attention @ regions / total, these are words . context and |context|^2. Divided
    # at the end, the largest arrays are gone through once less. A cosine does not depend on the
    # total, whose gradients from the two would only cancel up to rounding.
    total = jax.lax.stop_gradient(total_of(attention))
    word_context = jnp.sum(attention * dots, axis=-1) / total
    square = context_square(attention) / jnp.square(total)
    cosines = cosine_of_products(word_context, word_square, square)
    return _aggregate(jnp.asarray(temp2, jnp.float32) * cosines, word_mask, aggregate=aggregate)


def _context_square(attention: jax.Array, regions: jax.Array, gram: jax.Array | None) -> jax.Array:
    """Computes |attention @ regions|^2, float32[..., W], from the Gram matrices if there are any.

    The weights of the regions are [..., W, P], the regions [..., P, D], the matrices [..., P, P].
    """
    if gram is None:
        context = jnp.einsum(
            "...wp,...pd->...wd", attention, regions, preferred_element_type=jnp.float32
        )
        return jnp.sum(jnp.square(context), axis=-1)
    return _quadratic(attention, gram)


@jax.custom_jvp
def _quadratic(attention: jax.Array, gram: jax.Array) -> jax.Array:
    """Computes a G a for each word's attention a, float32[..., W], with a symmetric G."""
    return jnp.sum(_pulled(attention, gram) * attention, axis=-1)


@_quadratic.defjvp
def _quadratic_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Derives a G a by a as 2 G a, which saves the product with the transpose of G."""
    (attention, gram), (change, change_of_gram) = primals, tangents
    pulled = checkpoint_name(_pulled(attention, gram), PRODUCTS)
    by_attention = 2 * jnp.sum(pulled * change, axis=-1)
    by_gram = jnp.sum(_pulled(attention, change_of_gram) * attention, axis=-1)
    return jnp.sum(pulled * attention, axis=-1), by_attention + by_gram


def _pulled(attention: jax.Array, gram: jax.Array) -> jax.Array:
    # Entries of the Gram matrix cancel in the sum, so this product needs full precision.
    return jnp.einsum("...wp,...pq->...wq", attention, gram, precision=jax.lax.Precision.HIGHEST)


def exponentials_of(
    dots: jax.Array,
    *,
    word_mask: jax.Array,
    region_mask: jax.Array | None,
    temp1: float | jax.Array,
    softmax_over_words: bool,
) -> jax.Array:
    """Computes attention over regions before it is divided by its sum: float32[B, W, P].

    Args:
      dots: products of words and regions, float32[B, W, P].
      word_mask: mask of the real words, bool[B or 1, W].
      region_mask: mask of the real regions, bool[B or 1, P], or None.
      temp1: factor of the scores.
      softmax_over_words: whether the products first pass through a softmax over words.

    Returns:
      Exponentials in [0, 1], of which the largest of a word is 1; 0 for absent regions. Those of
      absent words are not 0, because no mask of all words and regions is made.
    """
    scores = dots
    if softmax_over_words:
        scores = jax.nn.softmax(
            jnp.where(word_mask[:, :, None], scores, jnp.float32(_ABSENT)), axis=1
        )
    scores = jnp.asarray(temp1, jnp.float32) * scores
    real = None if region_mask is None else region_mask[:, None, :]
    if real is not None:
        scores = jnp.where(real, scores, jnp.float32(_ABSENT))
    # The division removes the maximum again, and with it its gradient.
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=2, keepdims=True))
    # Compilers may round `scores` less in the difference than they do for the maximum.
    above = scores - largest
    above -= jax.lax.stop_gradient(jnp.maximum(above, 0))
    found = jnp.exp(above)
    return found if real is None else jnp.where(real, found, jnp.float32(0))


def total_of(exponentials: jax.Array) -> jax.Array:
    """Returns the sums over regions, float32[B, W]; 1 where an image has no region."""
    total = jnp.sum(exponentials, axis=2)
    return jnp.where(total > 0, total, jnp.float32(1))


def _aggregate(values: jax.Array, mask: jax.Array, *, aggregate: str) -> jax.Array:
    """Computes log(sum, mean or max of exp(values)) over the real words: float32[B].

    The mask of the real words is [B or 1, W].
    """
    values = jnp.where(mask, values, jnp.float32(_ABSENT))
    if aggregate == "max":
        return jnp.max(values, axis=-1)
    total = jax.nn.logsumexp(values, axis=-1)
    if aggregate == "sum":
        return total
    count = jnp.sum(mask.astype(jnp.float32), axis=-1)
    return total - jnp.log(jnp.maximum(count, jnp.float32(1)))
