"""The sigmoid loss: a binary classification of every image-report pair."""

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import check_pairs


def paired_sigmoid(
    image: jax.Array, text: jax.Array, *, scale: jax.Array, bias: jax.Array, weight: jax.Array
) -> jax.Array:
    """Computes the binary cross-entropy over every image-report pair of the global batch.

    Args:
      image: image embeddings, float32[B, D], unit L2 norm over D.
      text: text embeddings, float32[B, D], unit L2 norm over D; row i belongs to image i.
      scale: inverse temperature, float32[], dimensionless, > 0.
      bias: bias added to every logit, float32[]; SigLIP starts it at -10, because most pairs do not
        match.
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.

    Returns:
      Loss, float32[], nats per real image: the sum over its B reports, not their mean; 0 without a
      real pair.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: SigLIP, arXiv:2303.15343, section 3.2, equation 2 and algorithm 1. Differs: padded rows
      are in no pair, and the batch is one global array; `ring_pairs` passes it around in chunks.
    """
    check_pairs(image, text, weight)
    logits = jnp.einsum("id,jd->ij", image, text, preferred_element_type=jnp.float32)
    logits = scale * logits + bias
    matches = jnp.eye(logits.shape[0], dtype=bool)
    pair = weight[:, None] * weight[None, :]
    # An absent pair may hold any value, even NaN.
    signed = jnp.where(pair > 0, jnp.where(matches, logits, -logits), jnp.float32(0))
    total = jnp.sum(weight)
    return -jnp.sum(pair * jax.nn.log_sigmoid(signed)) / jnp.where(total > 0, total, 1)
