"""Learning rates, the order of stages, weight decay and clipping."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.errors import ConfigError
from prior_jax.train.optimizer import adam_step_count, apply_updates, decays, make_optimizer
from prior_jax.train.stages import PlateauConfig, Schedule, StageConfig, learning_rate
from tests.train import toy

PLATEAU = PlateauConfig(
    metric="loss", factor=0.5, patience=0, threshold=1e-4, min_learning_rate=0.0
)


def rates(stage, steps, past_end="hold"):
    return [float(learning_rate(stage, t, past_end=past_end)) for t in range(steps)]


def test_the_rate_rises_from_start_to_peak_twice_and_falls_to_the_end():
    stage = toy.stage("first", 9, warmup_steps=3, learning_rate_end=2e-3)
    found = rates(stage, 10)
    np.testing.assert_allclose(found[:4], [1e-3, 5.5e-3, 1e-2, 1e-2], rtol=1e-6)
    np.testing.assert_allclose(found[6], 6e-3, rtol=1e-6)
    np.testing.assert_allclose(found[9], 2e-3, rtol=1e-6)
    assert all(a > b for a, b in itertools.pairwise(found[3:]))


@pytest.mark.parametrize("past_end", ["hold", "rise"])
def test_a_linear_schedule_falls_by_equal_steps_and_stays_at_the_end(past_end):
    stage = toy.stage("first", 9, warmup_steps=3, schedule="linear", learning_rate_end=4e-3)
    found = rates(stage, 12, past_end=past_end)
    wanted = [1e-3, 5.5e-3, 1e-2, 1e-2, 9e-3, 8e-3, 7e-3, 6e-3, 5e-3, 4e-3, 4e-3, 4e-3]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_past_the_end_it_holds_or_rises():
    stage = toy.stage("first", 12, warmup_steps=2, schedule_steps=8)
    assert rates(stage, 12)[8:] == [0.0] * 4
    rising = rates(stage, 12, past_end="rise")
    np.testing.assert_allclose(rising[9:12], rising[7:4:-1], rtol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_other_schedules_stay_at_the_peak(schedule):
    stage = toy.stage("first", 8, warmup_steps=3, schedule=schedule, plateau=PLATEAU)
    np.testing.assert_allclose(rates(stage, 12), [1e-3, 5.5e-3, *[1e-2] * 10], rtol=1e-6)


@pytest.mark.parametrize("warmup, first", [(0, 1e-2), (1, 1e-3)])
def test_short_warm_ups(warmup, first):
    found = rates(toy.stage("first", 5, warmup_steps=warmup), 2)
    np.testing.assert_allclose(found[0], first, rtol=1e-6)
    np.testing.assert_allclose(rates(toy.stage("first", 5, warmup_steps=1), 2)[1], 1e-2)


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"steps": 0}, "steps"),
        ({"warmup_steps": 6}, "warmup_steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"schedule": "stepped"}, "schedule"),
        ({"schedule": "plateau"}, "plateau"),
        ({"schedule": "plateau", "plateau": PLATEAU, "learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_bad_stages_are_refused_by_name(changes, field):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        toy.replace(toy.STAGES[0], **changes)


@pytest.mark.parametrize("unit, length", [("steps", 40), ("epochs", 4)])
def test_what_a_schedule_is_laid_out_for_holds_the_warm_up(unit, length):
    given = dict(schedule="cosine", plateau=None, weight_decay=0.0)
    given |= dict(learning_rate=1e-2, learning_rate_start=0.0, learning_rate_end=0.0)

    def stage(**changes):
        fields = dict(name="first", unit=unit, length=length, warmup=length / 4) | given
        return StageConfig(**(fields | changes)).in_steps(10)

    assert stage(schedule_steps=11).planned_steps == 11
    for value in (0, -3):
        with pytest.raises(ConfigError, match=rf"^schedule_steps: The value is {value}\."):
            stage(schedule_steps=value)
    with pytest.raises(ConfigError, match=r"^warmup: .* takes 10 steps, .* laid out for 10 steps"):
        stage(schedule_steps=10)


def test_steps_belong_to_their_stage():
    schedule = Schedule(toy.STAGES)
    assert [schedule.at(step).name for step in (0, 5, 6, 11)] == ["first"] * 2 + ["second"] * 2
    assert schedule.start(toy.STAGES[1]) == 6
    assert [schedule.end(stage) for stage in schedule.stages] == [6, 12]
    assert [step for step in range(12) if schedule.ends_after(step)] == [5, 11]
    begun = [schedule.begun(steps) for steps in (0, 1, 6, 7, 12)]
    assert begun == [(), ("first",), ("first",), ("first", "second"), ("first", "second")]
    with pytest.raises(ValueError, match="past the end"):
        schedule.at(12)
    with pytest.raises(ConfigError, match="each named once"):
        Schedule((toy.STAGES[0], toy.STAGES[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"epsilon": 0.0},
        {"decay": "none"},
        {"decay_mask": "some"},
        {"clip_norm": 0.0},
        {"past_end": "stop"},
    ],
)
def test_bad_optimizer_settings_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=f"^{next(iter(changes))}: "):
        toy.replace(toy.OPTIMIZER, **changes)


def test_decay_of_matrices_spares_biases_of_stacked_layers():
    assert decays("bert/layers/bias", ndim=2, decay_mask="all")
    assert not decays("bert/layers/bias", ndim=2, decay_mask="matrices")
    assert not decays("norm/scale", ndim=1, decay_mask="matrices")
    assert not decays("temperature", ndim=0, decay_mask="matrices")
    assert decays("bert/layers/kernel", ndim=3, decay_mask="matrices")


def step_of(config, gradient, stage=toy.STAGES[0]):
    transformation = make_optimizer(config, stage)
    parameters = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))}
    gradients = {name: jnp.full_like(value, gradient) for name, value in parameters.items()}
    return apply_updates(
        transformation,
        gradients=gradients,
        state=transformation.init(parameters),
        parameters=parameters,
        learning_rate=jnp.float32(0.1),
    )


def test_without_gradient_only_decay_moves_a_parameter():
    new, state = step_of(toy.OPTIMIZER, 0.0)
    np.testing.assert_allclose(new["kernel"], 1 - 0.1 * 1e-2)
    np.testing.assert_allclose(new["bias"], 1 - 0.1 * 1e-2)
    assert int(adam_step_count(state)) == 1
    new, _ = step_of(toy.replace(toy.OPTIMIZER, decay_mask="matrices"), 0.0)
    np.testing.assert_allclose(new["bias"], 1.0)
    np.testing.assert_allclose(new["kernel"], 1 - 0.1 * 1e-2)


def test_clipping_bounds_the_global_norm():
    from optax import tree_utils

    _, free = step_of(toy.OPTIMIZER, 10.0)
    _, clipped = step_of(toy.replace(toy.OPTIMIZER, clip_norm=1.0), 10.0)
    _, small = step_of(toy.replace(toy.OPTIMIZER, clip_norm=100.0), 10.0)
    moments = [tree_utils.tree_get(state, "mu") for state in (free, clipped, small)]
    norms = [np.sqrt(sum(np.sum(np.square(v)) for v in m.values())) for m in moments]
    np.testing.assert_allclose(norms, [0.1 * 10 * np.sqrt(6), 0.1, norms[0]], rtol=1e-5)


def torch_adam(parameter, gradients, *, config, rate, decay):
    """torch.optim.Adam(weight_decay=decay) behind clip_grad_norm_, in float64."""
    p, m, v = np.asarray(parameter, np.float64), 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        norm = np.linalg.norm(gradient)
        g = gradient * min(1.0, config.clip_norm / (norm + 1e-6)) + decay * p
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g * g
        root = np.sqrt(v) / np.sqrt(1 - config.beta2**t) + config.epsilon
        p = p - rate / (1 - config.beta1**t) * m / root
    return p


@pytest.mark.parametrize("clip_norm", [0.25, 100.0])
def test_coupled_decay_is_an_l2_penalty_behind_the_clipping(clip_norm):
    # GLoRIA's setting, but for a decay large enough to show.
    config = toy.replace(
        toy.OPTIMIZER, beta1=0.5, decay="coupled", decay_mask="all", clip_norm=clip_norm
    )
    stage = toy.stage("first", 4, weight_decay=0.3)
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(4, 3, 4))
    transformation = make_optimizer(config, stage)
    parameters = {"w": jnp.asarray(start, jnp.float32)}
    state = transformation.init(parameters)
    for gradient in gradients:
        parameters, state = apply_updates(
            transformation,
            gradients={"w": jnp.asarray(gradient, jnp.float32)},
            state=state,
            parameters=parameters,
            learning_rate=jnp.float32(0.05),
        )
    wanted = torch_adam(start, gradients, config=config, rate=0.05, decay=0.3)
    np.testing.assert_allclose(parameters["w"], wanted, rtol=1e-4, atol=1e-5)
    free = torch_adam(start, gradients, config=config, rate=0.05, decay=0.0)
    assert np.abs(wanted - free).max() > 1e-2


def test_coupled_decay_goes_through_the_moments_and_obeys_the_mask():
    config = toy.replace(toy.OPTIMIZER, decay="coupled", decay_mask="matrices")
    new, _ = step_of(config, 0.0)
    # Adam's first step has the size of the rate, however small the penalty.
    np.testing.assert_allclose(new["kernel"], 1 - 0.1, rtol=1e-5)
    np.testing.assert_allclose(new["bias"], 1.0)
