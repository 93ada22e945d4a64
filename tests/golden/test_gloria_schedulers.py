"""Learning rates of GLoRIA's schedulers, against torch's own.

The release's trainer never steps the scheduler that it is given (quirk G53), and all of its configs
ask for the plateau: of its "warmup" scheduler the rise and the constant part are built
(quirk G54), its fall from epoch 22 on and its "step" scheduler are not.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.train.patience import Patience
from prior_jax.train.stages import PlateauConfig, Stage, learning_rate
from tests.golden.reader import load

pytestmark = pytest.mark.golden

FALLS = 22  # the epoch from which the release's "warmup" falls: gloria/builder.py


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load(golden_dir, "gloria", "metrics_schedulers").prefix("out/scheduler/")


def stage_of(**changes):
    fields = dict(name="train", steps=1, schedule="constant", plateau=None, learning_rate=1.0)
    fields |= dict(learning_rate_start=1.0, learning_rate_end=0.0, warmup_steps=0)
    return Stage(**(fields | dict(schedule_steps=None, weight_decay=1e-6) | changes))


def based(golden, pattern):
    """The rate that a schedule starts from, which its name says, and what was recorded."""
    (found,) = filter(None, (re.fullmatch(pattern, name) for name in golden))
    rate = float(found[1])
    return {"learning_rate": rate, "learning_rate_start": rate}, golden[found[0]]


def rates(stage, count):
    rate = functools.partial(learning_rate, stage, past_end="rise")
    return np.asarray(jax.vmap(rate)(jnp.arange(count, dtype=jnp.int32)))


def test_the_cosine_falls_and_climbs_again(golden):
    base, wanted = based(golden, r"cos_lr_base(\d*\.?\d+)")
    # CosineAnnealingLR(T_max=10): release, gloria/builder.py.
    stage = stage_of(schedule="cosine", steps=len(wanted), schedule_steps=10, **base)
    found = rates(stage, len(wanted))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_the_warm_up_is_a_rise_to_a_constant_hundredth(golden):
    (name,) = (name for name in golden if re.fullmatch(r"warmup_multiplier_epoch0_\d+", name))
    wanted = golden[name][:FALLS]
    stage = stage_of(
        steps=len(wanted), learning_rate=0.01, learning_rate_start=0.001, warmup_steps=4
    )
    np.testing.assert_allclose(rates(stage, len(wanted)), wanted, rtol=1e-5)


def test_the_plateau_lowers_the_rate_where_torch_does(golden_dir, golden):
    metric = load(golden_dir, "gloria", "metrics_schedulers")["in/scheduler/plateau_metric"]
    # ReduceLROnPlateau(factor=0.5, patience=5): release, gloria/builder.py.
    plateau = PlateauConfig(
        metric="loss", factor=0.5, patience=5, threshold=1e-4, min_learning_rate=0.0
    )
    base, wanted = based(golden, r"plateau_lr_base(\d*\.?\d+)_if_it_were_stepped")
    stage, patience, found = stage_of(schedule="plateau", plateau=plateau, **base), Patience(), []
    for value in metric:
        patience = patience.after({"loss": float(value)}, stage=stage, stopping=None)
        found.append(base["learning_rate"] * patience.factor)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
