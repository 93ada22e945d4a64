"""Learning rate, stage and Adam's count at every step, against the release's own trainer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.nn.prototype_bank import bank_temperature
from prior_jax.train.optimizer import OptimizerConfig, adam_step_count, make_optimizer
from prior_jax.train.stages import Schedule, Stage, learning_rate

pytestmark = pytest.mark.golden

CONFIG = OptimizerConfig(
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    decay="decoupled",
    decay_mask="all",
    clip_norm=None,
    past_end="rise",
    accumulate_steps=1,
)


def load(golden_dir):
    with np.load(golden_dir / "prior" / "lr_schedule.npz") as data:
        return {name: data[name] for name in data.files}


def cases(golden):
    return sorted({name.split("/")[1] for name in golden})


def stages_of(golden, case):
    """The stages as the release lays them out: planned with floor, run as the loader gives."""
    field = {name: golden[f"in/{case}/{name}"] for name in ("lr", "lr_start", "lr_end")}
    planned = int(golden[f"in/{case}/train_iters_per_epoch"])
    actual = int(golden[f"in/{case}/actual_iters_per_epoch"])
    return tuple(
        Stage(
            name=f"stage{i + 1}",
            steps=int(epochs) * actual,
            schedule="cosine",
            plateau=None,
            learning_rate=float(field["lr"][i]),
            learning_rate_start=float(field["lr_start"][i]),
            learning_rate_end=float(field["lr_end"][i]),
            warmup_steps=int(golden[f"in/{case}/warmup_epochs"][i]) * planned,
            schedule_steps=int(epochs) * planned,
            weight_decay=1e-6,
        )
        for i, epochs in enumerate(golden[f"in/{case}/epochs"])
    )


def test_rate_and_stage_at_every_step(golden_dir):
    golden = load(golden_dir)
    for case in cases(golden):
        schedule = Schedule(stages_of(golden, case))
        wanted = golden[f"out/{case}/lr"]
        assert schedule.total_steps == len(wanted)
        stages = [schedule.at(step) for step in range(len(wanted))]
        numbers = [int(stage.name[-1]) for stage in stages]
        np.testing.assert_array_equal(numbers, golden[f"out/{case}/stage"])
        found = []
        for stage in schedule.stages:
            rate = jax.jit(
                jax.vmap(lambda t, stage=stage: learning_rate(stage, t, past_end="rise"))
            )
            found.append(rate(jnp.arange(stage.steps)))
        largest = max(float(v) for v in golden[f"in/{case}/lr"])
        np.testing.assert_allclose(
            np.concatenate(found), wanted, rtol=1e-5, atol=1e-7 * largest, err_msg=case
        )
        closed = golden[f"out/{case}/closed_form"]
        np.testing.assert_allclose(
            np.concatenate(found), closed, rtol=1e-5, atol=1e-7 * largest, err_msg=case
        )


def test_the_count_of_adam_restarts_with_each_stage(golden_dir):
    golden = load(golden_dir)
    for case in cases(golden):
        counts = []
        for stage in stages_of(golden, case):
            transformation = make_optimizer(CONFIG, stage)
            params = {"w": jnp.ones(1)}
            state = transformation.init(params)
            with jax.numpy_dtype_promotion("standard"):
                for _ in range(stage.steps):
                    _, state = transformation.update(params, state, params)
                    counts.append(int(adam_step_count(state)))
        np.testing.assert_array_equal(counts, golden[f"out/{case}/adam_step_count"])


def test_bank_temperature_at_every_step_that_uses_the_bank(golden_dir):
    """The release counts from the planned end of stage 1, even where stage 1 ran longer."""
    golden = load(golden_dir)
    for case in cases(golden):
        planned = int(golden[f"in/{case}/train_iters_per_epoch"])
        epochs = golden[f"in/{case}/epochs"]
        wanted, stage = golden[f"out/{case}/spb_temp"], golden[f"out/{case}/stage"]
        np.testing.assert_array_equal(wanted[stage == 1], wanted[0])
        steps = np.flatnonzero(stage > 1)
        settings = {
            "start": wanted[0],
            "schedule": str(golden[f"in/{case}/temp_decay"]),
            "total_steps": int(epochs[1:].sum()) * planned,
        }
        temperature = jax.vmap(functools.partial(bank_temperature, **settings))
        found = temperature(jnp.asarray(steps - int(epochs[0]) * planned, jnp.int32))
        np.testing.assert_allclose(found, wanted[steps], rtol=1e-5, atol=1e-6, err_msg=case)
