"""A run is opened beside the prepared set that it was trained on, and beside no other."""

import dataclasses
import json
import shutil

import jax
import pytest

import prior_jax
from configs import debug
from configs.finetune import debug as classifier_config
from launch.evaluation import models
from launch.export import export
from launch.export_source import open_source
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import CheckpointError
from prior_jax.interface.trained import check_trained_on
from tests import fixtures
from tests.launch import saved_runs

OTHER = r"changed: The prepared set has the fingerprint \w{64}, but the run was trained on \w{64}\."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets, a tokenizer and a run of each kind of model on the first set."""
    tmp = tmp_path_factory.mktemp("changed_set")
    prepared = fixtures.write_prepared(tmp / "set", studies=8, validate=4, test=4)
    fixtures.write_prepared(tmp / "changed", studies=8, validate=4, test=4, seed=1)
    words = fixtures.train_sentencepiece(tmp / "tokenizer.model")
    saved_runs.saved(debug.get_config("clip"), tmp / "reader", prepared, tokenizer=words)
    classifier = classifier_config.get_config()
    classifier.model.classes = fixtures.LABEL_NAMES[:2]
    saved_runs.saved(classifier, tmp / "classifier", prepared)
    return tmp


def on(prepared, run, to):
    """Copies a run, and names another folder of its set in the config."""
    shutil.copytree(run, to)
    config = json.loads((to / "config.json").read_text())
    config["data"]["path"] = str(prepared)
    (to / "config.json").write_text(json.dumps(config))
    return to


OPENERS = {
    "load": ("reader", prior_jax.load),
    "a new head": ("reader", lambda run: prior_jax.load_classifier(run, 3)),
    "a new decoder": ("reader", lambda run: prior_jax.load_segmenter(run, 3)),
    "load_classifier": ("classifier", prior_jax.load_classifier),
    "export of a reader": ("reader", lambda run: open_source(run, step=None)),
    "export of a classifier": ("classifier", lambda run: open_source(run, step=None)),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_a_run_is_not_opened_beside_another_set(opener, folder, tmp_path):
    run, opens = OPENERS[opener]
    with pytest.raises(CheckpointError, match=OTHER) as caught:
        opens(on(folder / "changed", folder / run, tmp_path / "run"))
    assert caught.value.where == str(folder / "changed")
    assert "Restore the set" in caught.value.remedy


@pytest.mark.parametrize("opener", ["load", "load_classifier", "export of a reader"])
def test_a_set_that_was_moved_is_the_same_set(opener, folder, tmp_path):
    shutil.copytree(folder / "set", tmp_path / "moved")
    run, opens = OPENERS[opener]
    opens(on(tmp_path / "moved", folder / run, tmp_path / "run"))


def test_a_run_is_evaluated_beside_its_own_set_alone(folder):
    def of_run(prepared, words=folder / "tokenizer.model"):
        config = debug.get_config("clip")
        run = saved_runs.opened(config, folder / "reader", prepared, tokenizer=words)
        with jax.set_mesh(run.place.mesh):
            return models.of_run(run, step=None)

    own = of_run(folder / "set")
    other = dataclasses.replace(own.data, path=str(folder / "changed"))  # as --task.data.path does
    assert len(dataclasses.replace(own, data=other).open("test").texts) == 4
    with pytest.raises(CheckpointError, match=OTHER):
        of_run(folder / "changed")
    words = fixtures.train_sentencepiece(folder / "changed.model", seed=1)
    with pytest.raises(CheckpointError, match=r"changed\.model: The tokenizer has the sha256"):
        of_run(folder / "set", words)


def test_a_checkpoint_that_does_not_tell_its_set_is_accepted(folder):
    check_trained_on(load_manifest(folder / "set"), {"tokenizer": "876e"}, path="set")


def test_the_weights_of_a_run_have_its_fingerprint(folder, tmp_path):
    export(folder / "reader", tmp_path / "weights", formats=("nnx",))
    run, weights = prior_jax.load(folder / "reader"), prior_jax.load(tmp_path / "weights")
    assert run.fingerprint == weights.fingerprint
