"""Settings of a suite, and what is refused before a model is opened."""

import dataclasses

import pytest

from launch.evaluation import suite, suite_parts
from launch.evaluation.tasks import load_task
from prior_jax.errors import ConfigError, DataError, WeightsError
from prior_jax.processes import lock
from tests.launch.small_suites import run, task


def test_sets_are_pairs_or_a_mapping_with_names_of_their_own(sets):
    assert task(sets=("a=/x", "b=/y=z")).named_sets() == {"a": "/x", "b": "/y=z"}
    mapped = dataclasses.replace(task(), sets={"a": "/x"})
    assert mapped.named_sets() == {"a": "/x"} and suite.on_first_set(mapped).data.path == "/x"
    for wrong in (("a",), ("a=/x", "a=/y"), ("=/x",), ("../a=/x",)):
        with pytest.raises(ConfigError, match=r"task\.sets"):
            task(sets=wrong)


def test_a_suite_without_any_set_or_with_itself_is_refused(reader, tmp_path):
    with pytest.raises(DataError, match=r"task\.sets.*/nowhere"):
        run(reader, task(sets=("a=/nowhere",)), tmp_path)
    own = dataclasses.replace(task(), tasks=("configs/eval/suite.py",))
    with pytest.raises(ConfigError, match=r"task\.tasks"):
        suite_parts.parts_of(own, {"a": "/x"})


def test_the_file_names_tasks_that_exist():
    for path in load_task("configs/eval/suite.py").tasks:  # type: ignore[attr-defined]
        load_task(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"fractions": (0.0, 1.0)},
        {"fractions": (1.5,)},
        {"fractions": (0.1, 0.1)},
        {"seeds": (0, 0)},
        {"seeds": (-1,)},
        {"max_steps": 0},
        {"detector_max_steps": 0},
        {"tasks": ("configs/eval/probe.py", "configs/eval/probe.py")},
    ],
)
def test_what_would_be_measured_twice_or_not_at_all_is_refused(changes):
    given = load_task("configs/eval/suite.py")
    with pytest.raises(ConfigError, match=next(iter(changes))):
        dataclasses.replace(given, **changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tasks": ("configs/eval/none.py",)}, "no file 'configs/eval/none.py'"),
        ({"tasks": ("configs/eval/__init__.py",)}, "no function get_config"),
        ({"tasks": ("configs/debug.py",)}, "holds no task"),
        ({"tasks": ("configs/eval/finetune.py:bogus",)}, "one of linear, finetune"),
        ({"tasks": ("configs/eval/probe.py", "./configs/eval/probe.py")}, "the same name as"),
        ({"fractions": (0.1, 0.10000001)}, "the same name at two fractions"),
    ],
)
def test_files_of_a_suite_are_read_before_a_model(changes, problem):
    given = dataclasses.replace(load_task("configs/eval/suite.py"), **changes)
    with pytest.raises(ConfigError, match=problem):
        suite.check_suite(given)


def test_weights_that_are_absent_are_refused_before_a_model(tmp_path):
    given = dataclasses.replace(load_task("configs/eval/suite.py"), imagenet=str(tmp_path))
    with pytest.raises(WeightsError, match=r"weights\.json"):
        suite.check_suite(given)


def test_two_suites_at_once_in_one_folder_are_refused(reader, sets, tmp_path):
    (tmp_path / "suite").mkdir()
    with lock.only_run(tmp_path / "suite"), pytest.raises(ConfigError, match=r"--out: .* in use"):
        run(reader, task(sets=(f"plain={sets['plain']}",)), tmp_path)
