"""The suite: what it runs and leaves out, its table, and that it goes on after a kill."""

import csv
import dataclasses
import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest

from launch.evaluation import finetune, models, suite, suite_parts, suite_table
from launch.start import program
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import WeightsError
from prior_jax.evaluate import results
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.results import TaskResult
from prior_jax.report import suites
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement
from tests.interface.test_classifier import saved
from tests.launch import subjects
from tests.launch.small_suites import TASKS, run, task


@pytest.fixture(scope="module")
def whole(reader, sets, tmp_path_factory):
    """The undisturbed suite of one set that is read, one without boxes, and one that is not."""
    given = task(sets=(*(f"{n}={p}" for n, p in sets.items()), "lost=/nowhere"))
    out = tmp_path_factory.mktemp("suite") / "whole"
    return given, run(reader, given, out), out


def test_parts_are_done_left_out_or_failed_and_the_rest_goes_on(whole):
    _, content, _ = whole
    states = {(one["set"], one["task"]): (one["state"], one["reason"]) for one in content["parts"]}
    assert states["boxes", "zero_shot"] == ("done", "")
    assert states["boxes", "classification"] == ("left out", "the model is no classifier")
    assert states["plain", "phrase_grounding"] == ("left out", "the set has no boxes or masks")
    assert states["boxes", "phrase_grounding"][0] == "done"
    assert states["lost", ""][0] == "failed" and "/nowhere" in states["lost", ""][1]
    probes = [name for name, _ in states.items() if name[0] == "plain" and "probe" in name[1]]
    assert [name for _, name in probes] == ["probe_50_percent", "probe_50_percent_seed_1", "probe"]


def test_the_table_has_the_random_baseline_and_intervals_over_seeds(whole):
    _, content, out = whole
    rows = {(row["set"], row["task"], row["metric"]): row for row in content["rows"]}
    one = rows["boxes", "probe", "macro_auroc"]
    assert one["low"] <= one["value"] <= one["high"] and one["random"] is not None
    seeds = rows["boxes", "probe_50_percent_over_seeds", "macro_auroc"]
    first = rows["boxes", "probe_50_percent", "macro_auroc"]["value"]
    second = rows["boxes", "probe_50_percent_seed_1", "macro_auroc"]["value"]
    assert seeds["low"] is None and content["intervals"]["least_seeds"] == 3
    assert seeds["seeds"] == 2 and seeds["value"] == pytest.approx((first + second) / 2)
    assert rows["boxes", "probe", "auroc_effusion"]["by_class"] and not one["by_class"]
    with (out / "eval" / "suite.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(content["rows"]) and tuple(read[0]) == suite_table.COLUMNS
    assert float(read[0]["value"]) == content["rows"][0]["value"]
    page = (out / "report" / "index.html").read_text()
    assert "<h3>Suite</h3>" in page and "the set has no boxes or masks" in page
    assert page.count("“") >= 3 and "boxes: Phrase grounding" in page
    assert "plain: Phrase grounding" not in page
    _, sets_named = page.split("<h1>")[1].split("</h1>")[0].split(" on ")
    assert sets_named == "boxes, plain"
    data = page.split("<h2>Data</h2>")[1].split("</header>")[0]
    assert "<h3>boxes</h3>" in data and "<h3>plain</h3>" in data and data.count(">train<") == 2
    assert results.read_results(out) == []  # the table is no task's result


class Killed(BaseException):
    """Ends the suite where it stands, as a signal does."""


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.slow), "after"])
def test_killed_between_parts_it_ends_with_the_same_table(
    whole, reader, tmp_path, monkeypatch, when
):
    given, content, out = whole
    count, real = 0, results.write_results

    def write(*arguments, **named):
        nonlocal count
        count += 1
        if count % 3 == 0 and when == "before":
            raise Killed
        path = real(*arguments, **named)
        if count % 3 == 0:
            raise Killed
        return path

    monkeypatch.setattr(results, "write_results", write)
    killed = 0
    for _ in range(20):
        try:
            assert run(reader, given, tmp_path) == content
            break
        except Killed:
            killed += 1
    assert killed >= 3
    for name in ("suite.json", "suite.csv"):
        assert (tmp_path / "eval" / name).read_bytes() == (out / "eval" / name).read_bytes()


