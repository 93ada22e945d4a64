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

from configs.eval import suite as config_of_suite
from configs.eval import zero_shot
from launch import evaluate
from launch.evaluation import finetune, models, suite, suite_parts, suite_table
from launch.evaluation.tasks import load_task, task_of
from launch.start import program
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import ConfigError, DataError, WeightsError
from prior_jax.evaluate import results
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.results import TaskResult
from prior_jax.processes import lock
from prior_jax.report import suites
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement
from tests import fixtures
from tests.interface.test_classifier import saved
from tests.launch import subjects

TASKS = tuple(
    f"configs/eval/{name}.py"
    for name in ("zero_shot", "retrieval", "classification", "probe", "phrase_grounding")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("suite")


@pytest.fixture(scope="module")
def sets(folder):
    """A set with regions and reports, and one without regions."""
    return {
        "boxes": str(subjects.write_set(folder / "boxes", train=30, validate=20, test=30)),
        "plain": str(
            subjects.write_set(folder / "plain", train=30, validate=20, test=20, boxes=False)
        ),
    }


@pytest.fixture(scope="module")
def reader(folder, sets):
    tokenizer = fixtures.train_sentencepiece(folder / "tokenizer.model")
    return subjects.reader(sets["boxes"], folder, tokenizer=tokenizer)


def task(**changes):
    config = config_of_suite.get_config()
    config.tasks = TASKS
    config.batch_size = 16
    config.fractions = (0.5, 1.0)
    config.seeds = (0, 1)
    config.bootstrap.resamples = 5
    config.update(changes)
    return task_of(config)


def run(subject, given, out):
    with jax.set_mesh(subject.place.mesh):
        evaluate.evaluate(subject, [given], out=out)
    return json.loads((out / "eval" / "suite.json").read_text())


@pytest.fixture(scope="module")
def whole(reader, sets, folder):
    """The undisturbed suite of one set that is read, one without boxes, and one that is not."""
    given = task(sets=(*(f"{n}={p}" for n, p in sets.items()), "lost=/nowhere"))
    return given, run(reader, given, folder / "whole"), folder / "whole"


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


@pytest.mark.parametrize("when", ["before", "after"])
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


def test_a_part_is_measured_anew_for_a_file_of_prompts_that_changed(reader, sets, tmp_path):
    file = tmp_path / "prompts.json"
    config = zero_shot.get_config()
    config.prompts.set = str(file)
    part = suite_parts.Part(set_name="boxes", name="zero_shot", task=task_of(config))
    manifest, found = load_manifest(sets["boxes"]), []
    for sentence in ("An effusion.", "Pleural fluid.", "An effusion."):
        file.write_text(json.dumps({"Effusion": [sentence]}))
        found.append(suite_parts.identity(part, reader, manifest))
    assert found[0] == found[2] != found[1]


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


def test_a_damaged_table_is_named(tmp_path):
    assert suites.read(tmp_path) is None
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "suite.json").write_text('{"rows": [{}]}')
    with pytest.raises(DataError, match=r"suite\.json"):
        suites.read(tmp_path)


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


def test_masks_and_boxes_are_trained_where_the_set_has_them(reader, sets, tmp_path):
    given = task(
        tasks=("configs/eval/segmentation/any_set.py", "configs/eval/detection/any_set.py"),
        fractions=(0.5, 1.0),
        region_fractions=(0.01,),
        seeds=(0, 1, 2),
        max_steps=7,
        detector_max_steps=9,
    )
    parts = suite_parts.parts_of(given, {"boxes": sets["boxes"]})
    names = ("segmentation_any_set_1_percent", "detection_any_set_1_percent")
    assert [one.name for one in parts] == [
        f"{name}{end}" for name in names for end in ("", "_seed_1", "_seed_2")
    ]
    assert [one.task.finetune.max_steps for one in parts] == [7, 7, 7, 9, 9, 9]
    manifest = load_manifest(sets["boxes"])
    assert [suite_parts.obstacle(one, reader, manifest) for one in parts] == [None] * 6
    plain = load_manifest(sets["plain"])
    assert {suite_parts.obstacle(one, reader, plain) for one in parts} == {
        "the set has no boxes or masks"
    }


def test_a_set_of_boxes_alone_is_segmented_only_by_a_protocol(reader, sets):
    manifest = load_manifest(sets["boxes"])
    boxes = dataclasses.replace(
        manifest,
        regions={
            name: dataclasses.replace(one, boxes=one.regions, masks=0)
            for name, one in manifest.regions.items()
        },
    )

    def reason(file, found):
        part = suite_parts.Part(set_name="a", name="a", task=load_task(f"configs/eval/{file}"))
        return suite_parts.obstacle(part, reader, found)

    told = reason("segmentation/any_set.py", boxes)
    assert told is not None and told.startswith("the set has boxes alone")
    assert reason("segmentation/any_set.py", manifest) is None
    assert reason("segmentation/lovt.py:rsna_10_linear", boxes) is None
    assert reason("detection/any_set.py", boxes) is None
