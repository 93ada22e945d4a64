"""Losses of labels that may be unknown: binary for each class, or over classes of which one holds.

Padded rows and unknown labels count neither in a sum nor in the number that it is divided by.
"""

import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import weighted_mean


def binary_losses(
    logits: jax.Array, target: jax.Array, *, known: jax.Array, weight: jax.Array
) -> jax.Array:
    """Averages the binary cross-entropy over the known labels of real rows.

    Args:
      logits: logits of the classes, float32[B, K].
      target: 1 for a positive label, 0 for a negative one, float32[B, K]; any number where it is
        unknown.
      known: 1 for a known label, 0 for one that does not count, float32[B, K].
      weight: 1 for a real row, 0 for padding, float32[B].

    Returns:
      float32[], nats per known label; 0 without one.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: torch's `binary_cross_entropy_with_logits` with mean reduction (GLoRIA, MGCA, BenchX),
    to which it is equal if every label is known.
    """
    logits = logits.astype(jnp.float32)
    losses = jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return weighted_mean(losses, known * weight[:, None])


def exclusive_loss(
    logits: jax.Array, index: jax.Array, *, known: jax.Array, weight: jax.Array
) -> jax.Array:
    """Averages the cross-entropy over the real rows whose class is known.

    Args:
      logits: logits of the classes, float32[B, L].
      index: class of each row, int32[B], 0..L-1; any of these where it is unknown.
      known: 1 for a row of known class, else 0, float32[B].
      weight: 1 for a real row, 0 for padding, float32[B].

    Returns:
      float32[], nats per row of known class; 0 without one.

    Source: torch's `cross_entropy` with mean reduction (MGCA's COVIDx; BenchX's RSNA, SIIM and
    COVIDx), to which it is equal if every class is known.
    """
    scores = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    losses = -jnp.take_along_axis(scores, index[:, None], axis=-1)[:, 0]
    return weighted_mean(losses, known * weight)


def log_odds(logits: jax.Array) -> jax.Array:
    """Returns each class's log-odds against all others, of logits whose softmax is meant.

    Their sigmoid is the softmax, so that exclusive and independent classes are scored alike.

    Args:
      logits: logits of L classes of which one holds, float32[B, L]; L >= 2.

    Returns:
      float32[B, L].
    """
    own = jnp.eye(logits.shape[-1], dtype=bool)[None]
    others = jnp.where(own, -jnp.inf, logits[:, None, :])
    return logits - jax.nn.logsumexp(others, axis=-1)
