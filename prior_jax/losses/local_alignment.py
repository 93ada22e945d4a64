"""Losses between the patches of an image and the sentences of its report."""

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import paired_cross_entropy
from prior_jax.losses.normalize import cosine, unit, weighted_mean


def local_image(
    patches: jax.Array,
    context: jax.Array,
    *,
    predicted_patches: jax.Array,
    predicted_context: jax.Array,
    weight: jax.Array,
) -> jax.Array:
    """Computes the negative cosine between each patch and its context in the report.

    The loss has no negatives.

    Args:
      patches: patch embeddings, [B, P, D]; they are targets, so no gradient flows into them.
      context: context that each patch gathered from the sentences, [B, P, D]; also a target without
        gradient.
      predicted_patches: output of the predictor for `patches`, [B, P, D].
      predicted_context: output of the predictor for `context`, [B, P, D].
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.

    Returns:
      Loss, float32[], in [-1, 1]: the mean over patches and real pairs of the two directions.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: SimSiam, arXiv:2011.10566, equation 2; PRIOR, arXiv:2307.12577, section 3.2; release,
      codes/prior/models/prior.py, `simsiam_loss_func` (quirk P21).
    """
    shapes = {x.shape for x in (patches, context, predicted_patches, predicted_context)}
    if len(shapes) != 1 or patches.ndim != 3 or weight.shape != patches.shape[:1]:
        raise ValueError(
            f"patches {patches.shape}, context {context.shape}, predicted_patches "
            f"{predicted_patches.shape}, predicted_context {predicted_context.shape} and weight "
            f"{weight.shape} must have the shapes [B, P, D], four times, and [B]."
        )
    from_patches = cosine(predicted_patches, jax.lax.stop_gradient(context))
    from_context = cosine(predicted_context, jax.lax.stop_gradient(patches))
    return weighted_mean(-jnp.mean(from_patches + from_context, axis=1) / 2, weight)


def local_text(
    sentences: jax.Array,
    context: jax.Array,
    *,
    scale: jax.Array,
    mask: jax.Array,
    weight: jax.Array,
    normalize: bool = True,
) -> jax.Array:
    """Contrasts each sentence with its context in the image, against others of its report.

    The negatives are the other sentences of the same report.

    Args:
      sentences: sentence embeddings, [B, S, D].
      context: context that each sentence gathered from the patches, [B, S, D].
      scale: inverse temperature, float32[], > 0.
      mask: mask of the real sentences, bool[B, S].
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      normalize: whether `sentences` and `context` are first scaled to unit norm, as PRIOR does.

    Returns:
      Loss, float32[], nats: the mean over a report's sentences and both directions, then over real
      pairs. A report of one sentence has no negative: it adds 0 and counts in the mean.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: PRIOR, arXiv:2307.12577, section 3.2; release, codes/prior/models/prior.py,
      `text_local_loss_fn` (quirk P21).
    """
    if sentences.shape != context.shape or sentences.ndim != 3:
        raise ValueError(
            f"sentences {sentences.shape} and context {context.shape} must have one shape, "
            "[B, S, D]."
        )
    if mask.shape != sentences.shape[:2] or weight.shape != mask.shape[:1]:
        raise ValueError(
            f"mask {mask.shape} and weight {weight.shape} must have the shapes "
            f"{sentences.shape[:2]} and {sentences.shape[:1]}."
        )
    if normalize:
        sentences, context = unit(sentences), unit(context)
    logits = scale * jnp.einsum(
        "bsd,btd->bst", sentences, context, preferred_element_type=jnp.float32
    )
    per_report = jax.vmap(paired_cross_entropy)(logits, mask, mask.astype(jnp.float32))
    return weighted_mean(per_report, weight)
