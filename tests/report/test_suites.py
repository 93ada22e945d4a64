"""The table of a suite on the page: grouped by set and task, single classes and seeds folded."""

import itertools
import json

import pytest

from launch.evaluation.suite_table import COLUMNS, SIDES, Row, over_seeds_rows
from prior_jax.errors import DataError
from prior_jax.report import page, suites
from tests.report.pages import RUN, Reader

METRICS = ("auroc_edema", "auroc_mass", "accuracy", "macro_auroc", "report_to_image_hit_at_5")
TASKS = ("zero_shot", "probe_10_percent", "probe_10_percent_seed_1", "probe_10_percent_seed_2")


def row(name, task, metric, number):
    empty = dict.fromkeys(COLUMNS)
    return {
        **empty,
        "set": name,
        "task": task,
        "metric": metric,
        "by_class": metric.startswith("auroc_"),
        "seeds": 1,
        "value": 0.5 + number / 1000,
        "low": 0.4,
        "high": 0.9,
        "random": 0.25,
        "chance": 0.125 if metric == "macro_auroc" else None,
    }


@pytest.fixture
def folder(tmp_path):
    cells = itertools.product(("nih", "rsna", "vindr"), TASKS, METRICS)
    rows = [row(*cell, number) for number, cell in enumerate(cells)]
    drawn = [Row(cells=one, draws=dict.fromkeys(SIDES)) for one in rows]
    rows += over_seeds_rows(drawn, confidence=0.95)
    part = {"set": "nih", "task": "retrieval", "state": "left out", "reason": "there is no report"}
    (tmp_path / "eval").mkdir()
    content = {"model": {}, "parts": [part], "rows": rows}
    (tmp_path / "eval" / "suite.json").write_text(json.dumps(content))
    return tmp_path


def test_rows_are_grouped_by_set_and_task_with_means_over_classes_first(folder):
    sheet = suites.read(folder)
    assert sheet.columns == ["Model", "Random"] and sheet.chance
    assert [one.name for one in sheet.sets] == ["nih", "rsna", "vindr"]
    zero_shot, probe = sheet.sets[0].tasks
    assert (zero_shot.label, zero_shot.interval) == ("Zero shot", "intervals over patients")
    assert [one.label for one in zero_shot.rows] == [
        "Macro AUROC", "Accuracy", "Report to image hit at 5"
    ]  # fmt: skip
    assert [one.label for one in zero_shot.by_class] == ["AUROC edema", "AUROC mass"]
    assert zero_shot.rows[0].chance == "0.125" and zero_shot.rows[1].chance == ""
    assert zero_shot.rows[0].cells[0].interval == "[0.400, 0.900]"
    assert zero_shot.rows[0].cells[1].text == "0.250" and not zero_shot.rows[0].cells[1].interval
    assert probe.label == "Probe 10 percent" and not zero_shot.seeds
    assert probe.interval == (
        "mean over 3 seeds, intervals over patients and seeds, cut at the metric's range"
    )
    assert [one.label.rpartition(", ")[2] for one in probe.seeds] == [
        "first seed", "seed 1", "seed 2"
    ]  # fmt: skip
    assert probe.rows[0].cells[0].text == "0.513"  # the mean of 0.508, 0.513 and 0.518
    assert {one.interval for one in probe.seeds} == {"intervals over patients"}


def test_baselines_of_the_set_alone_stand_once(tmp_path):
    names = ("macro_pointing", "macro_middle", "macro_random")
    rows = [row("nih", "grounding", name, number) for number, name in enumerate(names)]
    rows[0]["chance"] = rows[2]["value"]
    (tmp_path / "eval").mkdir()
    content = {"model": {}, "parts": [], "rows": rows}
    (tmp_path / "eval" / "suite.json").write_text(json.dumps(content))
    (task,) = suites.read(tmp_path).sets[0].tasks
    shown = [(one.label, len(one.cells), one.chance) for one in task.rows]
    assert shown == [("Macro pointing", 2, "0.502"), ("Macro middle", 1, "")]
    text = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert "Macro middle the same for every model: 0.501 [0.400, 0.900]" in text


def test_a_mean_over_some_of_the_classes_says_over_how_many(tmp_path):
    names = ("macro_f1", "f1_edema", "f1_mass", "macro_auroc", "auroc_edema", "auroc_mass")
    rows = [row("nih", "finetune", name, number) for number, name in enumerate(names)]
    rows[2]["value"] = None
    for one in rows:
        one["by_class"] = not one["metric"].startswith("macro_")
    (tmp_path / "eval").mkdir()
    content = {"model": {}, "parts": [], "rows": rows}
    (tmp_path / "eval" / "suite.json").write_text(json.dumps(content))
    (task,) = suites.read(tmp_path).sets[0].tasks
    labels = [one.label for one in task.rows]
    assert labels == ["Macro F1, over 1 of 2 classes", "Macro AUROC"]
    shown = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert "it is the same training from random weights" in shown


@pytest.mark.parametrize(
    ("model", "column", "said"),
    [
        ({}, "Random", "Random is the same model at random weights;"),
        (
            {"run": "small", "began_with_weights": True},
            "Before training",
            "Before training is the same model at the weights that its run began with;",
        ),
    ],
)
def test_the_column_of_a_run_that_began_with_weights_is_not_called_random(
    tmp_path, model, column, said
):
    (tmp_path / "eval").mkdir()
    content = {"model": model, "parts": [], "rows": [row("nih", "zero_shot", "accuracy", 1)]}
    (tmp_path / "eval" / "suite.json").write_text(json.dumps(content))
    assert suites.read(tmp_path).columns == ["Model", column]
    assert said in Reader(page.write_report(tmp_path, run=RUN).read_text()).text


def test_two_seeds_show_the_value_of_each_and_why_there_is_no_interval(tmp_path):
    rows = [row("nih", task, "accuracy", number) for number, task in enumerate(TASKS[1:3])]
    rows += over_seeds_rows(
        [Row(cells=one, draws=dict.fromkeys(SIDES)) for one in rows], confidence=0.95
    )
    (tmp_path / "eval").mkdir()
    content = {"model": {}, "parts": [], "rows": rows}
    (tmp_path / "eval" / "suite.json").write_text(json.dumps(content))
    (task,) = suites.read(tmp_path).sets[0].tasks
    assert rows[-1]["low"] is None and rows[-1]["random_low"] is None
    assert task.interval == (
        "mean over 2 seeds, with the value of each: an interval over seeds needs at least 3"
    )
    model, random = task.rows[0].cells
    assert (model.text, model.interval) == ("0.500", "(0.500, 0.501)")
    assert (random.text, random.interval) == ("0.250", "(0.250, 0.250)")


def test_no_row_is_lost_and_the_page_is_well_formed(folder):
    rows = json.loads((folder / "eval" / "suite.json").read_text())["rows"]
    tasks = [task for one in suites.read(folder).sets for task in one.tasks]
    every = [one for task in tasks for one in (task, *task.seeds)]
    assert sum(len(one.rows) + len(one.by_class) for one in every) == len(rows) == 75
    reader = Reader(page.write_report(folder, run=RUN).read_text())
    assert "there is no report" in reader.text
    for shown in ("0.513", "Zero shot, by class: 2 rows", "seed 2, intervals over patients"):
        assert shown in reader.text
    assert reader.text.count("AUROC edema") == 15  # of every set, task and seed


def test_a_damaged_table_is_named(tmp_path):
    assert suites.read(tmp_path) is None
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "suite.json").write_text('{"rows": [{}]}')
    with pytest.raises(DataError, match=r"suite\.json"):
        suites.read(tmp_path)
