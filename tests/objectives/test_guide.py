"""The objective that the tutorial on objectives writes out is an objective."""

import pathlib
import re
import sys
import types

import jax
import numpy as np
import pytest
from flax import nnx

from configs import debug
from configs.baselines import objectives, phantom
from prior_jax.config import read_config
from prior_jax.objectives import kinds
from prior_jax.objectives.base import weighted_sum
from prior_jax.objectives.convirt import ConvirtConfig, ConvirtObjective
from tests.nn.small import filled
from tests.objectives import baselines

ROOT = pathlib.Path(__file__).parents[2]
STAGE = ConvirtObjective.stages[0]


def blocks():
    """The Python blocks of the guide: the objective, its row and its config."""
    text = (ROOT / "docs" / "tutorials" / "add_an_objective.md").read_text()
    program, row, config = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    return program, row, config


@pytest.fixture
def even(monkeypatch):
    """The module of the guide, put where the guide puts it."""
    program, row, config = blocks()
    module = types.ModuleType("even")
    monkeypatch.setitem(sys.modules, "even", module)
    exec(compile(program, "even.py", "exec"), vars(module))
    kind = eval(row.split(":", 1)[1].strip().rstrip(","), vars(kinds) | vars(module))
    monkeypatch.setitem(kinds.KINDS, "even", kind)
    made = {}
    exec(config, made)
    monkeypatch.setitem(objectives.OBJECTIVES, "even", made["even"])
    return module


def loss_of(objective):
    model = filled(lambda: objective.init(nnx.Rngs(0)))
    found = objective.loss_terms(
        model, baselines.batch_of(4), stage=STAGE, step=0, key=jax.random.key(0), train=False
    )
    return weighted_sum(found.terms, objective.weights(STAGE))


def test_the_guides_objective_is_convirt_with_equal_directions(even):
    given = baselines.config_of("convirt", image_share=0.5)
    fields = {name: getattr(given, name) for name in even.EvenConfig.__dataclass_fields__}
    ours = even.EvenObjective(even.EvenConfig(**fields), vocabulary=baselines.VOCABULARY)
    theirs = ConvirtObjective(given, vocabulary=baselines.VOCABULARY)
    assert isinstance(given, ConvirtConfig)
    np.testing.assert_allclose(loss_of(ours), loss_of(theirs), rtol=1e-6)


def test_the_guides_config_is_accepted(even, tmp_path):
    for given in (phantom.get_config("even"), debug.get_config("even")):
        config = read_config(given, workdir=tmp_path)
        assert isinstance(config.model, even.EvenConfig)
