import dataclasses
import json

import numpy as np
import pytest

from prior_jax.errors import DataError
from prior_jax.evaluate import results
from prior_jax.evaluate.bootstrap import Interval

TRAINED = results.TaskResult(
    metrics={
        "macro_auroc": Interval(value=0.9, low=0.85, high=0.95),
        "auroc_edema": Interval(value=np.nan, low=np.nan, high=np.nan),
    },
    settings={"records": 7, "undefined": {"auroc_edema": "no positive of Edema is counted"}},
)
UNTRAINED = results.TaskResult(
    metrics={"macro_auroc": Interval(value=0.5, low=0.4, high=0.6)}, settings={}
)


def write(workdir, **changes):
    arguments = {"task": "zero_shot", "trained": TRAINED, "untrained": UNTRAINED, "settings": {}}
    return results.write_results(workdir, **{**arguments, **changes})


def test_the_file_has_exactly_the_promised_form(tmp_path):
    path = write(tmp_path, settings={"step": 30})
    assert path == tmp_path / "eval" / "zero_shot.json"
    content = json.loads(path.read_text())
    assert set(content) == {"task", "metrics", "untrained", "settings"}
    assert content["task"] == "zero_shot"
    assert content["metrics"]["macro_auroc"] == {"value": 0.9, "low": 0.85, "high": 0.95}
    assert content["metrics"]["auroc_edema"] == {"value": None, "low": None, "high": None}
    assert content["untrained"] == {"macro_auroc": {"value": 0.5, "low": 0.4, "high": 0.6}}
    assert content["settings"]["step"] == 30 and content["settings"]["records"] == 7


def test_a_second_evaluation_replaces_the_first_and_leaves_nothing_else(tmp_path):
    write(tmp_path)
    write(tmp_path, settings={"step": 60})
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["zero_shot.json"]
    assert results.read_results(tmp_path)[0]["settings"]["step"] == 60


def test_no_evaluation_is_an_empty_list(tmp_path):
    assert results.read_results(tmp_path) == []


def test_a_file_with_lists_for_objects_is_named(tmp_path):
    for name, value in (("settings", []), ("metrics", 1), ("task", None)):
        path = write(tmp_path)
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
        with pytest.raises(DataError, match=r"zero_shot\.json.*'settings' objects"):
            results.read_results(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "x"}'])
def test_a_damaged_file_is_named(tmp_path, text):
    write(tmp_path).write_text(text)
    with pytest.raises(DataError, match=r"zero_shot\.json"):
        results.read_results(tmp_path)


@pytest.mark.parametrize("task", ["", "../x", "a b"])
def test_a_task_that_is_no_file_name_is_refused(tmp_path, task):
    with pytest.raises(DataError, match="task"):
        write(tmp_path, task=task)


def test_settings_that_are_no_json_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(DataError, match="settings of zero_shot"):
        write(tmp_path, settings={"loss": float("nan")})
    assert not (tmp_path / "eval").exists()


def test_the_table_sets_trained_beside_untrained_and_names_what_is_missing():
    lines = results.format_table(TRAINED, UNTRAINED).splitlines()
    assert lines[0].split() == ["metric", "trained", "untrained"]
    assert lines[1].split(maxsplit=1) == [
        "macro_auroc",
        "0.900 [0.850, 0.950]   0.500 [0.400, 0.600]",
    ]
    assert lines[2].split() == ["auroc_edema", "-", "-"]
    trained = dataclasses.replace(TRAINED, settings={"finetune": {"fraction": 1.0}})
    assert results.format_table(trained, UNTRAINED).split("\n")[0].endswith("from random weights")
    trained = dataclasses.replace(TRAINED, settings={"began_with_weights": True})
    assert results.format_table(trained, UNTRAINED).split("\n")[0].endswith("  before training")
    assert lines[3] == "auroc_edema is undefined: no positive of Edema is counted."
