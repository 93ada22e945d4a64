"""The losses of `contrastive`, `sigmoid` and `word_region` without a [B, B] array.

Values and gradients equal those of the plain forms, up to rounding; see `ring` for the derivation.
"""

import functools

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import Directions, check_pairs
from prior_jax.losses.normalize import cosine_of_products, weighted_mean
from prior_jax.losses.ring import Side, ring_cross_entropies, ring_row_sums
from prior_jax.losses.ring_walk import Plan
from prior_jax.losses.word_region import check_contrast, real_pairs
from prior_jax.losses.word_region_scores import compare_caption, gram_of


def ring_paired_contrastive(
    image: jax.Array,
    text: jax.Array,
    *,
    scale: jax.Array,
    weight: jax.Array,
    image_share: float = 0.5,
    plan: Plan,
) -> jax.Array:
    """Computes `contrastive.paired_contrastive` block by block.

    Args:
      image: image embeddings, float32[B, D], unit L2 norm over D.
      text: text embeddings, float32[B, D], unit L2 norm over D; row i belongs to image i.
      scale: inverse temperature, float32[], > 0.
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      image_share: weight of the direction in which an image chooses among reports.
      plan: block sizes and ring axis.

    Returns:
      Loss, float32[], nats per real pair; 0 without a real pair.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent or the plan does not match the
        mesh.
    """
    check_pairs(image, text, weight)
    found = _directions(_scaled_dots, jnp.asarray(scale, jnp.float32), image, text, weight, plan)
    return image_share * found.image_to_text + (1 - image_share) * found.text_to_image


def ring_cosine_contrastive(
    image: jax.Array, text: jax.Array, *, scale: jax.Array, weight: jax.Array, plan: Plan
) -> Directions:
    """Computes `contrastive.cosine_contrastive` block by block.

    Args:
      image: image embeddings, [B, D], of any norm.
      text: text embeddings, [B, D], of any norm; row i belongs to image i.
      scale: factor of the cosines, float32[], > 0.
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      plan: block sizes and ring axis.

    Returns:
      Two losses, float32[] each, nats per real pair; 0 without a real pair.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent or the plan does not match the
        mesh.
    """
    check_pairs(image, text, weight)
    return _directions(_scaled_cosines, jnp.asarray(scale, jnp.float32), image, text, weight, plan)


def ring_paired_sigmoid(
    image: jax.Array,
    text: jax.Array,
    *,
    scale: jax.Array,
    bias: jax.Array,
    weight: jax.Array,
    plan: Plan,
) -> jax.Array:
    """Computes `sigmoid.paired_sigmoid` block by block.

    Args:
      image: image embeddings, float32[B, D], unit L2 norm over D.
      text: text embeddings, float32[B, D], unit L2 norm over D; row i belongs to image i.
      scale: inverse temperature, float32[], > 0.
      bias: bias added to every logit, float32[].
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      plan: block sizes and ring axis.

    Returns:
      Loss, float32[], nats per real image, the sum over its B reports; 0 without a real pair.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent or the plan does not match the
        mesh.

    Source: SigLIP, arXiv:2303.15343, section 3.3, which also passes the texts around.
    """
    check_pairs(image, text, weight)
    parameters = jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)
    found = ring_row_sums(
        _signed_logs, parameters, image, (text, weight), mask=weight > 0, plan=plan
    )
    return -weighted_mean(found, weight)


def ring_word_region_contrast(
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
    plan: Plan,
) -> Directions:
    """Computes `word_region.word_region_contrast` block by block.

    The captions are passed round the ring, because they are smaller than the regions (GLoRIA: 97
    words against 361 regions and their Gram matrix), which stay with their images. A block compares
    `plan.columns` captions, the plain form's `chunk`, with `plan.rows` images; memory grows with
    rows x columns x W x P.

    Args:
      words: word embeddings, [B, W, D], row i belongs to image i.
      regions: region embeddings, [B, P, D].
      word_mask: mask of the real words, bool[B, W].
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      region_mask: mask of the real regions, bool[B, P]; None if all regions are real.
      temp1: factor of the scores in the softmax over regions.
      temp2: factor of the cosines of words.
      temp3: factor of the similarities of captions.
      softmax_over_words: order of the softmaxes, see `word_region.word_region_attention`.
      aggregate: aggregation over words, see `word_region.word_region_similarity`.
      plan: block sizes and ring axis.

    Returns:
      Two losses, float32[] each, nats per real pair; a pair without a word or a region is padding.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent, the plan does not match the mesh,
        or the aggregate is unknown.
    """
    check_contrast(
        words, regions, word_mask=word_mask, region_mask=region_mask, weight=weight,
        aggregate=aggregate,
    )  # fmt: skip
    weight = real_pairs(weight, word_mask=word_mask, region_mask=region_mask)
    scores = functools.partial(
        _word_region, softmax_over_words=softmax_over_words, aggregate=aggregate
    )
    temperatures = tuple(jnp.asarray(value, jnp.float32) for value in (temp1, temp2, temp3))
    return _directions(
        scores, temperatures, (regions, gram_of(regions)), words, weight, plan,
        image_facts=region_mask, text_facts=word_mask,
    )  # fmt: skip


def _directions(
    scores, parameters, images, texts, weight, plan, *, image_facts=None, text_facts=None
) -> Directions:
    rows, columns = ring_cross_entropies(
        scores, parameters, images, texts,
        image_facts=image_facts, text_facts=text_facts, mask=weight > 0, plan=plan,
    )  # fmt: skip
    return Directions(
        image_to_text=weighted_mean(rows, weight), text_to_image=weighted_mean(columns, weight)
    )


def _dots(image: jax.Array, text: jax.Array) -> jax.Array:
    return jnp.einsum("id,jd->ij", image, text, preferred_element_type=jnp.float32)


def _scaled_dots(scale: jax.Array, image: Side, text: Side) -> jax.Array:
    return scale * _dots(image.features, text.features)


def _scaled_cosines(scale: jax.Array, image: Side, text: Side) -> jax.Array:
    square_image, square_text = (
        jnp.sum(jnp.square(side.features.astype(jnp.float32)), axis=1) for side in (image, text)
    )
    dots = _dots(image.features, text.features)
    return scale * cosine_of_products(dots, square_image[:, None], square_text[None, :])


def _signed_logs(parameters, image: Side, text: Side) -> jax.Array:
    """Computes each pair's log-probability of the right answer times the text's weight."""
    scale, bias = parameters
    vectors, weight = text.features
    logits = scale * _dots(image.features, vectors) + bias
    matches = image.place[:, None] == text.place[None, :]
    return weight[None, :] * jax.nn.log_sigmoid(jnp.where(matches, logits, -logits))


def _word_region(
    temperatures, image: Side, text: Side, *, softmax_over_words: bool, aggregate: str
) -> jax.Array:
    temp1, temp2, temp3 = temperatures
    regions, gram = image.features
    compare = functools.partial(
        compare_caption,
        regions=regions,
        region_mask=image.facts,
        gram=gram,
        temp1=temp1,
        temp2=temp2,
        softmax_over_words=softmax_over_words,
        aggregate=aggregate,
    )
    return temp3 * jax.vmap(compare)(text.features, text.facts).T
