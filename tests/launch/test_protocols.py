"""The protocols of papers under configs/eval: their files, and what they measure."""

import dataclasses
import json
import pathlib
import runpy

import jax
import numpy as np
import pytest

from launch.evaluation.task_results import measure
from launch.evaluation.tasks import load_task, task_of
from prior_jax.errors import DataError
from prior_jax.evaluate.bootstrap import BootstrapConfig
from tests import fixtures
from tests.launch import subjects

FILES = sorted(pathlib.Path("configs/eval").glob("*/[a-z]*.py"))
CLASSES = ("Effusion", "Cardiomegaly")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("protocols")
    tokenizer = fixtures.train_sentencepiece(folder / "tokenizer.model")
    path = subjects.write_set(folder / "set", train=2, validate=2, test=40)
    return subjects.reader(path, folder, tokenizer=tokenizer)


def measured(subject, given, **changes):
    few = BootstrapConfig(resamples=10, confidence=0.9, seed=0)
    given = dataclasses.replace(given, batch_size=16, bootstrap=few, **changes)
    with jax.set_mesh(subject.place.mesh):
        opened = subjects.splits_of(subject)
        found = measure(given, subject.trained, subject=subject, opened=opened)
    json.dumps(found.settings, allow_nan=False)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_protocol_has_results_of_its_own_name(path):
    assert load_task(str(path)).result == f"{path.parent.name}_{path.stem}"


def test_benchx_and_gloria_differ_in_their_gallery(reader):
    benchx = load_task("configs/eval/retrieval/benchx.py")
    found = measured(reader, benchx, classes=CLASSES)
    assert found.settings["galleries"] == 1 and found.settings["kind"] == "global"
    assert {"precision_at_10", "hit_at_5", "recall_at_1", "mean_rank"} <= set(found.metrics)
    assert "report_to_image_mean_rank" in found.metrics
    # The own report is relevant by definition.
    halves = dataclasses.replace(benchx.gallery, gallery=5)
    assert measured(reader, benchx, classes=CLASSES, gallery=halves).settings["galleries"] == 8
    gloria = measured(reader, load_task("configs/eval/retrieval/gloria.py"), classes=CLASSES)
    assert gloria.settings["records"] < 40 and "precision_at_100" in gloria.metrics


def test_priors_scores_are_the_sum_of_two_softmaxes(reader):
    found = measured(reader, load_task("configs/eval/zero_shot/prior.py"), classes=CLASSES)
    assert found.settings["local_weight"] == 0.5
    for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        assert 0 <= found.metrics[name].value <= 1


def test_draws_are_averaged_and_too_large_ones_are_refused(reader):
    config = runpy.run_path("configs/eval/zero_shot/prior.py")["get_config"]("draws")
    config.classes = CLASSES
    with pytest.raises(DataError, match=r"200 records of each class.*'Effusion'"):
        measured(reader, task_of(config))
    config.zero_shot.draws.each = 3
    found = measured(reader, task_of(config)).settings["over_draws"]
    assert found["accuracy"]["count"] == 5 and 0 <= found["accuracy"]["mean"] <= 1


@pytest.mark.parametrize("name", ["gloria", "cxr_clip"])
def test_several_classes_are_answered(reader, name):
    classes = ("Pleural Effusion", "Cardiomegaly")
    found = measured(reader, load_task(f"configs/eval/zero_shot/{name}.py"), classes=classes)
    counts = [len(found.settings["prompts"][label]["affirm"]) for label in classes]
    assert counts == ([5, 5] if name == "gloria" else [54, 15])
    assert not np.isnan(found.metrics["accuracy"].value)


def test_each_finding_is_asked_for_by_its_name(reader):
    config = runpy.run_path("configs/eval/zero_shot/cxr_clip.py")["get_config"]("binary")
    config.classes = CLASSES
    found = measured(reader, task_of(config))
    assert found.settings["prompts"]["Effusion"] == {
        "affirm": ["Effusion"],
        "deny": ["No Effusion"],
    }
    assert task_of(config).result == "zero_shot_cxr_clip_binary"
