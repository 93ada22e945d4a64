"""BenchX's classifications: the settings of its methods, and a rate at which every step trains."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.finetune import benchx_nih, benchx_rsna
from prior_jax.config import read_config
from prior_jax.errors import ConfigError
from prior_jax.train.stages import learning_rate

SETS = {"nih": benchx_nih, "rsna": benchx_rsna}
NAMES = [
    (data_set, f"{method}_{percent}")
    for data_set, module in SETS.items()
    for method in module.METHODS
    for percent in module.COUNTS
]


def opened(data_set, name, folder):
    """The config as a run has it, its stage, and the rate of each of its steps."""
    config = read_config(SETS[data_set].get_config(name), workdir=folder)
    (stage,) = config.schedule(steps_per_epoch=1)
    past_end = config.optimizer.past_end
    return (
        config,
        stage,
        np.asarray(learning_rate(stage, jnp.arange(stage.steps), past_end=past_end)),
    )


@pytest.mark.parametrize(("data_set", "name"), NAMES)
def test_every_step_of_a_method_trains(data_set, name, tmp_path):
    config, stage, rates = opened(data_set, name, tmp_path)
    method, percent = name.split("_")
    given = SETS[data_set].METHODS[method]
    assert config.data.batch_size == given.batch
    epochs = stage.steps * given.batch / SETS[data_set].COUNTS[percent]
    assert stage.steps == given.planned or 200 <= epochs < 260  # the last batch is a whole one
    assert (rates > 0).all() and np.isclose(rates.max(), given.rate)
    assert stage.steps < given.planned or rates[-1] < 1e-5 * given.rate
    assert stage.steps // config.train.validate_every >= 10


@pytest.mark.parametrize(("data_set", "name"), NAMES)
def test_the_rate_of_the_release_rises_again(data_set, name, tmp_path):
    config, stage, rates = opened(data_set, f"{name}_release", tmp_path)
    method, percent = name.split("_")
    given = SETS[data_set].METHODS[method]
    batches = -(-SETS[data_set].COUNTS[percent] // given.batch)
    assert stage.steps == 201 * batches and config.train.validate_every == 5 * batches
    assert rates[0] == 0 < rates[1]
    again = 2 * given.planned - given.warmup
    if stage.steps > again:
        assert np.isclose(rates[again], given.rate)


def test_a_percentage_alone_is_glorias(tmp_path):
    plain, named = (benchx_rsna.get_config(name).to_dict() for name in ("10", "gloria_10"))
    assert plain.pop("name") == "benchx_rsna_10" and named.pop("name") == "benchx_rsna_gloria_10"
    assert plain == named


@pytest.mark.parametrize("name", ["2", "clip_1", "_1", "mgca", "1_paper", "release"])
def test_another_name_is_refused(name):
    with pytest.raises(ConfigError, match=r"name: .*a percentage \(1, 10, 100\).*mgca.*_release"):
        benchx_nih.get_config(name)
