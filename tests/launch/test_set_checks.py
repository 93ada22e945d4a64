"""What a set lacks for a task is said before a model is opened."""

import dataclasses

import pytest

from launch.evaluation.set_checks import check_set
from launch.evaluation.tasks import load_task
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import ConfigError
from tests import fixtures


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "set"
    return load_manifest(fixtures.write_prepared(folder, studies=4, validate=0, test=3))


def task(name, **changes):
    return dataclasses.replace(load_task(f"configs/eval/{name}.py"), **changes)


def test_what_a_set_has_is_accepted(manifest):
    for name in ("zero_shot", "retrieval", "classification", "grounding"):
        check_set(task(name), manifest)


@pytest.mark.parametrize("name", ["zero_shot", "classification"])
def test_a_set_without_labels(manifest, name):
    with pytest.raises(ConfigError, match="the set has no labels"):
        check_set(task(name), dataclasses.replace(manifest, label_names=()))


def test_a_set_without_regions(manifest):
    with pytest.raises(ConfigError, match="the set has no boxes or masks"):
        check_set(task("phrase_grounding"), manifest)


def test_a_split_without_records(manifest):
    with pytest.raises(ConfigError, match=r"'validate', .* it has records in train, test"):
        check_set(task("zero_shot", split="validate"), manifest)
    with pytest.raises(ConfigError, match="'validate', which the task 'probe' reads"):
        check_set(task("probe"), manifest)
