import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.nn.token_pool import MeanQueryPool, pool_tokens


def tokens(batch=2, count=4, features=6):
    x = jax.random.normal(jax.random.key(0), (batch, count, features), jnp.float32)
    return x, jnp.arange(count)[None, :] < jnp.array([[4], [2]])


def made():
    return MeanQueryPool(6, heads=2, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_pools_without_parameters():
    x, mask = tokens()
    host = np.asarray(x)
    np.testing.assert_array_equal(pool_tokens(x, mask, pool="first"), host[:, 0])
    mean = np.stack([host[0].mean(0), host[1, :2].mean(0)])
    np.testing.assert_allclose(pool_tokens(x, mask, pool="mean"), mean, rtol=1e-5, atol=1e-7)
    most = np.stack([host[0].max(0), host[1, :2].max(0)])
    np.testing.assert_array_equal(pool_tokens(x, mask, pool="max"), most)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_padding_changes_neither_value_nor_gradient(pool):
    x, mask = tokens()
    value, grad = jax.value_and_grad(lambda x: jnp.sum(pool_tokens(x, mask, pool=pool) ** 2))(x)
    junk = jnp.where(mask[..., None], x, jnp.nan)
    padded = jax.value_and_grad(lambda x: jnp.sum(pool_tokens(x, mask, pool=pool) ** 2))(junk)
    np.testing.assert_allclose(padded[0], value)
    np.testing.assert_allclose(padded[1], grad)
    assert not np.any(pool_tokens(x, mask & False, pool=pool))


def test_an_unknown_pool_is_refused_by_name():
    with pytest.raises(ValueError, match="'last'"):
        pool_tokens(*tokens(), pool="last")
    with pytest.raises(ValueError, match="features 6"):
        MeanQueryPool(6, heads=4, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_the_mean_asks_and_the_shares_are_those_of_a_loop():
    pool, (x, mask) = made(), tokens()
    pooled, share = pool(x, mask)

    def linear(part, rows):
        return rows @ np.asarray(part.kernel[...]) + np.asarray(part.bias[...])

    for b in range(2):
        real = np.asarray(x[b])[np.asarray(mask[b])]
        query = linear(pool.query, real.mean(axis=0)).reshape(2, 3)
        key, value = (linear(part, real).reshape(-1, 2, 3) for part in (pool.key, pool.value))
        weights = np.exp(np.einsum("hd,khd->hk", query, key) / 3**0.5)
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(share[b][mask[b]], weights.mean(axis=0), rtol=1e-5)
        expected = linear(pool.output, np.einsum("hk,khd->hd", weights, value).reshape(6))
        np.testing.assert_allclose(pooled[b], expected, rtol=1e-4, atol=1e-6)
    assert not np.any(np.asarray(share)[~np.asarray(mask)])


def test_padded_rows_change_neither_output_nor_shares():
    pool, (x, mask) = made(), tokens()
    junk = jnp.where(mask[..., None], x, jnp.nan)
    for mine, theirs in zip(pool(junk, mask), pool(x, mask), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    pooled, share = pool(x, mask & False)
    assert np.all(np.isfinite(pooled))
    assert not np.any(share)
