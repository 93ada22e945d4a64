"""One update from the parts of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.errors import ConfigError
from prior_jax.objectives.base import weighted_sum
from prior_jax.train.accumulate import Accumulation, check_accumulation
from prior_jax.train.optimizer import apply_updates, make_optimizer
from prior_jax.train.program import Program
from prior_jax.train.stages import learning_rate
from prior_jax.train.state import shardings_of
from tests.train import toy

STEPS = 4
STAGE = toy.stage("second", 6)


@pytest.fixture(scope="module")
def program():
    return Program(
        objective=toy.ToyObjective(),
        stages=(STAGE,),
        optimizer=toy.replace(toy.OPTIMIZER, accumulate_steps=STEPS),
        mesh=toy.mesh_of(8),
        rules=toy.RULES,
        data_axes=("data",),
    )


@pytest.fixture(scope="module")
def before(program):
    """The state before the first step, on the host."""
    return jax.device_get(program.initial(seed=1, values=None))


def batch_of(rows=32):
    """Pairs of which rows 0, 4 and the last three do not count: the parts differ in real pairs."""
    batch = toy.ToyData(batch_size=rows).batch(1)
    return batch.replace(weight=batch.weight * ~np.isin(np.arange(rows), (0, 4, 29, 30, 31)))


def stepped(program, before, batch):
    state = jax.device_put(before, shardings_of(program.abstract(STAGE)))
    batch = jax.device_put(batch, program.batch_sharding)
    return jax.block_until_ready(program.step(STAGE)(state, batch, program.scalar(np.float32(1))))


def by_hand(program, state, batch):
    """Every fourth row, one part after the other, and an update with their weighted mean."""
    objective, model, names = program.objective, program.model, program.names(STAGE)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    active = {name: state.params[name] for name in names}

    @jax.jit
    def differentiate(active, rest, rows, key):
        def loss(active):
            module = model.merge({**state.params, **active}, rest)
            found = objective.loss_terms(module, rows, stage="second", step=state.step, key=key)
            total = weighted_sum(found.terms, objective.weights("second"))
            return total, (found.terms, model.split(module)[1])

        return jax.value_and_grad(loss, has_aux=True)(active)

    @jax.jit
    def update(gradients):
        return apply_updates(
            make_optimizer(toy.OPTIMIZER, STAGE),
            gradients=gradients,
            state=state.optimizer,
            parameters=active,
            learning_rate=learning_rate(STAGE, jnp.int32(0), past_end="hold"),
        )[0]

    rest, parts, weights = state.rest, [], []
    for part in range(STEPS):
        rows = jax.tree.map(lambda x, j=part: x[j::STEPS], batch)
        (total, (terms, rest)), gradients = differentiate(
            active, rest, rows, jax.random.fold_in(key, part)
        )
        parts.append({"total": total, "terms": terms, "gradients": gradients})
        weights.append(rows.weight.sum())
    shares = np.array(weights, np.float32) / np.float32(sum(weights))
    mean = jax.tree.map(
        lambda *xs: sum(w * x for w, x in zip(shares, xs, strict=True)), *jax.device_get(parts)
    )
    return mean, update(mean["gradients"]), rest, shares


@pytest.mark.slow
@pytest.mark.multidevice
def test_an_update_is_that_of_the_mean_gradient_of_the_parts(program, before):
    """On eight devices; by hand on one: the parts do not depend on the devices."""
    after, metrics = stepped(program, before, batch_of())
    mean, params, rest, shares = by_hand(program, before, batch_of())
    assert len(set(shares)) > 1
    np.testing.assert_allclose(metrics.total, mean["total"], rtol=1e-5)
    for name, term in mean["terms"].items():
        np.testing.assert_allclose(metrics.terms[name], term, rtol=1e-5, err_msg=name)
    squares = sum(np.sum(np.square(x)) for x in mean["gradients"].values())
    np.testing.assert_allclose(metrics.gradient_norm, np.sqrt(squares), rtol=1e-5)
    assert float(metrics.pairs) == 27
    for name, value in params.items():
        np.testing.assert_allclose(after.params[name], value, rtol=1e-3, atol=1e-6, err_msg=name)
    for name, value in rest.items():
        np.testing.assert_allclose(after.rest[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert after.params["bank"].addressable_shards[0].data.shape == (2, 8)


@pytest.fixture(scope="module")
def summed():
    """A gradient that is a function of rows, key and what the parts before left, on 4 devices."""
    mesh = toy.mesh_of(4)
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    accumulated = Accumulation(steps=STEPS, batch=split, gradients={"w": whole})

    def part(params, rest, rows, key):
        mean = jnp.mean(rows.image, axis=0)[:, :, 0]
        draw = jax.random.uniform(key)
        rest = {"seen": rest["seen"] * jnp.float32(0.5) + mean}
        return {"w": params["w"] * mean + rest["seen"] + draw}, {"loss": jnp.sum(mean)}, rest

    @jax.jit
    def run(params, rest, batch, key):
        return accumulated(part, params, rest=rest, batch=batch, key=key)

    def numbers(batch):
        params = {"w": np.full((8, 8), 3, np.float32)}
        rest, key = {"seen": np.ones((8, 8), np.float32)}, jax.random.key(5)
        found = run(params, rest, jax.device_put(batch, split), key)
        expected, losses = np.zeros((8, 8)), 0.0
        for j in range(STEPS):
            rows = jax.tree.map(lambda x, j=j: x[j::STEPS], batch)
            gradient, loss, rest = part(params, rest, rows, jax.random.fold_in(key, j))
            share = rows.weight.sum() / max(batch.weight.sum(), 1)
            expected, losses = expected + share * gradient["w"], losses + share * loss["loss"]
        return jax.block_until_ready(found), (expected, losses, rest["seen"])

    return numbers


@pytest.mark.multidevice
def test_parts_are_averaged_by_their_real_pairs_and_leave_their_rest(summed):
    (gradients, numbers, rest), (gradient, loss, seen) = summed(batch_of())
    np.testing.assert_allclose(gradients["w"], gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numbers["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(rest["seen"], seen, rtol=1e-5, atol=1e-6)


@pytest.mark.multidevice
def test_a_batch_of_padding_has_no_gradient(summed):
    batch = batch_of()
    (gradients, numbers, _), _ = summed(batch.replace(weight=0 * batch.weight))
    assert not np.any(gradients["w"])
    assert float(numbers["loss"]) == 0


@pytest.mark.multidevice
def test_parts_that_do_not_divide_a_device_s_rows_are_refused_by_name(program):
    sharding = NamedSharding(toy.mesh_of(8), P("data"))
    check_accumulation(64, steps=4, sharding=sharding)
    with pytest.raises(ConfigError, match=r"accumulate_steps: .* 64 .* 3 .*divisor of 8"):
        check_accumulation(64, steps=3, sharding=sharding)
    with pytest.raises(ConfigError, match="accumulate_steps: The value is 0"):
        toy.replace(toy.OPTIMIZER, accumulate_steps=0)
    with pytest.raises(ConfigError, match="divisor of 2"):
        program.step(STAGE).trace(program.abstract(STAGE), batch_of(16), jnp.float32(1))
