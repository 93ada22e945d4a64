"""The records and the steps of a training that keeps the fraction and the length of a paper."""

import dataclasses
import shutil

import pytest

from launch.evaluation import finetune, finetune_config, labelled_part, suite, suite_parts
from launch.evaluation.measured import said_of
from launch.evaluation.set_checks import check_task
from launch.evaluation.task_base import TaskData
from launch.evaluation.tasks import load_task
from prior_jax.config import read_config
from prior_jax.data import pipeline
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import ConfigError, DataError
from tests.launch import subjects
from tests.launch.test_finetune import encoder

CLASSES = ("Effusion",)
TRAIN = [f"s{index:05d}" for index in range(30)]
SETTINGS = [f"data.fraction.{name}" for name in ("share", "rule", "seed")]
BENCHX = "configs/eval/segmentation/benchx.py:siim_1"


@pytest.fixture(scope="module")
def opened_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opened")
    path = subjects.write_set(folder / "set", train=30, validate=6, test=6)
    return encoder(str(path), folder / "weights")


@pytest.fixture
def subject(opened_once, tmp_path):
    """The model on a copy of the set, beside which a test may write an order."""
    path = shutil.copytree(opened_once.data.path, tmp_path / "set")
    return dataclasses.replace(
        opened_once, data=dataclasses.replace(opened_once.data, path=str(path))
    )


def task(name="segmentation/lovt.py:rsna_10_linear", **changes):
    given = load_task(f"configs/eval/{name}")
    section = dataclasses.replace(given.finetune, **changes)  # type: ignore[attr-defined]
    return dataclasses.replace(given, classes=CLASSES, finetune=section)


def write_order(tmp_path, ids):
    file = tmp_path / "set" / "split_order.train.txt"
    file.write_text("".join(f"{name}\n" for name in ids))


def trained(given, subject):
    """The ids of the studies that a task trains on."""
    config = finetune_config.config_of(given, subject, start=None, classes=CLASSES)
    data = dataclasses.replace(read_config(config, workdir=subject.cache_dir).data, batch_size=1)
    split = pipeline.open_split(data, "train", cache_dir=subject.cache_dir)
    return [split.record(index).study_id for index in split.trained.tolist()]


def test_the_first_images_are_those_of_the_papers_order_where_the_set_has_it(subject, tmp_path):
    given = task()
    assert trained(given, subject) == TRAIN[:3]
    said = said_of(given, subject, subjects.splits_of(subject))[-1]
    assert said.startswith("the 10 % of the training records are chosen by their positions in the")
    assert "for the set has no split_order.train.txt; prepare" in said
    write_order(tmp_path, TRAIN[::-1])
    assert trained(given, subject) == TRAIN[-3:]
    assert not finetune.remarks(given, subject, subjects.splits_of(subject))
    own = tmp_path / "own.txt"
    own.write_text("\n".join(TRAIN[10:20]))
    assert trained(task(overrides=(f"data.fraction.ids={own}",)), subject) == TRAIN[10:11]
    # The labelled part of our own tasks is a share of the patients, in no order.
    ours = task("detection/any_set.py", fraction=0.1)
    assert labelled_part.ids_of(ours, subject.data.path) is None
    assert not labelled_part.remarks(ours, subject.data.path)


def test_an_order_that_names_a_study_twice_is_not_read_and_one_of_others_is_refused(
    subject, tmp_path
):
    given = task()
    write_order(tmp_path, [*TRAIN, TRAIN[0]])
    assert trained(given, subject) == TRAIN[:3]
    (said,) = labelled_part.remarks(given, subject.data.path)
    assert "split_order.train.txt cannot be used (1 ids are listed twice" in said
    write_order(tmp_path, ["gone", *TRAIN[1:]])
    config = finetune_config.config_of(given, subject, start=None, classes=CLASSES)
    leave_out = "'data.fraction.absent=leave_out'"
    with pytest.raises(DataError, match=rf"'gone'.*task\.finetune\.overrides.*{leave_out}"):
        finetune._records(config, subject)
    less = task(overrides=("data.fraction.absent=leave_out",))
    assert trained(less, subject) == TRAIN[1:3]


