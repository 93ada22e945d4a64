"""Losses of the prototype bank, and of reconstructing one modality from the other."""

import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import weighted_mean


def image_l1(output: jax.Array, target: jax.Array, *, weight: jax.Array) -> jax.Array:
    """Computes the mean absolute difference of two images.

    Args:
      output: reconstructed images, [B, H, W, C].
      target: normalised target images, [B, H, W, C].
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.

    Returns:
      Loss, float32[], in units of the image's standard deviation; mean over pixels and real images.

    Raises:
      ValueError: during tracing, if the shapes differ.

    Source: PRIOR, arXiv:2307.12577, section 3.4; release, codes/prior/decoders/image.py.
    """
    if output.shape != target.shape or output.ndim != 4:
        raise ValueError(
            f"output {output.shape} and target {target.shape} must have one shape [B, H, W, C]."
        )
    error = jnp.abs(output.astype(jnp.float32) - target.astype(jnp.float32))
    return weighted_mean(jnp.mean(error, axis=(1, 2, 3)), weight)


def prototype_l1(rows: jax.Array, prototypes: jax.Array, *, weight: jax.Array) -> jax.Array:
    """Computes the mean absolute difference between sentences and their prototypes.

    Gradient flows into both.

    Args:
      rows: sentence embeddings, [B, S, D].
      prototypes: mixtures of prototypes that the bank returned for the sentences, [B, S, D].
      weight: weight of each sentence, float32[B, S], 1 for a real sentence, 0 on padding.

    Returns:
      Loss, float32[], mean over features and real sentences of the global batch (quirk P20: the
      release averages over each rank's sentences, then over ranks).

    Source: PRIOR, arXiv:2307.12577, section 3.3; release, codes/prior/modules/spb.py.
    """
    error = jnp.abs(rows.astype(jnp.float32) - prototypes.astype(jnp.float32))
    return weighted_mean(jnp.mean(error, axis=-1), weight)


def prototype_kl(
    target_logits: jax.Array,
    logits: jax.Array,
    *,
    weight: jax.Array,
    stop_target_gradient: bool,
) -> jax.Array:
    """Computes KL(target || prediction) between two distributions over the prototypes.

    Args:
      target_logits: logits of the real sentences, float32[B, S, K].
      logits: logits of the predicted sentences, float32[B, S, K].
      weight: weight of each sentence, float32[B, S], 1 for a real sentence, 0 on padding.
      stop_target_gradient: whether the target gets no gradient. The release lets the gradient flow
        into the target (quirk P7), which also pulls the sentences towards the prediction.

    Returns:
      Loss, float32[], nats per real sentence, without temperature or noise.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: release, codes/prior/modules/spb.py, `cal_loss`.
    """
    if target_logits.shape != logits.shape or weight.shape != logits.shape[:-1]:
        raise ValueError(
            f"target_logits {target_logits.shape}, logits {logits.shape} and weight "
            f"{weight.shape} must have the shapes [B, S, K], [B, S, K] and [B, S]."
        )
    if stop_target_gradient:
        target_logits = jax.lax.stop_gradient(target_logits)
    target = jax.nn.log_softmax(target_logits, axis=-1)
    predicted = jax.nn.log_softmax(logits, axis=-1)
    return weighted_mean(jnp.sum(jnp.exp(target) * (target - predicted), axis=-1), weight)


def matched_l1(
    predicted: jax.Array,
    targets: jax.Array,
    *,
    mask: jax.Array,
    weight: jax.Array,
    ignore_padding: bool,
) -> jax.Array:
    """Computes the L1 between predicted prototypes and targets that are in the same order.

    Args:
      predicted: predicted prototypes, [B, Q, D], already in the order of the targets.
      targets: target prototypes, [B, Q, D], 0 where `mask` is False; gradient flows into them
        (quirk P5).
      mask: mask of the real sentences, bool[B, Q].
      weight: weight of each report, float32[B], 1 for a real report, 0 for padding.
      ignore_padding: True averages over a report's sentences; False averages over all Q slots,
        which pulls the queries without a sentence to 0 (quirk P4).

    Returns:
      Loss, float32[], mean over features, slots and then real reports.

    Source: PRIOR, arXiv:2307.12577, section 3.4; release, codes/prior/models/prior.py, `spg_loss`.
    """
    error = jnp.mean(jnp.abs(predicted.astype(jnp.float32) - targets.astype(jnp.float32)), axis=-1)
    slots = mask.astype(jnp.float32) if ignore_padding else jnp.ones_like(error)
    return weighted_mean(jax.vmap(weighted_mean)(error, slots), weight)
