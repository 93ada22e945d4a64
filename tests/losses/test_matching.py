import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy.optimize import linear_sum_assignment

from prior_jax.losses import matching
from prior_jax.losses.reconstruction import matched_l1

BATCH, QUERIES, FEATURES = 4, 6, 5


def draw(seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    shape = (BATCH, QUERIES, FEATURES)
    return [jax.random.normal(key, shape, jnp.float32) for key in keys]


@jax.jit
def matched(predicted, targets, mask=None):
    """Paper mode: match, arrange, L1 over the real targets."""
    mask = jnp.ones(targets.shape[:2], bool) if mask is None else mask
    cost = matching.pairwise_cost(predicted, targets, metric="l1", normalize=False)
    col_ind = matching.assign(matching.ignore_absent_targets(cost, mask))
    return matched_l1(
        matching.arrange(predicted, col_ind, inverse=True), targets,
        mask=mask, weight=jnp.ones((len(mask),), jnp.float32), ignore_padding=True,
    )  # fmt: skip


def test_assignments_are_optimal():
    cost = jnp.round(4 * jax.random.uniform(jax.random.key(0), (50, 7, 7), jnp.float32))
    ours = np.asarray(jax.jit(matching.assign)(cost))
    for matrix, columns in zip(np.asarray(cost), ours, strict=True):
        assert sorted(columns) == list(range(7))
        rows, best = linear_sum_assignment(matrix)
        assert matrix[np.arange(7), columns].sum() == matrix[rows, best].sum()


def test_arranging_undoes_a_permutation():
    predicted, _ = draw()
    order = jnp.array([[2, 0, 1, 5, 3, 4]] * BATCH)
    targets = jnp.take_along_axis(predicted, order[:, :, None], axis=1)
    assert float(matched(predicted, targets)) == 0
    cost = matching.pairwise_cost(predicted, targets, metric="l1", normalize=False)
    col_ind = matching.assign(cost)
    np.testing.assert_array_equal(col_ind, jnp.argsort(order, axis=1))
    wrong = matching.arrange(predicted, col_ind, inverse=False)
    assert not np.allclose(wrong, targets)
    np.testing.assert_array_equal(matching.arrange(predicted, col_ind, inverse=True), targets)


@pytest.mark.parametrize("length", [QUERIES, 3])
def test_permuting_the_targets_does_not_change_the_loss(length):
    predicted, targets = draw()
    mask = jnp.broadcast_to(jnp.arange(QUERIES)[None] < length, (BATCH, QUERIES))
    order = jax.random.permutation(jax.random.key(1), QUERIES)
    here = matched(predicted, targets, mask)
    there = matched(predicted, targets[:, order], mask[:, order])
    np.testing.assert_allclose(here, there, rtol=1e-6)


def test_absent_targets_change_neither_value_nor_gradient():
    predicted, targets = draw()
    mask = jnp.broadcast_to(jnp.arange(QUERIES)[None] < 4, (BATCH, QUERIES))
    value, grads = jax.value_and_grad(matched, argnums=(0, 1))(predicted, targets, mask)
    junk = jnp.where(mask[..., None], targets, jnp.float32(50))
    other, other_grads = jax.value_and_grad(matched, argnums=(0, 1))(predicted, junk, mask)
    np.testing.assert_allclose(value, other)
    for grad, other_grad in zip(grads, other_grads, strict=True):
        np.testing.assert_array_equal(grad, other_grad)
    assert not np.any(np.asarray(grads[1])[~np.asarray(mask)])


def test_zero_targets_pull_left_over_queries_to_zero_in_the_release():
    predicted, targets = draw()
    mask = jnp.broadcast_to(jnp.arange(QUERIES)[None] < 4, (BATCH, QUERIES))
    targets = jnp.where(mask[..., None], targets, jnp.float32(0))
    weight = jnp.ones((BATCH,), jnp.float32)

    def loss(predicted, ignore_padding):
        return matched_l1(
            predicted, targets, mask=mask, weight=weight, ignore_padding=ignore_padding
        )

    kept = jax.grad(loss)(predicted, False)
    ignored = jax.grad(loss)(predicted, True)
    assert np.all(np.asarray(kept)[:, 4:] != 0)
    assert not np.any(np.asarray(ignored)[:, 4:])


TIED = ("all", "columns", "columns_and_absent", "pairs")


def tied(kind, *, size, seed):
    """float32[1, Q, Q], costs of which many assignments are equally good."""
    rng = np.random.default_rng(seed)
    cost = np.full((size, size), 3.0)
    if kind != "all":
        cost = np.repeat(rng.uniform(2, 4, (size, 1)), size, axis=1)  # all sentences are alike
    if kind == "columns_and_absent":
        cost[:, size // 2 :] = 0
    if kind == "pairs":
        cost = np.repeat(rng.uniform(2, 4, (size, size // 2)), 2, axis=1)
    return cost[None].astype(np.float32)


@pytest.mark.parametrize("kind", TIED)
def test_rounding_does_not_choose_between_tied_assignments(kind):
    solve = jax.jit(lambda cost: matching.assign(matching.break_ties(cost)))
    without = jax.jit(matching.assign)
    rng, moved = np.random.default_rng(1), 0
    for seed in range(20):
        cost = tied(kind, size=16, seed=seed)
        noise = rng.uniform(-1e-6, 1e-6, (20, 16, 16)).astype(np.float32)
        noisy = cost * (1 + noise)
        found = np.asarray(solve(noisy))
        np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
        moved += np.any(np.asarray(without(noisy)) != np.asarray(without(cost)), axis=1).sum()
    assert moved > 100  # what the noise does where ties are not broken


def test_a_tie_goes_to_the_order_of_the_targets():
    cost = jnp.asarray(tied("all", size=7, seed=0))
    np.testing.assert_array_equal(matching.assign(matching.break_ties(cost))[0], np.arange(7))
    nothing = matching.break_ties(jnp.zeros((1, 4, 4), jnp.float32))
    np.testing.assert_array_equal(nothing, 0)


def test_breaking_ties_costs_no_more_than_it_says():
    cost = np.random.default_rng(0).uniform(1, 2, (50, 16, 16)).astype(np.float32)
    found = np.asarray(matching.assign(matching.break_ties(jnp.asarray(cost))))
    same = 0
    for matrix, columns in zip(cost.astype(np.float64), found, strict=True):
        best = matrix[linear_sum_assignment(matrix)].sum()
        total = matrix[np.arange(16), columns].sum()
        assert total - best <= 680 * matching.TIE_BREAK * matrix.max()
        same += total == best
    assert same >= 40


def test_breaking_ties_leaves_what_is_not_finite_to_the_assignment():
    cost = jnp.ones((1, 4, 4), jnp.float32).at[0, 0, 0].set(jnp.nan).at[0, 3, 3].set(jnp.inf)
    columns = np.asarray(matching.assign(matching.break_ties(cost)))[0]
    assert sorted(columns) == [0, 1, 2, 3]
    assert columns[0] != 0 and columns[3] != 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_costs_that_are_not_finite_end_in_a_permutation(bad):
    cost = jnp.ones((2, 4, 4), jnp.float32).at[0].set(bad).at[1, 2, 3].set(bad)
    for columns in np.asarray(jax.jit(matching.assign)(cost)):
        assert sorted(columns) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("metric", "expected"), [("l1", 7.0), ("l2", 5.0), ("cosine", -24 / 25 / 1)]
)
def test_known_costs(metric, expected):
    predicted = jnp.array([[[3.0, 4.0]]], jnp.float32)
    targets = jnp.array([[[0.0, 0.0]]] if metric != "cosine" else [[[4.0, 3.0]]], jnp.float32)
    cost = matching.pairwise_cost(predicted, targets, metric=metric, normalize=False)
    np.testing.assert_allclose(cost, [[[expected]]], rtol=1e-6)


def test_normalizing_scales_predictions_only():
    predicted = jnp.array([[[3.0, 4.0]]], jnp.float32)
    targets = jnp.array([[[3.0, 4.0]]], jnp.float32)
    cost = matching.pairwise_cost(predicted, targets, metric="l2", normalize=True)
    np.testing.assert_allclose(cost, [[[4.0]]], rtol=1e-6)


def test_matching_has_no_gradient_of_its_own():
    predicted, targets = draw()

    def total(predicted):
        return jnp.sum(matching.pairwise_cost(predicted, targets, metric="l2", normalize=True))

    assert not np.any(jax.grad(total)(predicted))


def test_wrong_arguments_are_refused_by_name():
    predicted, targets = draw()
    with pytest.raises(ValueError, match="'manhattan'"):
        matching.pairwise_cost(predicted, targets, metric="manhattan", normalize=False)
    with pytest.raises(ValueError, match=r"targets \(3, 6, 5\)"):
        matching.pairwise_cost(predicted, targets[:3], metric="l1", normalize=False)
    with pytest.raises(ValueError, match=r"cost \(4, 6, 5\)"):
        matching.assign(jnp.zeros((4, 6, 5)))
    with pytest.raises(ValueError, match=r"col_ind \(4, 5\)"):
        matching.arrange(predicted, jnp.zeros((4, 5), jnp.int32), inverse=True)


@pytest.mark.multidevice
def test_each_device_solves_its_own_reports():
    cost = jax.random.uniform(jax.random.key(0), (16, 6, 6), jnp.float32)
    expected = matching.assign(cost)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(cost, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        solve = jax.jit(lambda cost: matching.assign(cost, axis="data"))
        text = solve.lower(placed).compile().as_text()
        actual = jax.block_until_ready(solve(placed))
    np.testing.assert_array_equal(actual, expected)
    assert "all-reduce" not in text
    assert "all-gather" not in text
