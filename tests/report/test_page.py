"""The page as a whole: it needs no other file, escapes text, and says what is absent."""

import dataclasses
import json
import re

import numpy as np
import pytest

from prior_jax.errors import DataError
from prior_jax.evaluate import local_use, results
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.objectives.kinds import KINDS
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import RELEASE_WEIGHTS
from prior_jax.report import page
from prior_jax.report.examples import AttentionExample, BankUsage, ReconstructionExample, RunInfo
from prior_jax.report.losses import Losses, losses_of
from tests.objectives.tiny import tiny_config
from tests.report.pages import RUN, Reader, examples

EVIL = "<script>alert('x')</script> & \"quoted\" </style>"


def write_run(workdir):
    """A workdir with a metrics file and a results file, one metric of which is null."""
    lines = [
        {"step": s, "stage": f"stage{1 + s // 4}", "lr": 1e-4, "total_loss": 1.0 / s}
        for s in range(1, 9)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    trained = results.TaskResult(
        metrics={
            "macro_auroc": Interval(value=0.91, low=0.85, high=0.95),
            "auroc_edema": Interval(value=np.nan, low=np.nan, high=np.nan),
        },
        settings={
            "records": 12,
            "chance": {"macro_auroc": 0.5},
            "left_out": {"Mass": "1 positive record in test, and 3 are needed"},
            "undefined": {"auroc_edema": f"no positive of {EVIL} is counted"},
        },
    )
    untrained = results.TaskResult(
        metrics={"macro_auroc": Interval(value=0.52, low=0.4, high=0.6)}, settings={}
    )
    results.write_results(
        workdir, task="zero_shot", trained=trained, untrained=untrained, settings={}
    )


def test_the_whole_page_is_well_formed_and_carries_everything_in_itself(tmp_path):
    write_run(tmp_path)
    text = page.write_report(tmp_path, run=RUN, **examples()).read_text()
    reader = Reader(text)
    assert all(a.startswith(("data:image/", "#")) for a in reader.addresses)
    assert sum(a.startswith("data:image/") for a in reader.addresses) >= 8
    assert not re.search(r"https?:|url\(|@import", text)
    assert not reader.tags & {"script", "link", "iframe", "object", "embed"}
    assert reader.unnamed == []
    assert {a[1:] for a in reader.addresses if a.startswith("#")} <= set(reader.ids)
    assert "prefers-color-scheme" in text and 'name="viewport"' in text


def test_the_figures_stand_beside_the_untrained_ones(tmp_path):
    write_run(tmp_path)
    shown = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert "Macro AUROC 0.910 [0.850, 0.950] 0.520 [0.400, 0.600] 0.500" in shown
    assert "no positive of" in shown
    few = "Left out for too few records: Mass (1 positive record in test, and 3 are needed)."
    assert few in shown
    assert "nih Split studies images train 1,200 1,300 test 100 –" in shown
    assert "model.embed_dim 8" in shown and "model.depths 1, 2" in shown and "jax 0.10.2" in shown


def test_the_losses_that_look_at_the_image_are_named_and_others_marked_as_untrained(tmp_path):
    config = tiny_config(weights={s: {**w, "local_image": 0.0} for s, w in RELEASE_WEIGHTS.items()})
    run = dataclasses.replace(RUN, losses=losses_of(PriorObjective(config)))
    numbers = dict.fromkeys(local_use.NAMES, 0.5)
    line = {
        "step": 2,
        "stage": "stage1",
        "local_image_loss": 1.0,
        "local_text_loss": 1.0,
        **numbers,
    }
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    shown = Reader(page.write_report(tmp_path, run=run).read_text()).text
    assert "trained (local_text) is 0.50 nats higher (50 %" in shown
    assert "Local image loss (weight 0: measured, not trained)" in shown
    assert shown.count("not trained") == 1


def test_a_validation_whose_numbers_were_not_finite_is_passed_over(tmp_path):
    lines = [
        {"step": step, "stage": "stage1", "total_loss": 1.0, **dict.fromkeys(local_use.NAMES, use)}
        for step, use in enumerate((0.5, None))
    ]
    lines[0][local_use.NAMES[0]] = 0.25
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shown = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert "trained is 0.25 nats higher (50 %" in shown
    assert Losses().local_use(lines[1:]) is None


def test_the_split_of_each_task_is_named(tmp_path):
    write_run(tmp_path)
    found = results.TaskResult(metrics={"accuracy": Interval(value=1, low=1, high=1)}, settings={})
    results.write_results(
        tmp_path, task="probe", trained=found, untrained=found, settings={"split": "train"}
    )
    shown = Reader(page.write_report(tmp_path, run=RUN, **examples()).read_text()).text
    assert shown.count("Measured on the split") == shown.count("Measured on the split train.") == 1
    assert "held-out" not in shown.lower()


def test_baselines_of_the_set_alone_stand_once_and_chance_is_no_row(tmp_path):
    values = {"pointing": 0.6, "lung_centre": 0.3, "middle": 0.1, "random": 0.05}
    metrics = {
        f"{column}_{name}".removesuffix("_"): Interval(value=value, low=value, high=value)
        for column, value in values.items()
        for column, name in ((f"macro_{column}", ""), (column, "edema"))
    }
    chance = {"macro_pointing": 0.05, "pointing_edema": 0.05}
    found = results.TaskResult(metrics=metrics, settings={"classes": ["Edema"], "chance": chance})
    results.write_results(tmp_path, task="grounding", trained=found, untrained=found, settings={})
    shown = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert "Macro pointing 0.600 [0.600, 0.600] 0.600 [0.600, 0.600] 0.050" in shown
    for label, value in (("Macro lung centre", "0.300"), ("Middle edema", "0.100")):
        assert f"{label} the same for every model: {value} [{value}, {value}] –" in shown
    assert "Macro random" not in shown and "Random edema" not in shown


def write_training(workdir, task, fraction, value):
    values = {"macro_auroc": value, "macro_f1": 0.5, "f1_edema": 0.5}
    metrics = {name: Interval(value=v, low=v, high=v) for name, v in values.items()}
    lacking = ("f1_mass", "accuracy_mass", "balanced_accuracy_mass")
    metrics |= {name: Interval(value=np.nan, low=np.nan, high=np.nan) for name in lacking}
    settings = {
        "classes": ["Edema", "Mass"],
        "finetune": {"fraction": fraction},
        "undefined": dict.fromkeys(lacking, "validate has no positive of the class"),
    }
    found = results.TaskResult(metrics=metrics, settings=settings)
    results.write_results(workdir, task=task, trained=found, untrained=found, settings={})


def test_of_several_fractions_the_largest_is_shown_by_name_beside_random_weights(tmp_path):
    for task, fraction, value in (
        ("finetune", 1.0, 0.617),
        ("finetune_10_percent", 0.1, 0.601),
        ("finetune_1_percent", 0.01, 0.547),
    ):
        write_training(tmp_path, task, fraction, value)
    text = page.write_report(tmp_path, run=RUN).read_text()
    (tile,) = re.findall(r'<div class="tile">(.*?)</div>', text, flags=re.S)
    shown = Reader(tile).text
    assert shown.startswith("Macro AUROC 0.617 [0.617, 0.617] from random weights 0.617")
    assert shown.endswith("Finetune, learnt from 100 % of the labels")
    shown = Reader(text).text
    assert "untrained" not in shown.lower() and shown.count("From random weights") == 6
    assert shown.count("Macro F1 over 1 of 2 classes") == 3
    reason = "F1 mass, Accuracy mass, Balanced accuracy mass; validate has no positive"
    assert shown.count(f"Without a value: {reason} of the class.") == 3


def test_text_from_reports_settings_and_results_is_escaped(tmp_path):
    write_run(tmp_path)
    run = RunInfo(
        name=EVIL, settings={EVIL: EVIL}, versions={EVIL: EVIL}, datasets={EVIL: {EVIL: {EVIL: 1}}}
    )
    reader = Reader(page.write_report(tmp_path, run=run, **examples(EVIL)).read_text())
    assert "script" not in reader.tags
    assert reader.text.count(EVIL) >= 8


def test_an_empty_workdir_names_the_command_of_every_section(tmp_path):
    path = page.write_report(tmp_path, run=RUN)
    assert path == tmp_path / "report" / "index.html"
    shown = Reader(path.read_text()).text
    assert shown.count("python -m launch.train --config=CONFIG --workdir=WORKDIR") == 1
    assert shown.count("python -m launch.evaluate --workdir=WORKDIR") == 5
    assert "configs/eval/retrieval.py" in shown


def test_a_folder_of_an_evaluation_alone_asks_for_no_training(tmp_path):
    write_run(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    shown = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert "This folder holds an evaluation alone." in shown and "launch.train" not in shown
    assert "python -m" not in shown and "No attention was drawn" not in shown
    (tmp_path / "config.json").write_text("{}")
    shown = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert "evaluation alone" not in shown and "launch.train" in shown


@pytest.mark.parametrize("given", [(), ("attention", "bank"), tuple(examples())])
def test_every_link_of_a_folder_of_results_leads_to_a_section(tmp_path, given):
    write_run(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    drawn = {name: found for name, found in examples().items() if name in given}
    reader = Reader(page.write_report(tmp_path, run=RUN, **drawn).read_text())
    links = [address[1:] for address in reader.addresses if address.startswith("#")]
    assert links == reader.ids
    names = {"reconstructions": "reconstruction"}
    wanted = {"training", "evaluation", "settings", *(names.get(name, name) for name in given)}
    assert set(links) == wanted


@pytest.mark.parametrize("objective", ["classification", "detection", "segmentation"])
def test_a_run_that_reads_no_reports_has_no_sections_on_reports(tmp_path, objective):
    write_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    run = dataclasses.replace(RUN, settings={"objective": objective})
    reader = Reader(page.write_report(tmp_path, run=run).read_text())
    links = [address[1:] for address in reader.addresses if address.startswith("#")]
    assert links == reader.ids == ["training", "evaluation", "settings"]
    assert "python -m" not in reader.text and "report encoders" not in reader.text
    assert objective in reader.text.lower()
    other = dataclasses.replace(RUN, settings={"objective": "gloria"})
    reader = Reader(page.write_report(tmp_path, run=other).read_text())
    assert "retrieval" in reader.ids and "Pre-training of image and report" in reader.text


def test_every_objective_without_reports_has_a_heading_of_its_own():
    without = {name for name, kind in KINDS.items() if not kind.reads_reports}
    assert set(page._HEADINGS) == without


def test_sections_with_input_name_no_command(tmp_path):
    write_run(tmp_path)
    shown = Reader(page.write_report(tmp_path, run=RUN, **examples()).read_text()).text
    assert "python -m" not in shown


def test_a_second_report_replaces_the_first(tmp_path):
    page.write_report(tmp_path, run=RUN)
    write_run(tmp_path)
    page.write_report(tmp_path, run=RUN)
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
    assert "0.910" in (tmp_path / "report" / "index.html").read_text()


def test_a_damaged_results_file_is_named(tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "zero_shot.json").write_text("{")
    with pytest.raises(DataError, match=r"zero_shot\.json"):
        page.write_report(tmp_path, run=RUN)


def test_arrays_with_nan_or_of_one_value_are_drawn(tmp_path):
    blank = np.zeros((8, 8), np.float32)
    damaged = blank.copy()
    damaged[2, 3] = np.nan
    attention = AttentionExample(
        title="a",
        image=damaged,
        attention=np.zeros((1, 4)),
        grid=(2, 2),
        spacing=8.0,
        texts=("No edema.",),
    )
    reconstruction = ReconstructionExample(
        title="b", image=blank, shown=damaged, reconstruction=damaged
    )
    bank = BankUsage(counts=np.zeros(3), prototypes=())
    page.write_report(
        tmp_path, run=RUN, attention=[attention], reconstructions=[reconstruction], bank=bank
    )
