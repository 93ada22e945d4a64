"""Learned inverse temperatures, stored as logarithms and clamped from above."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_field

MAX_SCALE = 100
"""The most that logits are scaled by: CLIP, arXiv:2103.00020, section 2.5."""
MAX_LOG_SCALE = math.log(MAX_SCALE)


def check_learned_temperatures(config: Any, *fields: str) -> None:
    """Refuses initial temperatures whose inverse, which is learned, is clamped at once.

    Args:
      config: dataclass with the temperatures.
      *fields: names of the fields that hold them.

    Raises:
      ConfigError: naming the field.
    """
    must_be = f"at least {1 / MAX_SCALE}: its inverse is learned, and at most {MAX_SCALE}"
    for field in fields:
        check_field(config, field, getattr(config, field) >= 1 / MAX_SCALE, must_be)


def log_scale(temperature: float) -> nnx.Param:
    """Creates the parameter whose exponential is 1 / temperature: float32[]."""
    return nnx.Param(jnp.full((), -math.log(temperature), jnp.float32))


@jax.custom_vjp
def clamp_from_above(log_scale: jax.Array) -> jax.Array:
    """Computes min(log_scale, ln 100), with a gradient that still lowers it at the limit.

    A plain minimum has no gradient at and above the limit. An initial temperature of 0.01 lies
    exactly at the limit, so the temperature could never rise. Source: CLIP, arXiv:2103.00020,
    section 2.5.
    """
    return jnp.minimum(log_scale, jnp.float32(MAX_LOG_SCALE))


def _clamp_forward(log_scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    return clamp_from_above(log_scale), log_scale >= MAX_LOG_SCALE


def _clamp_backward(at_limit: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(at_limit, jnp.maximum(gradient, 0), gradient),)


clamp_from_above.defvjp(_clamp_forward, _clamp_backward)
