import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.nn.attention_pool import AttentionPool2d, SentenceAttentionPool
from tests.nn import small


def sentence_pool(positions=None, dtype=jnp.float32, features=16):
    sizes = {"out_features": 12, "heads": 4, "positions": positions}
    return small.filled(
        lambda: SentenceAttentionPool(features, dtype=dtype, rngs=nnx.Rngs(0), **sizes)
    )


@pytest.fixture(scope="module")
def sentences():
    mask = jnp.arange(6)[None] < jnp.asarray([6, 3, 1])[:, None]
    return jax.random.normal(jax.random.key(0), (3, 6, 16)), mask


@pytest.mark.parametrize("positions", [None, 8])
@pytest.mark.parametrize("rubbish", [7.0, jnp.nan, jnp.inf])
def test_padding_changes_neither_value_nor_gradient(sentences, positions, rubbish):
    x, mask = sentences
    weights = jnp.sin(jnp.arange(36, dtype=jnp.float32)).reshape(3, 12)
    model = sentence_pool(positions)
    loss = lambda m, x, mask: (m(x, mask) * weights).sum()  # noqa: E731
    value, grads, _ = small.value_and_grads(model, lambda m: loss(m, x, mask))
    longer = jnp.pad(mask, ((0, 0), (0, 2)))
    other = jnp.where(longer[..., None], jnp.pad(x, ((0, 0), (0, 2), (0, 0))), rubbish)
    value_2, grads_2, (grad_x,) = small.value_and_grads(
        model, lambda m, x: loss(m, x, longer), other
    )
    np.testing.assert_allclose(value, value_2, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, grads_2)
    assert np.array_equal(np.abs(grad_x).max(axis=-1) > 0, longer)


def test_each_report_is_pooled_as_if_alone(sentences):
    x, mask = sentences
    model = sentence_pool()
    together = small.evaluate(model, x, mask)
    for row, count in enumerate((6, 3, 1)):
        alone = small.evaluate(model, x[row : row + 1, :count], np.ones((1, count), bool))
        np.testing.assert_allclose(together[row : row + 1], alone, atol=1e-6)


def test_a_report_without_sentences_is_finite_in_value_and_gradient(sentences):
    x, _ = sentences
    model = sentence_pool()
    value, grads, (grad_x,) = small.value_and_grads(
        model, lambda m, x: jnp.square(m(x, jnp.zeros((3, 6), bool))).sum(), x
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert not np.any(grad_x)


def test_order_matters_only_with_positions(sentences):
    x, _ = sentences
    mask = jnp.ones((3, 6), bool)
    plain, placed = sentence_pool(), sentence_pool(8)
    np.testing.assert_allclose(plain(x, mask), plain(x[:, ::-1], mask), atol=1e-6)
    assert jnp.abs(placed(x, mask) - placed(x[:, ::-1], mask)).max() > 1e-3


def test_bfloat16_is_close_to_float32(sentences):
    full, half = sentence_pool()(*sentences), sentence_pool(dtype=jnp.bfloat16)(*sentences)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(full, half.astype(jnp.float32), atol=0.02)


def image_pool(grid=(3, 2)):
    sizes = {"out_features": 12, "heads": 4, "grid": grid}
    return small.filled(lambda: AttentionPool2d(16, dtype=jnp.float32, rngs=nnx.Rngs(0), **sizes))


def test_places_on_the_map_matter():
    model = image_pool()
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, 16))
    out = model(x)
    assert out.shape == (2, 12)
    assert jnp.abs(out - model(x[:, ::-1])).max() > 1e-3


def test_each_location_alone_is_what_the_pool_returns_where_all_are_equal():
    model = image_pool()
    model.position_embedding[...] = jnp.zeros_like(model.position_embedding[...])
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (2, 1, 1, 16)), (2, 3, 2, 16))
    found = model.each(x)
    assert found.shape == (2, 6, 12)
    np.testing.assert_allclose(found, jnp.broadcast_to(model(x)[:, None], found.shape), rtol=1e-5)
    with pytest.raises(ValueError, match=r"pool of a \(3, 2\) grid received a \(2, 3\) map"):
        model.each(x.transpose(0, 2, 1, 3))


def test_each_location_has_the_position_that_it_has_in_the_pool():
    model = image_pool(grid=(1, 1))
    place = jnp.stack([jnp.full(16, 5.0), jnp.full(16, 3.0)])
    model.position_embedding[...] = place
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, 16))
    alone = model.output(model.value(x[:, 0, 0] + place[1][None]))
    np.testing.assert_allclose(model.each(x)[:, 0], alone, rtol=1e-5)


def test_bad_shapes_are_refused_by_name(sentences):
    with pytest.raises(ValueError, match=r"pool of a \(3, 2\) grid received a \(2, 3\) map"):
        image_pool()(jnp.zeros((2, 2, 3, 16)))
    with pytest.raises(ValueError, match="features 18 must be a multiple of heads 4"):
        sentence_pool(features=18)
    with pytest.raises(ValueError, match="positions for 5 tokens, the input has 6"):
        sentence_pool(5)(*sentences)
