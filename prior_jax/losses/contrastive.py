"""Contrastive losses between whole images and whole reports."""

import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import weighted_mean

# Stands for a negative that is not there; finite, so that no gradient is NaN.
_ABSENT = -1e30


def paired_contrastive(
    image: jax.Array, text: jax.Array, *, scale: jax.Array, weight: jax.Array
) -> jax.Array:
    """Symmetric cross-entropy over every image-report pair of the global batch.

    Args:
      image: float32[B, D], unit L2 norm over D.
      text: float32[B, D], unit L2 norm over D; row i belongs to image i.
      scale: float32[], inverse temperature, dimensionless, > 0.
      weight: float32[B], 1 for a real pair, 0 for padding.

    Returns:
      float32[], nats per real pair, averaged over the two directions; 0 without a real pair.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: CLIP, arXiv:2103.00020, figure 3; release, codes/prior/models/prior.py,
      `global_alignment_loss`. Differs: padded rows neither count as anchors nor as negatives, and
      the batch is one global array, so no rank offset of labels exists (quirks 18 and 19).
    """
    if image.ndim != 2 or image.shape != text.shape or weight.shape != image.shape[:1]:
        raise ValueError(
            f"image {image.shape}, text {text.shape} and weight {weight.shape}: "
            "accepted [B, D], [B, D] and [B]"
        )
    logits = scale * jnp.einsum("id,jd->ij", image, text, preferred_element_type=jnp.float32)
    return paired_cross_entropy(logits, weight > 0, weight)


def paired_cross_entropy(logits: jax.Array, mask: jax.Array, weight: jax.Array) -> jax.Array:
    """Cross-entropy of a square score matrix against its diagonal, both ways.

    Args:
      logits: float32[N, N].
      mask: bool[N], True on rows (and columns) that exist.
      weight: float32[N], weight of each row in the mean; 0 where `mask` is False.

    Returns:
      float32[], nats, averaged over rows and the two directions; 0 if no row has weight.
    """
    row = jnp.where(mask[None, :], logits, jnp.float32(_ABSENT))
    column = jnp.where(mask[:, None], logits, jnp.float32(_ABSENT))
    rows = jax.nn.logsumexp(row, axis=1) - jnp.diagonal(row)
    columns = jax.nn.logsumexp(column, axis=0) - jnp.diagonal(column)
    return weighted_mean((rows + columns) / 2, weight)
