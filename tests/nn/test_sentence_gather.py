import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.nn.sentence_gather import (
    SentenceAttention,
    compact_sentences,
    fit_sentences,
    mean_sentences,
)

INDEX = jnp.array([[-1, 0, 0, 2, 2, 2, -1, -1], [-1, 1, 1, 1, 0, 0, -1, -1]], jnp.int32)


def tokens():
    return jax.random.normal(jax.random.key(0), (2, 8, 16), jnp.float32)


def pools():
    attention = SentenceAttention(16, dtype=jnp.float32, rngs=nnx.Rngs(0))
    return {"mean": mean_sentences, "attention": attention}


def test_means_of_each_sentence():
    x = np.asarray(tokens())
    sentences, mask = mean_sentences(tokens(), INDEX, num_sentences=4)
    np.testing.assert_array_equal(mask, [[1, 0, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(sentences[0, 0], x[0, 1:3].mean(0), rtol=1e-5)
    np.testing.assert_allclose(sentences[0, 2], x[0, 3:6].mean(0), rtol=1e-5)
    np.testing.assert_allclose(sentences[1, 1], x[1, 1:4].mean(0), rtol=1e-5)
    assert not np.any(np.asarray(sentences)[~np.asarray(mask)])


@pytest.mark.parametrize("name", ["mean", "attention"])
def test_padding_of_tokens_and_sentences_changes_neither_value_nor_gradient(name):
    pool = pools()[name]

    def total(x, index, count):
        sentences, mask = pool(x, index, num_sentences=count)
        return jnp.sum(jnp.sin(sentences)), (sentences, mask)

    grad = jax.value_and_grad(total, has_aux=True)
    (_, (few, _)), few_grad = grad(tokens(), INDEX, 3)
    x = jnp.pad(tokens(), ((0, 0), (0, 4), (0, 0)), constant_values=9.0)
    index = jnp.pad(INDEX, ((0, 0), (0, 4)), constant_values=-1)
    (_, (many, mask)), many_grad = grad(x, index, 6)
    np.testing.assert_allclose(many[:, :3], few, atol=1e-6)
    assert not np.any(mask[:, 3:])
    assert not np.any(many[:, 3:])
    np.testing.assert_allclose(many_grad[:, :8], few_grad, atol=1e-6)
    assert not np.any(many_grad[:, 8:])
    assert not np.any(np.asarray(few_grad)[np.asarray(INDEX) < 0])


@pytest.mark.parametrize("name", ["mean", "attention"])
def test_permuting_tokens_does_not_change_sentences(name):
    order = jax.random.permutation(jax.random.key(1), 8)
    pool = pools()[name]
    here, _ = pool(tokens(), INDEX, num_sentences=3)
    there, _ = pool(tokens()[:, order], INDEX[:, order], num_sentences=3)
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_bfloat16_stays_bfloat16_and_near():
    exact, _ = mean_sentences(tokens(), INDEX, num_sentences=3)
    near, _ = mean_sentences(tokens().astype(jnp.bfloat16), INDEX, num_sentences=3)
    assert near.dtype == jnp.bfloat16
    np.testing.assert_allclose(near.astype(jnp.float32), exact, atol=0.03)


def test_compacting_keeps_the_order_of_present_sentences():
    rows = jnp.arange(1, 6, dtype=jnp.float32)[None, :, None] * jnp.ones((1, 5, 2))
    mask = jnp.array([[False, True, False, True, True]])
    compact, kept = compact_sentences(rows, mask)
    np.testing.assert_array_equal(compact[0, :, 0], [2, 4, 5, 0, 0])
    np.testing.assert_array_equal(kept, [[1, 1, 1, 0, 0]])


@pytest.mark.parametrize("size", [2, 5])
def test_fitting_cuts_or_pads(size):
    rows, mask = jnp.ones((1, 3, 2)), jnp.array([[True, True, True]])
    fitted, kept = fit_sentences(rows, mask, num_sentences=size)
    assert fitted.shape == (1, size, 2)
    assert int(kept.sum()) == min(size, 3)
    assert float(fitted.sum()) == 2 * min(size, 3)


def test_mismatched_shapes_are_refused_by_name():
    for pool in pools().values():
        with pytest.raises(ValueError, match=r"sentence_index \(2, 7\)"):
            pool(tokens(), INDEX[:, :7], num_sentences=3)
