"""A folder of results is that of one model, and can be written to."""

import dataclasses

import jax
import pytest

from launch import evaluate
from launch.evaluation import outputs
from launch.evaluation.tasks import load_task
from prior_jax.data import schema
from prior_jax.errors import ConfigError
from prior_jax.evaluate import results
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.results import TaskResult
from tests import fixtures
from tests.launch import small_suites, subjects

RUN = {"run": "small", "step": 30, "weights": "a" * 64}
WEIGHTS = {"weights": "c" * 64, "origin": {"source": "prior", "file": "prior.pt"}}
RANDOM = {"random": "small", "step": 0, "seed": 1}


def write(folder, about):
    found = TaskResult(metrics={"auroc": Interval(value=0.5, low=0.4, high=0.6)}, settings={})
    results.write_results(folder, task="probe", trained=found, untrained=found, settings=about)


@pytest.mark.parametrize(
    ("kept", "now"),
    [
        (RUN, RUN),
        (RUN, {**RUN, "step": 40, "weights": "b" * 64}),  # trained on
        (WEIGHTS, {**WEIGHTS, "origin": {"source": "prior", "file": "renamed.pt"}}),
        (RANDOM, RANDOM),
        ({}, RUN),  # of an earlier version, which does not say
        ({"run": "small", "step": 30}, RUN),
    ],
)
def test_results_of_the_same_model_are_replaced(tmp_path, kept, now):
    write(tmp_path, kept)
    outputs.check_same_model(tmp_path, about=now)


@pytest.mark.parametrize(
    ("kept", "now", "named"),
    [
        (RUN, WEIGHTS, "the run small at step 30"),
        (RUN, {**RUN, "run": "large"}, "the run small at step 30"),
        (RUN, {**RUN, "weights": "b" * 64}, "the run small at step 30"),
        (WEIGHTS, RUN, "the weights cccccccccccc of prior.pt"),
        (WEIGHTS, {**WEIGHTS, "weights": "d" * 64}, "the weights cccccccccccc of prior.pt"),
        (RANDOM, {**RANDOM, "seed": 2}, "the config small with seed 1"),
        (RANDOM, RUN, "the config small with seed 1"),
    ],
)
def test_results_of_another_model_are_not_mixed(tmp_path, kept, now, named):
    write(tmp_path, kept)
    with pytest.raises(ConfigError, match=named) as caught:
        outputs.check_same_model(tmp_path, about=now)
    assert caught.value.where == "--out" and "Give --out=DIR" in str(caught.value)


def test_a_suite_of_another_model_is_not_mixed(tmp_path):
    write(tmp_path / "suite" / "nih", WEIGHTS)
    (tmp_path / "suite" / "rsna" / "eval").mkdir(parents=True)
    (tmp_path / "suite" / "rsna" / "eval" / "probe.json").write_text("{")
    outputs.check_same_model(tmp_path, about=WEIGHTS)
    with pytest.raises(ConfigError, match=r"suite/nih/eval/probe\.json holds .* another model"):
        outputs.check_same_model(tmp_path, about=RUN)


@pytest.mark.parametrize(
    ("name", "kind"), [("config.json", "another run"), ("manifest.json", "a prepared set")]
)
def test_the_folder_of_another_run_or_of_a_set_is_refused(tmp_path, name, kind):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=f"belongs to {kind}: it holds {name}"):
        outputs.check_own(tmp_path, run=tmp_path / "other")
    outputs.check_own(tmp_path, run=tmp_path / "eval" / "..")
    outputs.check_own(tmp_path / "results", run=None)


def test_results_that_came_meanwhile_are_not_joined_by_those_of_another_model(tmp_path):
    where = {"set": "one", "set_path": "/one", **WEIGHTS}
    outputs.check_unchanged(tmp_path, task="probe", where=where, about=WEIGHTS)
    write(tmp_path, RANDOM)  # by another evaluation, while this one measured
    with pytest.raises(ConfigError, match="the config small with seed 1"):
        outputs.check_unchanged(tmp_path, task="probe", where=where, about=WEIGHTS)
    (tmp_path / "config.json").write_text("{}")  # the folder of a run is that of one model
    outputs.check_unchanged(tmp_path, task="probe", where=where, about=WEIGHTS)


def test_a_model_that_reads_no_sentences_of_labels_has_a_report_without_examples(tmp_path):
    of_labels = {
        name: [
            dataclasses.replace(subjects.study(index), text_source=schema.TEXT_LABELS)
            for index in numbers
        ]
        for name, numbers in {"train": range(2), "validate": [2], "test": range(3, 7)}.items()
    }
    path = fixtures.write_splits(tmp_path / "set", of_labels)
    tokenizer = fixtures.train_sentencepiece(tmp_path / "tokenizer.model")
    both = subjects.reader(path, tmp_path, tokenizer=tokenizer)
    data = dataclasses.replace(both.data, text_sources=(schema.TEXT_REPORT,))
    subject = dataclasses.replace(both, data=data)
    with jax.set_mesh(subject.place.mesh):
        evaluation = evaluate.Evaluation(subject, out=tmp_path / "out")
        evaluation.report(load_task("configs/eval/probe.py"))
    assert (tmp_path / "out" / "report" / "index.html").is_file()


def test_a_model_of_the_first_stage_shows_no_random_decoder(reader, tmp_path):
    early = dataclasses.replace(reader, stages=("stage1",))
    with jax.set_mesh(reader.place.mesh):
        evaluation = evaluate.Evaluation(early, out=tmp_path / "out")
        evaluation.report(load_task("configs/eval/probe.py"))
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "The closest reports" in page and "Where the text looks" in page
    assert "Input and reconstruction share" not in page
    assert "was trained in stage1 alone, and the decoder of its images is still random." in page


def test_a_set_without_the_split_of_its_tasks_still_has_a_report(reader, tmp_path, capsys):
    splits = {"train": [subjects.study(i) for i in range(4)], "validate": [subjects.study(4)]}
    subject = subjects.on_other_set(reader, fixtures.write_splits(tmp_path / "set", splits))
    tasks = [load_task(f"configs/eval/{name}.py") for name in ("zero_shot", "retrieval")]
    suite = small_suites.task(tasks=small_suites.TASKS[:1])
    with jax.set_mesh(subject.place.mesh):
        evaluate.evaluate(subject, tasks, out=tmp_path / "run", pass_over=True)
        evaluate.evaluate(subject, [suite], out=tmp_path / "suite")
    said = capsys.readouterr().out
    for name in ("zero_shot", "retrieval"):
        assert f"The task {name} was skipped: " in said
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    page = (tmp_path / "suite" / "report" / "index.html").read_text()
    assert "the set has no record in test" in page
