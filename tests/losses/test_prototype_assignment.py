import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.losses.prototype_assignment import sinkhorn, swapped_assignment

EPSILON = 0.05


def scores(batch=6, count=4, seed=0):
    return jax.random.uniform(jax.random.key(seed), (batch, count), jnp.float32, -1, 1)


@functools.partial(jax.jit, static_argnames=("epsilon", "iterations"))
def assign(scores, mask, *, epsilon=EPSILON, iterations=3):
    return sinkhorn(scores, mask=mask, epsilon=epsilon, iterations=iterations)


def every(batch):
    return jnp.ones((batch,), bool)


def by_loop(scores, *, iterations):
    """The normalisations one by one, on plain exponentials."""
    q = np.exp(np.asarray(scores, np.float64) / EPSILON)
    q /= q.sum()
    for _ in range(iterations):
        for k in range(q.shape[1]):
            q[:, k] /= q[:, k].sum() * q.shape[1]
        for b in range(q.shape[0]):
            q[b] /= q[b].sum() * q.shape[0]
    return q / q.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_assignment_is_that_of_a_loop(iterations):
    expected = by_loop(scores(), iterations=iterations)
    found = assign(scores(), every(6), iterations=iterations)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_many_iterations_use_all_prototypes_alike():
    found = assign(scores(), every(6), epsilon=0.5, iterations=50)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=0), 6 / 4, rtol=1e-4)


def test_a_small_epsilon_neither_overflows_nor_divides_by_zero():
    found = assign(100 * scores(), every(6), epsilon=1e-3)
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_padded_rows_take_part_in_no_assignment():
    padded = jnp.concatenate([scores(), jnp.full((2, 4), jnp.nan, jnp.float32)])
    found = assign(padded, jnp.arange(8) < 6)
    np.testing.assert_allclose(found[:6], assign(scores(), every(6)), rtol=1e-5, atol=1e-7)
    assert not np.any(found[6:])
    assert np.all(np.isfinite(assign(scores(), ~every(6))))


def loss(image, text, weight):
    return swapped_assignment(
        image, text, temperature=0.2, epsilon=EPSILON, iterations=3, weight=weight
    )


both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def ones(batch):
    return jnp.ones((batch,), jnp.float32)


def test_each_side_predicts_the_other_ones_assignment():
    image, text = scores(seed=1), scores(seed=2)
    expected = 0.0
    for target, other in ((image, text), (text, image)):
        code = by_loop(target, iterations=3)
        logits = np.asarray(other, np.float64) / 0.2
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        expected -= (code * logs).sum(1).mean() / 2
    np.testing.assert_allclose(both(image, text, ones(6))[0], expected, rtol=1e-4)
    np.testing.assert_allclose(both(text, image, ones(6))[0], expected, rtol=1e-4)


def test_no_gradient_flows_into_the_assignment():
    image, text = scores(seed=1), scores(seed=2)
    _, (grad, _) = both(image, text, ones(6))
    code = assign(text, every(6))
    expected = (jax.nn.softmax(image / 0.2, axis=1) - code) / 0.2 / 12
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_padding_changes_neither_value_nor_gradient():
    image, text = scores(seed=1), scores(seed=2)
    value, grads = both(image, text, ones(6))
    padded = [jnp.concatenate([x, jnp.full((2, 4), 9.0, jnp.float32)]) for x in (image, text)]
    weight = jnp.concatenate([ones(6), jnp.zeros((2,), jnp.float32)])
    other, other_grads = both(*padded, weight)
    np.testing.assert_allclose(other, value, rtol=1e-5)
    for grad, other_grad in zip(grads, other_grads, strict=True):
        np.testing.assert_allclose(other_grad[:6], grad, atol=1e-6)
        assert not np.any(other_grad[6:])
    assert float(both(image, text, 0 * ones(6))[0]) == 0


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"mask \(5,\)"):
        sinkhorn(scores(), mask=every(5), epsilon=EPSILON, iterations=3)
    with pytest.raises(ValueError, match="iterations is 0"):
        sinkhorn(scores(), mask=every(6), epsilon=EPSILON, iterations=0)
    with pytest.raises(ValueError, match=r"text_scores \(5, 4\)"):
        loss(scores(), scores(batch=5), ones(6))


@pytest.mark.multidevice
def test_sharding_the_batch_does_not_change_the_loss():
    arguments = scores(16, seed=1), scores(16, seed=2), ones(16).at[-3:].set(0)
    expected = both(*arguments)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, P("data"))
    actual = jax.block_until_ready(both(*jax.device_put(arguments, place)))
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
