"""Norms, cosines and means that stay finite on zero vectors and empty masks."""

import jax
import jax.numpy as jnp


def unit(x: jax.Array, *, eps: float = 1e-12) -> jax.Array:
    """Scales the last axis to unit L2 norm.

    Args:
      x: input vectors, [..., D], any float dtype.
      eps: largest norm that is treated as zero.

    Returns:
      Unit vectors, float32[..., D]; a zero vector gives a zero vector and a zero gradient, where
      `torch.nn.functional.normalize` has a gradient of 1 / eps.
    """
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    present = square > eps * eps
    inverse = jax.lax.rsqrt(jnp.where(present, square, jnp.float32(1)))
    return x * jnp.where(present, inverse, jnp.float32(0))


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes cosines over the last axis: float32[...]; 0, with zero gradient, at zero vectors.

    Source: torch.nn.functional.cosine_similarity, eps 1e-8.
    """
    return jnp.sum(unit(a, eps=1e-8) * unit(b, eps=1e-8), axis=-1)


def cosine_of_products(
    dot: jax.Array, square_a: jax.Array, square_b: jax.Array, *, eps: float = 1e-8
) -> jax.Array:
    """Computes the cosines of vectors from their dot products.

    Args:
      dot: dot products of each a with its b, float32[...].
      square_a: squared norms of a, float32[...]; negative values from rounding are treated as 0.
      square_b: squared norms of b, float32[...].
      eps: smallest product of the two norms used as divisor.

    Returns:
      Cosines, float32[...], 0 where a or b is zero. The gradient with respect to a zero vector is
      the other vector / eps: finite, and as large as torch's.

    Source: GLoRIA's release, gloria/loss/gloria_loss.py, `cosine_similarity` (quirk G5).
    """
    norms = _root(square_a) * _root(square_b)
    return dot / jnp.maximum(norms, jnp.float32(eps))


def _root(square: jax.Array) -> jax.Array:
    """Computes the square root, whose gradient at 0 is 0 instead of infinity."""
    positive = square > 0
    root = jnp.sqrt(jnp.where(positive, square, jnp.float32(1)))
    return jnp.where(positive, root, jnp.float32(0))


def weighted_mean(value: jax.Array, weight: jax.Array) -> jax.Array:
    """Computes the weighted mean of `value`: float32[], 0 if all weights are 0.

    The weights have the shape of `value`. Values whose weight is 0 may be anything, even NaN: they
    affect neither the mean nor its gradient.
    """
    if value.shape != weight.shape:
        raise ValueError(f"value {value.shape} and weight {weight.shape} must have equal shapes.")
    weight = weight.astype(jnp.float32)
    kept = jnp.where(weight > 0, value.astype(jnp.float32), jnp.float32(0))
    total = jnp.sum(weight)
    return jnp.sum(kept * weight) / jnp.where(total > 0, total, jnp.float32(1))
