import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.losses.local_alignment import local_image, local_text

SCALE = jnp.full((), 5.0, jnp.float32)


def sentences(batch=3, count=4, features=6):
    keys = jax.random.split(jax.random.key(0), 2)
    pair = [jax.random.normal(key, (batch, count, features), jnp.float32) for key in keys]
    mask = jnp.arange(count)[None, :] < jnp.array([[4], [2], [1]])
    return *pair, mask


def text_loss(a, b, mask, weight=None, **options):
    weight = jnp.ones((a.shape[0],), jnp.float32) if weight is None else weight
    return local_text(a, b, scale=SCALE, mask=mask, weight=weight, **options)


def test_a_report_of_one_sentence_costs_nothing_and_counts():
    a, b, mask = sentences()
    alone = text_loss(a[2:], b[2:], mask[2:])
    assert float(alone) == 0
    two = text_loss(a[:2], b[:2], mask[:2])
    np.testing.assert_allclose(text_loss(a, b, mask), two * 2 / 3, rtol=1e-6)


def test_matching_sentences_cost_less():
    a, b, mask = sentences()
    assert text_loss(a, a, mask) < text_loss(a, b, mask)


def test_swapping_sentences_and_contexts_does_not_change_the_loss():
    a, b, mask = sentences()
    np.testing.assert_allclose(text_loss(a, b, mask), text_loss(b, a, mask), rtol=1e-6)


def test_padded_sentences_and_reports_change_neither_value_nor_gradient():
    a, b, mask = sentences()
    a, b = (jnp.where(mask[..., None], x, jnp.float32(0)) for x in (a, b))
    value, grads = jax.value_and_grad(text_loss, argnums=(0, 1))(a, b, mask)

    def grow(x, fill):
        x = jnp.pad(x, ((0, 2), (0, 3)) + ((0, 0),) * (x.ndim - 2))
        return x if fill is None else jnp.where(big[..., None], x, jnp.float32(fill))

    big = grow(mask, None)
    weight = jnp.array([1, 1, 1, 0, 0], jnp.float32)
    grown = jax.value_and_grad(text_loss, argnums=(0, 1))(grow(a, 7.0), grow(b, -3.0), big, weight)
    np.testing.assert_allclose(grown[0], value, rtol=1e-6)
    for grad, grown_grad in zip(grads, grown[1], strict=True):
        np.testing.assert_allclose(grown_grad[:3, :4], grad, atol=1e-6)
        assert not np.any(np.asarray(grown_grad)[~np.asarray(big)])


def test_negatives_come_from_the_same_report_only():
    a, b, mask = sentences()
    moved = a.at[1].set(jax.random.normal(jax.random.key(9), a.shape[1:], jnp.float32))
    first = jax.vmap(lambda x, y, m: text_loss(x[None], y[None], m[None]))
    np.testing.assert_allclose(first(a, b, mask)[0], first(moved, b, mask)[0])
    np.testing.assert_allclose(jnp.mean(first(a, b, mask)), text_loss(a, b, mask), rtol=1e-6)


def image_loss(x, y, weight=None, predict=lambda x: x):
    weight = jnp.ones((x.shape[0],), jnp.float32) if weight is None else weight
    return local_image(
        x, y, predicted_patches=predict(x), predicted_context=predict(y), weight=weight
    )


def test_equal_patches_and_contexts_give_minus_one():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4), jnp.float32)
    np.testing.assert_allclose(image_loss(x, x), -1, rtol=1e-6)
    np.testing.assert_allclose(image_loss(x, -x), 1, rtol=1e-6)


def test_targets_get_no_gradient():
    keys = jax.random.split(jax.random.key(0), 4)
    x, y, p, q = (jax.random.normal(key, (2, 5, 4), jnp.float32) for key in keys)
    weight = jnp.ones((2,), jnp.float32)

    def loss(x, y, p, q):
        return local_image(x, y, predicted_patches=p, predicted_context=q, weight=weight)

    grads = jax.grad(loss, argnums=(0, 1, 2, 3))(x, y, p, q)
    assert not np.any(grads[0])
    assert not np.any(grads[1])
    assert np.any(grads[2])
    assert np.any(grads[3])


def test_rows_without_weight_change_neither_value_nor_gradient():
    keys = jax.random.split(jax.random.key(0), 2)
    x, y = (jax.random.normal(key, (3, 5, 4), jnp.float32) for key in keys)
    weight = jnp.array([1, 1, 0], jnp.float32)
    value, grad = jax.value_and_grad(image_loss)(x, y, weight)
    few, few_grad = jax.value_and_grad(image_loss)(x[:2], y[:2])
    np.testing.assert_allclose(value, few, rtol=1e-6)
    np.testing.assert_allclose(grad[:2], few_grad, atol=1e-7)
    assert not np.any(grad[2])


def test_mismatched_shapes_are_refused_by_name():
    a, b, mask = sentences()
    with pytest.raises(ValueError, match=r"context \(3, 3, 6\)"):
        text_loss(a, b[:, :3], mask)
    with pytest.raises(ValueError, match=r"mask \(3, 2\)"):
        text_loss(a, b, mask[:, :2])
    with pytest.raises(ValueError, match=r"context \(3, 2, 6\)"):
        image_loss(a, b[:, :2])
