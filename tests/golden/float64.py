"""Runs our float32 code in float64, where rounding is no excuse.

The code names its precision `jnp.float32` wherever it has to; for a while that name is float64.
"""

import contextlib

import jax
import jax.numpy as jnp


@contextlib.contextmanager
def double_precision():
    """Arrays made, and functions traced, inside are float64."""
    single = jnp.float32
    jnp.float32 = jnp.float64
    try:
        with jax.enable_x64(True):
            yield
    finally:
        jnp.float32 = single
