"""Dropout with explicit keys: a module without a key applies no dropout."""

import jax
import jax.numpy as jnp


def dropout(
    x: jax.Array, *, rate: float, key: jax.Array | None, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """Zeroes a random share of x and scales the rest so that the expectation stays the same.

    Args:
      x: input array of any shape.
      rate: probability of a zero, in [0, 1), rounded to 1/65536.
      key: random key of the draw; None disables dropout (evaluation).
      shape: shape of the random mask, which is broadcast to x; by default the shape of x. (B, 1, 1,
        C) drops whole channels.

    Returns:
      Array with the shape and dtype of x.

    Source: arXiv:1207.0580. Drawing 16 random bits per element halves the generator's work.
    """
    threshold = round(rate * 65536)
    if key is None or threshold == 0:
        return x
    shape = x.shape if shape is None else shape
    # The draw leaves out axes of size 1, whose layouts are slow to compile, and is made once: it is
    # long arithmetic, which the compiler would otherwise repeat in each consumer of the bits.
    bits = jax.random.bits(key, tuple(size for size in shape if size > 1), jnp.uint16)
    keep = jax.lax.optimization_barrier(bits).reshape(shape) >= jnp.uint16(threshold)
    # In bfloat16 the factor itself would be rounded, and with it the expectation of every element.
    scaled = (x.astype(jnp.float32) * jnp.float32(65536 / (65536 - threshold))).astype(x.dtype)
    return jnp.where(keep, scaled, jnp.zeros_like(x))


def fold(key: jax.Array | None, site: int | jax.Array) -> jax.Array | None:
    """Derives the key of one call site from `key`; a key of None stays None (no dropout).

    Args:
      key: random key, or None.
      site: number of the call site, e.g. the index of a layer.

    Returns:
      The derived key or None.
    """
    return None if key is None else jax.random.fold_in(key, site)


def training_key(
    key: jax.Array | None, *, train: bool, rate: float, module: str
) -> jax.Array | None:
    """Returns the dropout key to use: None outside training; refuses a missing key in training.

    Args:
      key: random key that the caller passed.
      train: whether the module is in training mode.
      rate: dropout rate; at 0 no key is needed.
      module: name of the module in the error message.

    Returns:
      The key, or None for no dropout.

    Raises:
      ValueError: in training with a rate above 0 and no key.
    """
    if not train:
        return None
    if key is None and rate > 0:
        raise ValueError(f"{module} drops at rate {rate} in training: it needs a key, got None")
    return key