def test_a_part_is_measured_anew_only_for_other_weights_sets_or_settings(
    whole, reader, monkeypatch
):
    given, content, out = whole

    def measured(*arguments, **named):
        raise AssertionError("measured anew")

    monkeypatch.setattr(suite, "measure_both", measured)
    assert run(reader, given, out) == content
    path = str(given.named_sets()["boxes"])
    (part,) = (
        one for one in suite_parts.parts_of(given, {"boxes": path}) if one.name == "retrieval"
    )
    manifest = load_manifest(path)
    ours = suite_parts.identity(part, reader, manifest)
    other = dataclasses.replace(reader, about={"run": "prior", "step": 9})
    assert suite_parts.identity(part, other, manifest) != ours
    less = dataclasses.replace(part, task=dataclasses.replace(part.task, min_positives=1))
    assert suite_parts.identity(less, reader, manifest) != ours
    elsewhere = load_manifest(given.named_sets()["plain"])
    assert suite_parts.identity(part, reader, elsewhere) != ours


def test_an_unforeseen_error_of_a_part_is_named_and_passed_over(
    reader, sets, tmp_path, monkeypatch
):
    def measured(given, *arguments, **named):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(suite, "measure_both", measured)
    given = task(sets=(f"plain={sets['plain']}",), tasks=TASKS[:2])
    content = run(reader, given, tmp_path)
    assert [one["state"] for one in content["parts"]] == ["failed", "failed"]
    assert content["parts"][0]["reason"] == "RuntimeError: out of memory"


def test_damaged_weights_of_a_part_are_told_as_they_are(
    reader, sets, tmp_path, monkeypatch, caplog
):
    def measured(given, *arguments, **named):
        raise WeightsError("An array is damaged.", "Import the weights again.", where="w")

    monkeypatch.setattr(suite, "measure_both", measured)
    given = task(sets=(f"plain={sets['plain']}",), tasks=TASKS[:1])
    with jax.set_mesh(reader.place.mesh):  # without the report
        suite.run_suite(given, reader, out=tmp_path, opened=lambda one, split: one.open(split))
    (part,) = json.loads((tmp_path / "eval" / "suite.json").read_text())["parts"]
    assert part["reason"] == "w: An array is damaged. Import the weights again."
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.usefixtures("handled_interrupts")
@pytest.mark.parametrize("outcome", ["interrupt", "error"])
def test_an_interrupt_ends_the_suite_and_fails_no_part(
    reader, sets, tmp_path, monkeypatch, capfd, program_logging, outcome
):
    real, measured = suite.measure_both, []

    def interrupted(given, *arguments, **named):
        measured.append(given.task)
        if len(measured) < 2:
            return real(given, *arguments, **named)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            if outcome == "interrupt":
                raise
        raise RuntimeError("Event loop is closed")  # of a library that took the interrupt

    given = task(sets=(f"plain={sets['plain']}",), tasks=TASKS[:2])
    with monkeypatch.context() as patch:
        patch.setattr(suite, "measure_both", interrupted)
        code = program.guarded(lambda: run(reader, given, tmp_path), [""])
    assert code == 75
    assert capfd.readouterr().err.splitlines()[-1] == (
        "The suite was asked to stop, and keeps the results of finished parts. Run the same "
        "command again to resume."
    )
    assert not (tmp_path / "eval" / "suite.json").exists()
    content = run(reader, given, tmp_path)
    assert [one["state"] for one in content["parts"]] == ["done", "done"]