@pytest.mark.parametrize("name", ["data.fraction", *SETTINGS])
def test_share_rule_and_seed_of_a_paper_stay(name):
    with pytest.raises(ConfigError, match=r"measured\. Set --task\.finetune\.config instead"):
        task(overrides=(f"{name}=None",))


def test_a_list_in_no_use_is_refused():
    with pytest.raises(ConfigError, match=r"measured\. Set --task\.finetune\.fraction instead"):
        task("detection/any_set.py", overrides=("data.fraction.ids=list.txt",))


def test_a_list_that_is_not_there_is_refused_before_a_model(tmp_path):
    missing = r"task\.finetune\.overrides: .*train_1\.txt is none: .*data\.fraction\.ids=FILE"
    with pytest.raises(ConfigError, match=missing):
        check_task(load_task(BENCHX))
    whole = load_task("configs/eval/suite.py")
    with pytest.raises(ConfigError, match=missing):
        suite.check_suite(dataclasses.replace(whole, tasks=(BENCHX,)))  # type: ignore[arg-type]
    (tmp_path / "list.txt").write_text("a.png\n")
    ids = f"data.fraction.ids={tmp_path / 'list.txt'}"
    check_task(task("segmentation/benchx.py:siim_1", overrides=(ids,)))
    check_task(load_task(BENCHX.replace("_1", "_100")))


def test_a_part_of_a_suite_is_measured_anew_in_another_order(subject, tmp_path):
    given = dataclasses.replace(task(), data=TaskData(path=subject.data.path))
    part = suite_parts.Part(set_name="a", name="a", task=given)
    manifest, found = load_manifest(subject.data.path), []
    for ids in (TRAIN, TRAIN[::-1], TRAIN):
        write_order(tmp_path, ids)
        found.append(suite_parts.identity(part, subject, manifest))
    assert found[0] == found[2] != found[1]


def test_a_training_of_a_paper_that_is_cut_says_so(subject, tmp_path):
    write_order(tmp_path, TRAIN)
    opened = subjects.splits_of(subject)
    steps = 100 * (1601 // 64)  # of LoVT's release, whatever the set has
    (said,) = finetune.remarks(task(max_steps=7), subject, opened)
    assert said.startswith(f"the training is cut to 7 of the {steps} steps of configs/finetune/")
    assert finetune.remarks(task(max_steps=steps), subject, opened) == []
    # Of the 30 records 3 are learnt, in batches of 2.
    epochs = ("stage_unit=epochs", "stages.frozen.length=50", "validate_every=1")
    (said,) = finetune.remarks(task(max_steps=10, overrides=epochs), subject, opened)
    assert said.startswith("the training is cut to 10 of the 50 steps of configs/finetune/")
    assert finetune.remarks(task("detection/any_set.py"), subject, opened) == []


def test_a_training_of_a_paper_that_cannot_be_validated_says_so(subject, tmp_path):
    write_order(tmp_path, TRAIN)
    opened = subjects.splits_of(subject)
    blank = dataclasses.replace(opened("validate"), region_labels=[()] * 6)

    def without_findings(split):
        return blank if split == "validate" else opened(split)

    (said,) = finetune.remarks(task(), subject, without_findings)
    assert said == (
        "the set has no finding of the classes to validate on, so that "
        "configs/finetune/lovt_segmentation.py:rsna_10_linear is trained without lowering its rate "
        "and ending early, and its last checkpoint is measured"
    )
    assert finetune.remarks(task("detection/any_set.py"), subject, without_findings) == []


def test_a_suite_does_not_cut_the_trainings_of_papers():
    given = dataclasses.replace(
        load_task("configs/eval/suite.py"),
        tasks=(
            "configs/eval/detection/lovt.py:rsna_1",
            "configs/eval/segmentation/gloria.py:siim_1",
            "configs/eval/detection/any_set.py",
        ),  # type: ignore[arg-type]
    )
    parts = suite_parts.parts_of(given, {"a": "/a"})  # type: ignore[arg-type]
    assert [one.task.finetune.max_steps for one in parts] == [None, None, *(200,) * 3]  # type: ignore[attr-defined]
