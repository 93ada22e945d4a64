"""A tiny model of every objective, and what its towers give, for the tests of export."""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from prior_jax.interop.export.towers import towers
from prior_jax.objectives.prior import PriorObjective
from tests.nn.small import filled
from tests.objectives import baselines, tiny
from tests.objectives import test_gloria as gloria

SIZES = {"image_shape": (tiny.SIDE, tiny.SIDE, 1), "max_tokens": 24, "max_sentences": 5}
NAMES = ("prior-paper", "prior-release", "gloria-paper", "gloria-release", *baselines.KINDS)


@functools.cache
def made(name, **changes):
    """An objective and its model."""
    kind, _, fidelity = name.partition("-")
    if kind == "prior":
        pool = {"paper": "attention", "release": "mean"}[fidelity]
        config = tiny.tiny_config(fidelity=fidelity, sentence_pool=pool, **changes)
        objective = PriorObjective(config)
        return objective, filled(lambda: objective.init(nnx.Rngs(0)))
    if kind == "gloria":
        image = dataclasses.replace(gloria.config_of().image, upsample=48)
        objective, (graph, params, rest) = gloria.made(fidelity=fidelity, image=image, **changes)
    else:
        objective, (graph, params, rest) = baselines.made(kind, **changes)
    return objective, nnx.merge(graph, params, rest)


def inputs(rows):
    """tower -> input -> array, of a batch of `rows`."""
    batch = baselines.batch_of(rows)
    names = {"image": ("image",)}
    names["text"] = ("tokens", "token_mask", "sentence_index", "sentence_mask")
    return {
        tower: {name: np.asarray(getattr(batch, name)) for name in found}
        for tower, found in names.items()
    }


def expected(objective, model, rows):
    """tower -> output -> array, as the objective itself computes it."""
    found = towers(objective, model, **SIZES)
    return {
        name: jax.tree.map(np.asarray, jax.jit(found[name].function)(*arrays.values()))
        for name, arrays in inputs(rows).items()
    }


def assert_near(actual, expected, tolerance):
    """Each output, to the tolerance times its largest value."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name].shape == value.shape and actual[name].dtype == value.dtype, name
        size = np.abs(value).max(initial=0)
        np.testing.assert_allclose(
            np.float64(actual[name]), np.float64(value), rtol=0, atol=tolerance * size, err_msg=name
        )
