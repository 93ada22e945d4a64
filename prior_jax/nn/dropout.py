"""Dropout with explicit keys: a module without a key does not drop."""

import jax
import jax.numpy as jnp


def dropout(
    x: jax.Array, *, rate: float, key: jax.Array | None, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """Zeroes a random share of x and scales the rest so that the mean stays.

    Args:
      x: any shape.
      rate: probability of a zero, in [0, 1), rounded to 1/65536.
      key: the draw's key; None means no dropout (evaluation).
      shape: shape of the draw, broadcast to x; x's by default. (B, 1, 1, C) drops channels.

    Returns:
      x's shape and dtype.

    Source: arXiv:1207.0580. Sixteen random bits an element halve the generator's work.
    """
    threshold = round(rate * 65536)
    if key is None or threshold == 0:
        return x
    shape = x.shape if shape is None else shape
    # Drawn without axes of one element, whose layouts cost a compiler much, and once: the draw is
    # long arithmetic, which the compiler would else repeat within each user of the bits.
    bits = jax.random.bits(key, tuple(size for size in shape if size > 1), jnp.uint16)
    keep = jax.lax.optimization_barrier(bits).reshape(shape) >= jnp.uint16(threshold)
    scale = jnp.asarray(65536 / (65536 - threshold), x.dtype)
    return jnp.where(keep, x * scale, jnp.zeros_like(x))


def fold(key: jax.Array | None, site: int | jax.Array) -> jax.Array | None:
    """The key of one place below `key`; None, no dropout, stays None.

    Args:
      key: a key or None.
      site: number of the place, e.g. a layer's index.

    Returns:
      The folded key or None.
    """
    return None if key is None else jax.random.fold_in(key, site)


def training_key(
    key: jax.Array | None, *, train: bool, rate: float, module: str
) -> jax.Array | None:
    """The dropout key to use: None outside training; a missing one in training is refused.

    Args:
      key: the key as handed over.
      train: whether the module trains.
      rate: dropout rate; at 0 no key is needed.
      module: name for the message.

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
