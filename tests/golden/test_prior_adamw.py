"""AdamW against torch's, as the release uses it."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.train.optimizer import OptimizerConfig, apply_updates, make_optimizer
from prior_jax.train.stages import Stage
from prior_jax.train.state import fresh_optimizer
from tests.golden.reader import load

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


def test_updates_and_an_untrained_parameter(golden_dir):
    golden = load(golden_dir, "prior", "adamw")
    for case in golden.cases("in/"):
        check(golden, case)


def check(golden, case):
    steps = sum(re.fullmatch(r"g\d+", name) is not None for name in golden.prefix(f"in/{case}/"))
    rate = golden[f"in/{case}/lr"]
    stage = Stage(
        name="stage1",
        steps=steps,
        schedule="cosine",
        plateau=None,
        learning_rate=float(rate),
        learning_rate_start=float(rate),
        learning_rate_end=float(rate),
        warmup_steps=0,
        schedule_steps=None,
        weight_decay=float(golden[f"in/{case}/wd"]),
    )
    transformation = make_optimizer(CONFIG, stage)
    params = {
        "p": jnp.asarray(golden[f"in/{case}/p0"]),
        "unused": jnp.asarray(golden[f"in/{case}/unused0"]),
    }
    state = fresh_optimizer(params, names=("p",), transformation=transformation)
    for i in range(steps):
        trained, state = apply_updates(
            transformation,
            gradients={"p": jnp.asarray(golden[f"in/{case}/g{i}"])},
            state=state,
            parameters={"p": params["p"]},
            learning_rate=jnp.float32(rate),
        )
        params |= trained
        moved = params["p"] - golden[f"in/{case}/p0"]
        wanted = golden[f"out/{case}/p{i + 1}"]
        np.testing.assert_allclose(params["p"], wanted, rtol=1e-5, atol=1e-4 * rate)
        # The steps are small beside the parameters: compare the way gone as well, to what
        # float32 parameters can show of it.
        way = wanted - golden[f"in/{case}/p0"]
        np.testing.assert_allclose(moved, way, rtol=1e-4, atol=3e-7 + 1e-4 * rate)
    np.testing.assert_array_equal(params["unused"], golden[f"out/{case}/unused{steps}"])
