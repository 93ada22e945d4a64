import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.losses.normalize import unit
from prior_jax.losses.sigmoid import paired_sigmoid

SCALE = jnp.full((), 10.0, jnp.float32)
BIAS = jnp.full((), -10.0, jnp.float32)


def towers(batch=6, features=5):
    keys = jax.random.split(jax.random.key(0), 2)
    return [unit(jax.random.normal(key, (batch, features), jnp.float32)) for key in keys]


def ones(batch):
    return jnp.ones((batch,), jnp.float32)


def loss(image, text, weight, scale=SCALE, bias=BIAS):
    return paired_sigmoid(image, text, scale=scale, bias=bias, weight=weight)


def by_loop(image, text, *, scale, bias):
    image, text = np.asarray(image, np.float64), np.asarray(text, np.float64)
    total = 0.0
    for i, x in enumerate(image):
        for j, y in enumerate(text):
            sign = 1 if i == j else -1
            total += np.log1p(np.exp(-sign * (scale * (x @ y) + bias)))
    return total / len(image)


def test_the_loss_is_that_of_a_loop_over_pairs():
    image, text = towers()
    np.testing.assert_allclose(
        loss(image, text, ones(6)), by_loop(image, text, scale=10.0, bias=-10.0), rtol=1e-5
    )


def test_known_value():
    image = jnp.eye(4, dtype=jnp.float32)
    found = loss(image, image, ones(4), scale=jnp.float32(3), bias=jnp.float32(-1))
    np.testing.assert_allclose(found, np.log1p(np.exp(-2)) + 3 * np.log1p(np.exp(-1)), rtol=1e-6)


def test_swapping_the_towers_does_not_change_the_loss():
    image, text = towers()
    there, back = loss(image, text, ones(6)), loss(text, image, ones(6))
    np.testing.assert_allclose(there, back, rtol=1e-6)


def test_scale_and_bias_get_their_gradients():
    image, text = towers()
    grads = jax.grad(lambda s, b: loss(image, text, ones(6), s, b), argnums=(0, 1))(SCALE, BIAS)
    step = 1e-4
    for grad, change in zip(grads, ((step, 0.0), (0.0, step)), strict=True):
        ahead = by_loop(image, text, scale=10 + change[0], bias=-10 + change[1])
        behind = by_loop(image, text, scale=10 - change[0], bias=-10 - change[1])
        np.testing.assert_allclose(grad, (ahead - behind) / (2 * step), rtol=1e-3)


def test_padding_changes_neither_value_nor_gradient():
    image, text = towers()
    both = jax.value_and_grad(loss, argnums=(0, 1, 3, 4))
    value, grads = both(image, text, ones(6), SCALE, BIAS)
    junk = jnp.full((3, 5), jnp.nan, jnp.float32).at[1].set(9)
    padded = [jnp.concatenate([x, junk]) for x in (image, text)]
    weight = jnp.concatenate([ones(6), jnp.zeros((3,), jnp.float32)])
    np.testing.assert_allclose(loss(*padded, weight), value, rtol=1e-6)
    finite = [jnp.nan_to_num(x) for x in padded]
    padded_grads = both(*finite, weight, SCALE, BIAS)[1]
    for grad, padded_grad in zip(grads[:2], padded_grads[:2], strict=True):
        np.testing.assert_allclose(padded_grad[:6], grad, atol=1e-6)
        assert not np.any(padded_grad[6:])
    np.testing.assert_allclose(padded_grads[2:], grads[2:], rtol=1e-5)
    assert float(loss(image, text, 0 * ones(6))) == 0


@pytest.mark.parametrize("wrong", ["text", "weight"])
def test_mismatched_batches_are_refused_by_name(wrong):
    image, text = towers()
    weight = ones(6)[:4] if wrong == "weight" else ones(6)
    text = text[:4] if wrong == "text" else text
    with pytest.raises(ValueError, match=rf"{wrong} \(4"):
        loss(image, text, weight)


@pytest.mark.multidevice
def test_sharding_the_batch_does_not_change_the_loss():
    image, text = towers(batch=16)
    weight = ones(16).at[-3:].set(0)
    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    expected = both(image, text, weight)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, P("data"))
    actual = jax.block_until_ready(both(*jax.device_put((image, text, weight), place)))
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)
