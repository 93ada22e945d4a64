"""Attention of the transformer layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.nn.transformer import attend

BATCH, LENGTH, HEADS, SIZE = 2, 6, 2, 8


def plain(query, key, value):
    """Attention in float32 by `jax.nn.dot_product_attention`."""
    split = (x.reshape(BATCH, LENGTH, HEADS, SIZE // HEADS) for x in (query, key, value))
    return jax.nn.dot_product_attention(*split).reshape(BATCH, LENGTH, SIZE)


def differentiated(function, inputs):
    weight = jnp.sin(jnp.arange(BATCH * LENGTH * SIZE, dtype=jnp.float32))
    weight = weight.reshape(BATCH, LENGTH, SIZE)

    def loss(*inputs):
        mixed = function(*inputs)
        return jnp.sum(mixed.astype(jnp.float32) * weight), mixed

    (_, mixed), grads = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*inputs)
    return mixed, *grads


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_attention_and_its_gradient_are_those_of_jax(dtype, tolerance):
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = [jax.random.normal(key, (BATCH, LENGTH, SIZE)).astype(dtype) for key in keys]
    found = differentiated(lambda q, k, v: attend(q, k, v, heads=HEADS, bias=None), inputs)
    expected = differentiated(plain, [x.astype(jnp.float32) for x in inputs])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        theirs = np.asarray(theirs)
        ours = np.asarray(ours, np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
