"""The loss of assigning images and reports to prototypes and predicting each other's assignment."""

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import ABSENT
from prior_jax.losses.normalize import weighted_mean


def sinkhorn(scores: jax.Array, *, mask: jax.Array, epsilon: float, iterations: int) -> jax.Array:
    """Assigns the global batch softly to prototypes, with all prototypes used equally.

    Args:
      scores: scores of each row for each prototype, float32[B, K]; higher is a better fit.
      mask: mask of the real rows, bool[B].
      epsilon: entropy regularisation of the assignment, in units of `scores`, > 0.
      iterations: number of alternating normalisations of prototypes and rows, >= 1.

    Returns:
      Assignment, float32[B, K], without gradient: rows sum to 1, padded rows are 0. With more
      iterations each prototype's total approaches (number of real rows) / K.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent or there is no iteration.

    Source: SwAV, arXiv:2006.09882, section 3.1; MGCA's release, mgca/models/mgca/mgca_module.py
      (epsilon 0.05, 3 iterations). Differs: in logarithms, so that a small epsilon neither
      overflows nor leaves a prototype without a row to divide by.
    """
    if scores.ndim != 2 or mask.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {scores.shape} and mask {mask.shape} must have the shapes [B, K] and [B]."
        )
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}. It must be at least 1.")
    logs = jax.lax.stop_gradient(scores).astype(jnp.float32) / jnp.float32(epsilon)
    absent = jnp.float32(ABSENT)

    def normalise(_, logs):
        logs = jnp.where(mask[:, None], logs, absent)
        logs = logs - jax.nn.logsumexp(logs, axis=0, keepdims=True)
        return logs - jax.nn.logsumexp(logs, axis=1, keepdims=True)

    logs = jax.lax.fori_loop(0, iterations, normalise, logs)
    return jnp.where(mask[:, None], jnp.exp(logs), jnp.float32(0))


def swapped_assignment(
    image_scores: jax.Array,
    text_scores: jax.Array,
    *,
    temperature: float,
    epsilon: float,
    iterations: int,
    weight: jax.Array,
) -> jax.Array:
    """Computes the loss of each modality predicting the other's prototype assignment.

    Args:
      image_scores: cosines of images and prototypes, float32[B, K].
      text_scores: cosines of reports and prototypes, float32[B, K]; row i belongs to image i.
      temperature: temperature of the prediction, > 0; MGCA 0.2.
      epsilon: entropy regularisation of the assignment, see `sinkhorn`.
      iterations: number of iterations of the assignment, see `sinkhorn`.
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.

    Returns:
      Loss, float32[], nats per real pair, averaged over the two directions; 0 without a real pair.
      The assignments are targets: no gradient flows into them.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: MGCA, arXiv:2210.06044, section 3.4; its release, mgca/models/mgca/mgca_module.py.
      Differs: padded rows take part in no assignment.
    """
    if image_scores.shape != text_scores.shape or weight.shape != image_scores.shape[:1]:
        raise ValueError(
            f"image_scores {image_scores.shape}, text_scores {text_scores.shape} and weight "
            f"{weight.shape} must have the shapes [B, K], [B, K] and [B]."
        )

    def direction(target: jax.Array, scores: jax.Array) -> jax.Array:
        code = sinkhorn(target, mask=weight > 0, epsilon=epsilon, iterations=iterations)
        return -jnp.sum(code * jax.nn.log_softmax(scores / jnp.float32(temperature)), axis=1)

    rows = direction(image_scores, text_scores) + direction(text_scores, image_scores)
    return weighted_mean(rows / 2, weight)
