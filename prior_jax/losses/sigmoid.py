"""The sigmoid loss: every image-report pair is a yes-or-no question of its own."""

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import check_pairs


def paired_sigmoid(
    image: jax.Array, text: jax.Array, *, scale: jax.Array, bias: jax.Array, weight: jax.Array
) -> jax.Array:
    """Binary cross-entropy over every image-report pair of the global batch.

    Args:
      image: float32[B, D], unit L2 norm over D.
      text: float32[B, D], unit L2 norm over D; row i belongs to image i.
      scale: float32[], inverse temperature, dimensionless, > 0.
      bias: float32[], added to every logit; SigLIP starts it at -10, as most pairs do not match.
      weight: float32[B], 1 for a real pair, 0 for padding.

    Returns:
      float32[], nats per real image: the sum over its B reports, not their mean; 0 without a real
      pair.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: SigLIP, arXiv:2303.15343, section 3.2, equation 2 and algorithm 1. Differs: padded rows
      are in no pair, and the batch is one global array; `ring_pairs` passes it around in chunks.
    """
    check_pairs(image, text, weight)
    logits = jnp.einsum("id,jd->ij", image, text, preferred_element_type=jnp.float32)
    logits = scale * logits + bias
    matches = jnp.eye(logits.shape[0], dtype=bool)
    pair = weight[:, None] * weight[None, :]
    # A pair that is not there may hold anything, even NaN.
    signed = jnp.where(pair > 0, jnp.where(matches, logits, -logits), jnp.float32(0))
    total = jnp.sum(weight)
    return -jnp.sum(pair * jax.nn.log_sigmoid(signed)) / jnp.where(total > 0, total, 1)
