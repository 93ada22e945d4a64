"""What a set lacks for a task is said before a model is opened."""

import dataclasses
import os

import pytest

from launch.evaluation import suite
from launch.evaluation.set_checks import check_set, check_task
from launch.evaluation.tasks import load_task
from prior_jax.data.manifest import RegionCounts, load_manifest
from prior_jax.errors import ConfigError, DataError, WeightsError
from tests import fixtures
from tests.interface.test_classifier import saved
from tests.launch import mistakes, subjects


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "set"
    return load_manifest(fixtures.write_prepared(folder, studies=4, validate=0, test=3))


def task(name, **changes):
    return dataclasses.replace(load_task(f"configs/eval/{name}.py"), **changes)


def test_what_a_set_has_is_accepted(manifest):
    for name in ("zero_shot", "retrieval", "retrieval/benchx", "classification"):
        check_set(task(name), manifest)
    counted = RegionCounts(regions=1, boxes=1, masks=0, phrases=0)
    found = dataclasses.replace(manifest, regions={"Effusion": counted})
    for name in ("grounding", "phrase_grounding"):
        check_set(task(name), found)


@pytest.mark.parametrize("name", ["zero_shot", "classification"])
def test_a_set_without_labels(manifest, name):
    with pytest.raises(ConfigError, match="the set has no labels"):
        check_set(task(name), dataclasses.replace(manifest, label_names=()))


def test_a_set_without_regions(manifest):
    for name in ("grounding", "phrase_grounding"):
        with pytest.raises(ConfigError, match="the set has no boxes or masks"):
            check_set(task(name), manifest)


def test_a_phantom_that_was_drawn_has_the_places(manifest, tmp_path):
    check_set(task("grounding", masks=str(tmp_path)), manifest)
    (tmp_path / "phantom").mkdir()
    check_set(task("grounding"), manifest, drawn=tmp_path)


@pytest.mark.parametrize("name", ["retrieval", "retrieval/benchx"])
def test_a_set_without_reports(manifest, name):
    with pytest.raises(ConfigError, match="the set has no reports"):
        check_set(task(name), dataclasses.replace(manifest, text_sources={"none": 7}))


def test_grounding_by_the_sentences_of_a_set_without_reports(manifest):
    counted = RegionCounts(regions=1, boxes=1, masks=0, phrases=0)
    silent = dataclasses.replace(manifest, text_sources={"none": 7}, regions={"Effusion": counted})
    with pytest.raises(ConfigError, match=r"the set has no reports\. Set --task\.text=prompts"):
        check_set(task("grounding"), silent)
    check_set(task("grounding", text="prompts"), silent)


def test_a_split_without_records(manifest):
    with pytest.raises(ConfigError, match=r"'validate', .* it has records in train, test"):
        check_set(task("zero_shot", split="validate"), manifest)
    with pytest.raises(ConfigError, match="'validate', which the task 'probe' reads") as caught:
        check_set(task("probe"), manifest)
    # No other value of task.split would do.
    assert "task.split" not in str(caught.value) and "finetune.py:linear" in caught.value.remedy


def test_what_is_finetuned_needs_a_split_train_and_labels(manifest):
    without = dataclasses.replace(
        manifest, splits={name: one for name, one in manifest.splits.items() if name != "train"}
    )
    with pytest.raises(ConfigError, match="'train', which the task 'finetune' reads"):
        check_set(task("finetune"), without)
    with pytest.raises(ConfigError, match="the set has no labels"):
        check_set(task("finetune"), dataclasses.replace(manifest, label_names=()))


def test_weights_of_which_a_file_is_cut_off_are_refused_before_a_model(tmp_path):
    saved(tmp_path / "w", "mean")
    given = dataclasses.replace(load_task("configs/eval/suite.py"), imagenet=str(tmp_path / "w"))
    suite.check_suite(given)
    for file in (tmp_path / "w" / "arrays").rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            os.truncate(file, 50)
    with pytest.raises(WeightsError):
        suite.check_suite(given)


def test_grounding_on_the_own_set_of_a_run_or_a_config_that_has_regions(tmp_path):
    path = subjects.write_set(tmp_path / "set", train=8, validate=4, test=4)
    tokenizer = fixtures.train_sentencepiece(tmp_path / "tokenizer.model")
    mistakes.small_run(tmp_path / "run", path, tokenizer)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "eval").write_text("")  # found after the task is checked
    given = [f"--random.data.{name}" for name in (f"path={path}", f"tokenizer.path={tokenizer}")]
    grounding = "--task=configs/eval/grounding.py"
    random = ["--random=configs/small.py", "--out={tmp}/out", *given]
    cases = {
        "run": (mistakes.EVALUATE, ["--workdir={tmp}/run", grounding], "There is no checkpoint"),
        "config": (mistakes.EVALUATE, [*random, grounding], r"^--out: .*it is a file"),
    }
    said = mistakes.answers(cases, tmp_path)
    for name, (_, _, pattern) in cases.items():
        mistakes.assert_one_line(said[name], pattern)
    drawn = tmp_path / "run" / "data" / "raw"
    bare = subjects.write_set(tmp_path / "bare", train=1, validate=1, test=1, boxes=False)
    with pytest.raises(ConfigError, match="No finding can be located: the set has no boxes"):
        check_task(task("grounding"), drawn=drawn, own=str(bare))
    with pytest.raises(DataError, match="holds no phantom"):
        check_task(task("grounding"), drawn=drawn, own=str(tmp_path / "not_yet"))
