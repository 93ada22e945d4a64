import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.losses.token_wise import token_attention, token_context

SCALE = jnp.full((), 3.0, jnp.float32)


def tokens():
    keys = jax.random.split(jax.random.key(0), 2)
    queries = jax.random.normal(keys[0], (2, 3, 5), jnp.float32)
    keys = jax.random.normal(keys[1], (2, 4, 5), jnp.float32)
    return queries, keys, jnp.arange(4)[None, :] < jnp.array([[4], [2]])


def by_loop(queries, keys, mask):
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)
    attention = np.zeros((2, 3, 4))
    context = np.zeros(queries.shape)
    for b in range(2):
        for q in range(3):
            query = queries[b, q] / np.linalg.norm(queries[b, q])
            places = np.flatnonzero(mask[b])
            values = [keys[b, k] / np.linalg.norm(keys[b, k]) for k in places]
            share = np.exp([3.0 * query @ value for value in values])
            attention[b, q, places] = share / share.sum()
            context[b, q] = sum(a * v for a, v in zip(share / share.sum(), values, strict=True))
    return attention, context


def test_attention_and_context_are_those_of_a_loop():
    queries, keys, mask = tokens()
    attention, context = by_loop(queries, keys, mask)
    found = token_attention(queries, keys, key_mask=mask, scale=SCALE)
    np.testing.assert_allclose(found, attention, rtol=1e-5, atol=1e-7)
    found = token_context(queries, keys, key_mask=mask, scale=SCALE)
    np.testing.assert_allclose(found, context, rtol=1e-5, atol=1e-6)


def test_absent_keys_change_neither_value_nor_gradient():
    queries, keys, mask = tokens()

    def total(queries, keys, mask):
        context = token_context(queries, keys, key_mask=mask, scale=SCALE)
        return jnp.sum(jnp.sin(context))

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    value, grads = both(queries, keys, mask)
    junk = jnp.pad(keys, ((0, 0), (0, 2), (0, 0)), constant_values=jnp.nan)
    padded, padded_grads = both(queries, junk, jnp.pad(mask, ((0, 0), (0, 2))))
    np.testing.assert_allclose(padded, value, rtol=1e-6)
    np.testing.assert_allclose(padded_grads[0], grads[0], atol=1e-6)
    np.testing.assert_allclose(padded_grads[1][:, :4], grads[1], atol=1e-6)
    assert not np.any(padded_grads[1][:, 4:])
    assert not np.any(grads[1][1, 2:])


def test_without_a_key_nothing_is_seen():
    queries, keys, mask = tokens()
    assert not np.any(token_context(queries, keys, key_mask=mask & False, scale=SCALE))


def test_mismatched_shapes_are_refused_by_name():
    queries, keys, mask = tokens()
    with pytest.raises(ValueError, match=r"key_mask \(2, 3\)"):
        token_attention(queries, keys, key_mask=mask[:, :3], scale=SCALE)
    with pytest.raises(ValueError, match=r"keys \(2, 4, 4\)"):
        token_attention(queries, keys[..., :4], key_mask=mask, scale=SCALE)
