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
