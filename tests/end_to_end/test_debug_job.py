"""The debug job as the README gives it: what it leaves in its folder."""

import ast
import html.parser
import json
import math

import jax
import jax.numpy as jnp
import pytest

from prior_jax.train.checksum import as_text, batch_sums
from tests.end_to_end import runs

STAGES = ("stage1", "stage2", "stage3")
TERMS = {
    "stage1": {"global_alignment", "local_image", "local_text", "sentence_region"},
    "stage2": {"global_alignment", "local_image", "local_text", "sentence_region", "prototype"},
    "stage3": {
        "global_alignment",
        "local_image",
        "local_text",
        "sentence_region",
        "prototype",
        "image_reconstruction",
        "sentence_prototype",
        "prototype_kl",
        "global_prototype",
    },
}
RANKS = (1, 5, 10)
METRICS = {
    "zero_shot": {"macro_auroc", "accuracy", "macro_f1", "kappa"},
    "retrieval": {f"{name}_at_{k}" for name in ("precision", "recall") for k in RANKS}
    | {f"report_to_image_{name}_at_{k}" for name in ("precision", "recall") for k in RANKS},
}


def test_every_step_is_logged_once_with_its_stages_terms(finished):
    lines = runs.lines(finished.workdir)
    assert [line["step"] for line in lines] == list(range(1, runs.STEPS + 1))
    assert [line["stage"] for line in lines] == [s for s in STAGES for _ in range(8)]
    for line in lines:
        terms = {f"{name}_loss" for name in TERMS[line["stage"]]}
        own = {name for name in line if not name.startswith("validation_")}
        assert {name for name in own if name.endswith("_loss")} == terms | {"total_loss"}
        assert {"batch", "lr", "grad_norm", "pairs_per_second", "input_wait"} <= own
        assert all(math.isfinite(line[name]) for name in line if name not in ("stage", "batch"))
        assert 0 <= line["input_wait"] <= 1 < line["pairs_per_second"] + 1
    banked = [line for line in lines if any("perplexity" in name for name in line)]
    assert [line["stage"] for line in banked] == ["stage2"] * 8 + ["stage3"] * 8
    validated = [line["step"] for line in lines if "validation_total_loss" in line]
    assert validated == [runs.STEPS]


@pytest.mark.parametrize("task", METRICS)
def test_evaluation_gives_values_in_their_intervals(finished, task):
    found = json.loads((finished.workdir / "eval" / f"{task}.json").read_text())
    assert found.keys() == {"task", "metrics", "untrained", "settings"}
    assert found["task"] == task
    for part in ("metrics", "untrained"):
        assert METRICS[task] <= found[part].keys()
        for name, metric in found[part].items():
            assert metric.keys() == {"value", "low", "high"}, name
            assert metric["low"] <= metric["value"] <= metric["high"], name
    assert found["metrics"] != found["untrained"]
    assert found["settings"]["step"] == runs.STEPS
    assert f"{task}.json" in finished.output and "untrained" in finished.output


class Resources(html.parser.HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        fetched = ("src", "srcset", "poster", "data", "xlink:href")
        self.found += [v or "" for name, v in attrs if name in fetched]
        if tag == "link":
            self.found += [v or "" for name, v in attrs if name == "href"]


def test_the_report_needs_no_network(finished):
    text = (finished.workdir / "report" / "index.html").read_text()
    page = Resources()
    page.feed(text)
    assert page.found and all(value.startswith("data:") for value in page.found)
    assert "url(http" not in text and "@import" not in text
    for expected in ("stage1", "stage2", "stage3", "auroc", "recall"):
        assert expected in text.lower(), expected


def test_the_folder_says_what_was_run(finished):
    config = json.loads((finished.workdir / "config.json").read_text())
    assert config["name"] == "debug" and config["data"]["path"] is None
    assert list((finished.workdir / "tensorboard").iterdir())
    assert "ETA" in finished.output and "input wait" in finished.output


@pytest.mark.slow
def test_the_same_command_again_finds_nothing_to_train(finished, tmp_path):
    before = (finished.workdir / "metrics.jsonl").read_bytes()
    results = (finished.workdir / "eval" / "zero_shot.json").read_bytes()
    output = runs.go(finished.workdir)
    assert "begins at step" not in output
    assert (finished.workdir / "metrics.jsonl").read_bytes() == before
    assert (finished.workdir / "eval" / "zero_shot.json").read_bytes() == results


@pytest.mark.slow
def test_a_task_can_be_measured_alone_and_otherwise(finished):
    code, output = runs.finish(
        runs.start(
            finished.workdir,
            "--task=configs/eval/retrieval.py",
            "--task.split=validate",
            "--task.batch_size=16",
            program="launch.evaluate",
        )
    )
    assert code == 0, output
    found = json.loads((finished.workdir / "eval" / "retrieval_validate.json").read_text())
    assert found["settings"]["split"] == "validate"
    of_test = json.loads((finished.workdir / "eval" / "retrieval.json").read_text())
    assert of_test["settings"]["split"] == "test"


def test_a_line_of_the_metrics_is_traced_to_its_records_as_the_page_says(finished, capsys):
    page = runs.ROOT / "docs" / "how_training_works.md"
    (block,) = page.read_text().split("```python\n")[1:]
    code, found = block.split("```")[0], {}
    assert "/tmp/prior_debug" in code
    exec(code.replace("/tmp/prior_debug", str(finished.workdir)), found)
    sums = as_text(batch_sums(jax.tree.map(jnp.asarray, found["batch"])))
    assert sums == runs.lines(finished.workdir)[found["step"] - 1]["batch"]
    assert len(ast.literal_eval(capsys.readouterr().out)) == len(found["batch"].record)
