"""A checkpoint of PRIOR's first stage is used as it was trained: without its prototypes."""

import dataclasses

import jax
import numpy as np
import pytest

import prior_jax
from configs import debug
from launch.evaluation import models
from launch.export import export
from prior_jax.interface import inputs
from tests import fixtures
from tests.launch import saved_runs

TEXTS = ["The heart is large.", "No effusion is seen."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set, a tokenizer and the folder "run" of a model before its first step."""
    tmp = tmp_path_factory.mktemp("first_stage")
    prepared = fixtures.write_prepared(tmp / "set", studies=8, validate=4, test=4)
    words = fixtures.train_sentencepiece(tmp / "tokenizer.model")
    saved_runs.saved(debug.get_config(), tmp / "run", prepared, tokenizer=words)
    return tmp


def sentences(model):
    tokens = inputs.process_prompts(TEXTS, tokenizer=model.tokenizer, settings=model.text)
    arrays = dataclasses.astuple(tokens)
    kept, _ = model.module.encode_sentences(*arrays, train=False)
    found = model.objective.encode_report(model.module, *arrays)
    return np.asarray(found.local), np.asarray(kept)


def test_its_sentences_are_kept_when_it_is_loaded_and_when_it_is_exported(folder, tmp_path):
    export(folder / "run", tmp_path / "weights", formats=("nnx",))
    for model in (prior_jax.load(folder / "run"), prior_jax.load(tmp_path / "weights")):
        found, kept = sentences(model)
        np.testing.assert_array_equal(found, kept)


def test_its_sentences_are_kept_when_it_is_evaluated(folder):
    run = saved_runs.opened(
        debug.get_config(), folder / "run", folder / "set", tokenizer=folder / "tokenizer.model"
    )
    assert run.objective.encodes_prototypes
    with jax.set_mesh(run.place.mesh):
        subject = models.of_run(run, step=None)
    assert not subject.objective.encodes_prototypes
