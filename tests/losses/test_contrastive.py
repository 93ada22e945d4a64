import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.losses.contrastive import paired_contrastive
from prior_jax.losses.normalize import cosine, unit, weighted_mean

SCALE = jnp.full((), 7.0, jnp.float32)


def towers(batch=6, features=5):
    keys = jax.random.split(jax.random.key(0), 2)
    return [unit(jax.random.normal(key, (batch, features), jnp.float32)) for key in keys]


def ones(batch):
    return jnp.ones((batch,), jnp.float32)


def test_known_value():
    image = jnp.eye(4, dtype=jnp.float32)
    loss = paired_contrastive(image, image, scale=jnp.float32(2), weight=ones(4))
    np.testing.assert_allclose(loss, -np.log(np.exp(2) / (np.exp(2) + 3)), rtol=1e-6)


def test_no_information_costs_the_logarithm_of_the_batch():
    same = jnp.ones((5, 3), jnp.float32) / 3**0.5
    loss = paired_contrastive(same, same, scale=SCALE, weight=ones(5))
    np.testing.assert_allclose(loss, np.log(5), rtol=1e-6)


def test_the_loss_is_the_mean_of_both_directions():
    image, text = towers()
    logits = np.asarray(SCALE * image @ text.T, np.float64)
    rows = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    loss = paired_contrastive(image, text, scale=SCALE, weight=ones(6))
    np.testing.assert_allclose(loss, (rows.mean() + columns.mean()) / 2, rtol=1e-5)


def test_each_direction_counts_by_its_share():
    image, text = towers()
    logits = np.asarray(SCALE * image @ text.T, np.float64)
    rows = (np.log(np.exp(logits).sum(1)) - np.diag(logits)).mean()
    columns = (np.log(np.exp(logits).sum(0)) - np.diag(logits)).mean()
    loss = paired_contrastive(image, text, scale=SCALE, weight=ones(6), image_share=0.75)
    np.testing.assert_allclose(loss, 0.75 * rows + 0.25 * columns, rtol=1e-5)


def test_swapping_the_towers_does_not_change_the_loss():
    image, text = towers()
    there = paired_contrastive(image, text, scale=SCALE, weight=ones(6))
    back = paired_contrastive(text, image, scale=SCALE, weight=ones(6))
    np.testing.assert_allclose(there, back, rtol=1e-6)


def test_padding_changes_neither_value_nor_gradient():
    image, text = towers()
    loss = jax.jit(
        jax.value_and_grad(
            lambda i, t, w: paired_contrastive(i, t, scale=SCALE, weight=w), argnums=(0, 1)
        )
    )
    value, grads = loss(image, text, ones(6))
    junk = jnp.full((3, 5), 9.0, jnp.float32)
    padded = [jnp.concatenate([x, junk]) for x in (image, text)]
    weight = jnp.concatenate([ones(6), jnp.zeros((3,), jnp.float32)])
    padded_value, padded_grads = loss(*padded, weight)
    np.testing.assert_allclose(padded_value, value, rtol=1e-6)
    for grad, padded_grad in zip(grads, padded_grads, strict=True):
        np.testing.assert_allclose(padded_grad[:6], grad, atol=1e-6)
        assert not np.any(padded_grad[6:])


def test_a_batch_of_padding_costs_nothing():
    image, text = towers()
    loss = paired_contrastive(image, text, scale=SCALE, weight=0 * ones(6))
    assert float(loss) == 0


@pytest.mark.parametrize("wrong", ["image", "weight"])
def test_mismatched_batches_are_refused_by_name(wrong):
    image, text = towers()
    weight = ones(6)
    if wrong == "image":
        image = image[:4]
    else:
        weight = weight[:4]
    with pytest.raises(ValueError, match=rf"{wrong} \(4"):
        paired_contrastive(image, text, scale=SCALE, weight=weight)


@pytest.mark.multidevice
def test_sharding_the_batch_does_not_change_the_loss():
    image, text = towers(batch=16)
    weight = ones(16).at[-3:].set(0)
    loss = jax.jit(
        jax.value_and_grad(
            lambda i, t, w: paired_contrastive(i, t, scale=SCALE, weight=w), argnums=(0, 1)
        )
    )
    expected = loss(image, text, weight)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, P("data"))
    actual = jax.block_until_ready(loss(*jax.device_put((image, text, weight), place)))
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_zero_vectors_have_finite_gradients():
    zeros = jnp.zeros((3, 4), jnp.float32)
    other = jnp.ones((3, 4), jnp.float32)
    for function in (
        lambda x: jnp.sum(unit(x) * other),
        lambda x: jnp.sum(cosine(x, other)),
        lambda x: paired_contrastive(unit(x), unit(other), scale=SCALE, weight=ones(3)),
    ):
        value, grad = jax.jit(jax.value_and_grad(function))(zeros)
        assert np.isfinite(value)
        assert not np.any(grad)


def test_unit_vectors_have_unit_norm():
    x = jax.random.normal(jax.random.key(1), (4, 6), jnp.float32) * 1e-6
    np.testing.assert_allclose(jnp.linalg.norm(unit(x), axis=-1), 1, rtol=1e-5)


def test_weighted_mean_ignores_what_has_no_weight():
    value = jnp.array([1.0, 3.0, jnp.nan], jnp.float32)
    weight = jnp.array([1.0, 3.0, 0.0], jnp.float32)
    np.testing.assert_allclose(weighted_mean(value, weight), 2.5)
    grad = jax.grad(weighted_mean)(value, weight)
    np.testing.assert_allclose(grad, [0.25, 0.75, 0])
    assert float(weighted_mean(value, 0 * weight)) == 0
    with pytest.raises(ValueError, match=r"weight \(2,\)"):
        weighted_mean(value, weight[:2])
