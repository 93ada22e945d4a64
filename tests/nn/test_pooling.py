"""The maximum of a ResNet's stem, against JAX's own gradient of a maximum over windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.nn.pooling import max_pool_stem


def plain(x):
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


def gradient(function, x, cotangent):
    return jax.jit(lambda x, g: jax.vjp(function, x)[1](g)[0])(x, cotangent)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (1, 1), (2, 5), (1, 6)])
def test_value_and_gradient_are_those_of_the_window(shape, dtype):
    first, second = jax.random.split(jax.random.key(0))
    # Whole numbers, of which many are 0 as after a ReLU, so that most windows have several maxima.
    x = jnp.round(2 * jax.random.normal(first, (2, *shape, 3))).clip(0).astype(dtype)
    np.testing.assert_array_equal(max_pool_stem(x), plain(x))
    cotangent = jnp.round(8 * jax.random.normal(second, plain(x).shape)).astype(dtype)
    found, wanted = (gradient(one, x, cotangent) for one in (max_pool_stem, plain))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(jnp.float32), wanted.astype(jnp.float32))


def test_the_first_of_equal_pixels_has_the_gradient():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1].set(-1.0)
    found = gradient(max_pool_stem, x, jnp.ones((1, 2, 2, 1)))[0, :, :, 0]
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_every_window_has_its_gradient_when_the_input_is_computed_in_the_same_program():
    # XLA may compute the input once for the maximum and once more for its place.
    first, second, third = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(first, (4, 33, 33, 8))
    scale = jax.random.normal(second, (1, 1, 1, 8))
    offset = jax.random.normal(third, (1, 1, 1, 8))

    def through(pool, x):
        mean = jnp.mean(x, axis=(0, 1, 2), keepdims=True)
        return jnp.sum(pool(jax.nn.relu((x - mean) * scale + offset)) ** 2)

    found, wanted = (
        jax.jit(jax.grad(lambda x, pool=pool: through(pool, x)))(x)
        for pool in (max_pool_stem, plain)
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * float(jnp.abs(wanted).max()))