def test_a_classifier_is_measured_beside_imagenet_weights(sets, tmp_path):
    subject = subjects.classifier(sets["plain"], tmp_path, classes=("Effusion", "Cardiomegaly"))
    saved(tmp_path / "imagenet", "mean")
    given = task(imagenet=str(tmp_path / "imagenet"), fractions=(1.0,))
    content = run(subject, given, tmp_path / "out")
    states = {one["task"]: one["state"] for one in content["parts"]}
    assert states["classification"] == states["probe"] == "done"
    assert states["zero_shot"] == states["retrieval"] == "left out"
    rows = {(row["task"], row["metric"]): row for row in content["rows"]}
    assert rows["probe", "macro_auroc"]["imagenet"] is not None
    assert rows["classification", "macro_auroc"]["imagenet"] is None
    sheet = suites.read(tmp_path / "out")
    assert sheet is not None and sheet.columns == ["Model", "Random", "ImageNet"]
    assert [one.name for one in sheet.sets] == ["plain"]
    (curve,) = sheet.sets[0].curves
    assert curve.chart.title == "Classification" and "calibration error" in curve.note


def test_trainings_run_at_each_fraction_and_seed_beside_random_and_imagenet(
    sets, tmp_path, monkeypatch
):
    """What a training learns is not tested here: its result is told by what it started from."""
    for name in ("ours", "imagenet"):
        saved(tmp_path / name, "mean")
    place = placement(MeshConfig(axes={"data": 1}, data_axes=("data",)), devices=jax.devices()[:1])
    subject = models.of_weights(
        tmp_path / "ours", path=sets["plain"], place=place, cache_dir=tmp_path / "cache"
    )
    begun = []

    def trained(task, subject, opened, *, start, classes, folder):
        begun.append(str(folder.relative_to(tmp_path / "out" / "suite" / "plain")))
        return 0.5 if start is None else 0.7 + 0.1 * (pathlib.Path(start.path).name == "ours")

    def measured(task, subject, run, opened):
        value = run + task.finetune.seed / 100
        draws = value + np.linspace(-0.01, 0.01, 5)
        return TaskResult(
            metrics={"macro_auroc": Interval(value=value, low=0.0, high=1.0, draws=draws)},
            settings={},
        )

    monkeypatch.setattr(finetune, "_trained", trained)
    monkeypatch.setattr(finetune, "_measured", measured)
    monkeypatch.setattr(finetune, "_about", lambda *_: {})
    given = task(
        sets=(f"plain={sets['plain']}",),
        tasks=("configs/eval/finetune.py:linear", "configs/eval/finetune.py"),
        imagenet=str(tmp_path / "imagenet"),
        max_steps=7,
        seeds=(0, 1, 2),
    )
    parts = suite_parts.parts_of(given, given.named_sets())
    assert {part.task.finetune.max_steps for part in parts} == {7}
    content = run(subject, given, tmp_path / "out")
    rows = {(row["task"], row["metric"]): row for row in content["rows"]}
    for way in ("linear", "finetune"):
        row = rows[f"{way}_50_percent_seed_1", "macro_auroc"]
        values = [row[k] for k in ("value", "random", "imagenet")]
        assert values == pytest.approx([0.81, 0.51, 0.71])
        row = rows[f"{way}_50_percent_over_seeds", "macro_auroc"]
        assert (row["seeds"], row["value"]) == (3, pytest.approx(0.81))
        assert row["low"] < 0.79 and row["random_high"] > 0.52 and row["imagenet_low"] < 0.69
        name = f"{way}_50_percent"
        wanted = [f"finetune/{name}/model", f"finetune/{name}/random"]
        wanted.append(f"imagenet/finetune/{name}/model")
        assert [path for path in begun if f"/{name}/" in path] == wanted
    assert len(begun) == 24 and run(subject, given, tmp_path / "out") == content
    assert len(begun) == 24  # nothing is trained again
