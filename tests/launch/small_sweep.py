"""A sweep of two arms of the debug job, and the results that its trials would leave."""

import math

import numpy as np
from ml_collections import ConfigDict

from configs.sweeps import objectives
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.results import TaskResult, write_results

SHIFT = {"plain": 0.0, "quick": 0.1}
NOISE = (0.02, 0.0, -0.02)


def settings(**changes) -> ConfigDict:
    """Two arms of the debug job, three seeds."""
    config = objectives.get_config()
    debug = "configs/debug.py"
    config.data = ConfigDict(dict(config=debug, overrides=()))
    config.arms = (
        dict(name="plain", config=debug, overrides=()),
        dict(name="quick", config=debug, overrides=(("optimizer.beta2", 0.9),)),
    )
    config.budget = ConfigDict(dict(steps=10, batch_size=16))
    config.shared = (("validate_every", 10),)
    config.reference = "plain"
    for name, value in changes.items():
        with config.unlocked():
            config[name] = value
    return config


def changed_debug(folder, line):
    """A file with the debug config and one more line."""
    path = folder / "changed_debug.py"
    path.write_text(
        "from configs import debug\n\n\ndef get_config():\n"
        f"    config = debug.get_config()\n    {line}\n    return config\n"
    )
    return str(path)


def leave(folder, *, arm, seed, patients=50, missing=False):
    """What a trial would leave: its AUROC is 0.6, the arm's shift, and the seed's noise."""
    luck = np.random.default_rng(seed).normal(size=200) * 0.05
    value = 0.6 + SHIFT[arm] + NOISE[seed] + 0.001 * seed * (arm == "quick")
    metric = Interval(value=value, low=0.0, high=1.0, draws=value + luck)
    missed = Interval(value=math.nan, low=math.nan, high=math.nan, draws=np.full(200, math.nan))
    result = TaskResult(
        metrics={"macro_auroc": missed if missing else metric},
        settings={"records": 60, "patients": patients, "classes": ["Edema"]},
    )
    before = TaskResult(
        metrics={"macro_auroc": Interval(value=0.5, low=0.0, high=1.0)}, settings={}
    )
    write_results(folder, task="zero_shot", trained=result, untrained=before, settings={})
