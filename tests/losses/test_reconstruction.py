import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.losses.reconstruction import image_l1, matched_l1, prototype_kl, prototype_l1


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def test_image_l1_is_a_mean_over_pixels_and_real_images():
    target = normal(0, 3, 4, 4, 1)
    output = target + jnp.array([1.0, 3.0, 50.0], jnp.float32).reshape(3, 1, 1, 1)
    weight = jnp.array([1, 1, 0], jnp.float32)
    np.testing.assert_allclose(image_l1(output, target, weight=weight), 2, rtol=1e-6)
    assert not np.any(jax.grad(image_l1)(output, target, weight=weight)[2])
    with pytest.raises(ValueError, match=r"target \(3, 4, 4, 1\)"):
        image_l1(output[:, :2], target, weight=weight)


def test_prototype_l1_is_a_mean_over_sentences_not_over_reports():
    rows = jnp.zeros((2, 3, 4), jnp.float32)
    prototypes = jnp.stack([jnp.full((3, 4), 1.0), jnp.full((3, 4), 5.0)]).astype(jnp.float32)
    weight = jnp.array([[1, 1, 1], [1, 0, 0]], jnp.float32)
    np.testing.assert_allclose(prototype_l1(rows, prototypes, weight=weight), 2, rtol=1e-6)


def kl(target, predicted, weight=None, stop=False):
    weight = jnp.ones(target.shape[:2], jnp.float32) if weight is None else weight
    return prototype_kl(target, predicted, weight=weight, stop_target_gradient=stop)


def test_divergence_is_zero_for_equal_and_positive_for_different_choices():
    a, b = normal(0, 2, 3, 5), normal(1, 2, 3, 5)
    np.testing.assert_allclose(kl(a, a + 2), 0, atol=1e-6)
    assert kl(a, b) > 0
    assert not np.isclose(kl(a, b), kl(b, a))


def test_divergence_of_two_coins():
    target = jnp.log(jnp.array([[[0.5, 0.5]]], jnp.float32))
    predicted = jnp.log(jnp.array([[[0.9, 0.1]]], jnp.float32))
    expected = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    np.testing.assert_allclose(kl(target, predicted), expected, rtol=1e-5)


def test_the_target_has_a_gradient_only_if_asked():
    a, b = normal(0, 2, 3, 5), normal(1, 2, 3, 5)
    assert np.any(jax.grad(kl)(a, b, stop=False))
    assert not np.any(jax.grad(kl)(a, b, stop=True))


def test_padded_sentences_change_neither_value_nor_gradient():
    a, b = normal(0, 2, 3, 5), normal(1, 2, 3, 5)
    weight = jnp.array([[1, 1, 0], [1, 0, 0]], jnp.float32)
    junk = jnp.where(weight[..., None] > 0, b, jnp.float32(1e4))
    value, grad = jax.value_and_grad(kl, argnums=1)(a, b, weight)
    other, other_grad = jax.value_and_grad(kl, argnums=1)(a, junk, weight)
    np.testing.assert_allclose(value, other, rtol=1e-6)
    np.testing.assert_allclose(grad, other_grad, atol=1e-7)
    assert not np.any(np.asarray(grad)[np.asarray(weight) == 0])
    with pytest.raises(ValueError, match=r"weight \(2, 2\)"):
        kl(a, b, weight[:, :2])


def test_matched_l1_averages_over_all_slots_or_over_sentences():
    predicted = jnp.ones((1, 4, 3), jnp.float32)
    mask = jnp.array([[True, False, False, False]])
    targets = jnp.where(mask[..., None], jnp.float32(3), jnp.float32(0))
    targets = jnp.broadcast_to(targets, predicted.shape)
    weight = jnp.ones((1,), jnp.float32)
    for ignore, expected in ((True, 2.0), (False, (2 + 1 + 1 + 1) / 4)):
        value = matched_l1(predicted, targets, mask=mask, weight=weight, ignore_padding=ignore)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
