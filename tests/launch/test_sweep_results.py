"""The file that carries the results of a sweep's trials to another folder."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.sweeps import study
from launch import sweep
from launch.sweeps import data as data_lib
from launch.sweeps import table as sweep_table
from launch.sweeps.config import sweep_of
from launch.sweeps.trials import Measured, load, paired, read_trial
from launch.sweeps.variants import variants
from prior_jax.errors import ConfigError, DataError
from tests import fixtures
from tests.launch import forks
from tests.launch.small_sweep import SHIFT, leave, settings


def run_here(folder, checked, found, *, only, earlier=None):
    """Leaves the trials of some seeds in a folder, makes the table there, and returns its text."""
    earlier = earlier or {}
    jobs = sweep.jobs_of(checked, found, folder, data=(), earlier=earlier)
    for job in jobs:
        arm, seed = job.name.split(", seed ")
        if int(seed) in only:
            leave(job.folder, arm=arm, seed=int(seed))
            (job.folder / "trial.json").write_text("{}")
    outcomes = [job.standing for job in jobs]
    sweep.finish(folder, checked, found, jobs, outcomes=outcomes, earlier=earlier)
    return (folder / "table.md").read_text()


def data_of(**overrides):
    """The section `data` of the small sweep with overrides."""
    keys = tuple((key.replace("__", "."), value) for key, value in overrides.items())
    return ConfigDict(dict(config="configs/debug.py", overrides=keys))


def rewrite(path, change, *, out=None):
    """Changes the content of a file of results, and its draws, in place or in another file."""
    with np.load(path) as arrays:
        draws = dict(arrays)
    content = json.loads(draws.pop("content").tobytes())
    change(content, draws)
    np.savez_compressed(
        out or path, content=np.frombuffer(json.dumps(content).encode(), np.uint8), **draws
    )
    return out or path


def test_a_sweep_goes_on_in_another_folder_and_makes_the_same_table(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    whole = run_here(tmp_path / "whole", checked, found, only=(0, 1, 2))
    run_here(tmp_path / "first", checked, found, only=(0, 1))
    path = tmp_path / "first" / "results.npz"
    earlier = load(path, sweep=checked, found=found, where="--earlier")
    assert set(earlier) == {(arm, seed) for arm in SHIFT for seed in (0, 1)}
    jobs = sweep.jobs_of(checked, found, tmp_path / "second", data=(), earlier=earlier)
    assert [job.name for job in jobs if not job.done] == ["plain, seed 2", "quick, seed 2"]
    assert run_here(tmp_path / "second", checked, found, only=(2,), earlier=earlier) == whole
    again = load(tmp_path / "second" / "results.npz", sweep=checked, found=found, where="--earlier")
    assert len(again) == 6


def test_a_trial_that_also_ran_here_counts_as_it_ran_here(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    run_here(tmp_path, checked, found, only=(0,))
    earlier = load(tmp_path / "results.npz", sweep=checked, found=found, where="--earlier")
    (one,) = earlier["plain", 0].values()
    other = {("plain", 0): {"zero_shot.macro_auroc": dataclasses.replace(one, value=0.9)}}
    run_here(tmp_path, checked, found, only=(0,), earlier=other)
    again = load(tmp_path / "results.npz", sweep=checked, found=found, where="--earlier")
    assert again["plain", 0]["zero_shot.macro_auroc"].value == one.value


def test_draws_of_other_sentences_are_not_paired():
    settings = {"records": 60, "classes": ["Edema"]}
    before, *others = (
        Measured(value=0.5, untrained=0.5, settings={**settings, **asks}, draws=np.zeros(2))
        for asks in (
            {},  # as of an earlier version
            {"text": "report"},
            {"text": "prompts", "prompt_set": "ensemble"},
            {"text": "prompts", "prompt_set": "described"},
        )
    )
    assert [paired(before, other) for other in others] == [True, False, False]
    assert not paired(*others[1:])


def test_results_of_another_sweep_are_refused_by_name(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    run_here(tmp_path, checked, variants(checked), only=(0,))
    path = tmp_path / "results.npz"

    def read(**changes):
        other = sweep_of(settings(**{"metrics": checked.metrics, **changes}))
        return load(path, sweep=other, found=variants(other), where="--earlier")

    assert len(read(seeds=(0, 5))) == 2
    with pytest.raises(ConfigError, match=r"plain: config\.validate_every: The value is 5, but"):
        read(shared=(("validate_every", 5),))
    faster = ("data.threads", 5), ("data.memory_cache", 9)
    assert len(read(shared=(*settings().shared, *faster))) == 2
    with pytest.raises(ConfigError, match=r"--earlier: .* has no zero_shot\.macro_f1"):
        read(metrics=("zero_shot.macro_f1",))
    with pytest.raises(ConfigError, match=r"--earlier: .* has no trial of this sweep's arms"):
        read(seeds=(7,))
    (tmp_path / "other.npz").write_bytes(path.read_bytes()[:-30])
    path = tmp_path / "other.npz"
    with pytest.raises(DataError, match=r"--earlier: .*other\.npz cannot be read as results"):
        read()
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match=r"--earlier: .*other\.npz cannot be read as results"):
        read()


def test_draws_of_another_number_are_refused_by_their_row(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    run_here(tmp_path, checked, found, only=(0,))

    def exchanged(content, draws):
        value = content["rows"][0]["value"]
        draws["draws_0"] = (value + np.linspace(-0.1, 0.1, 200)).astype(np.float16)
        draws["draws_1"] = np.full(200, content["rows"][1]["value"] + 0.01, np.float16)

    path = rewrite(tmp_path / "results.npz", exchanged, out=tmp_path / "other.npz")
    with pytest.raises(DataError, match=r"row 1: its draws are those of another number"):
        load(path, sweep=checked, found=found, where="--earlier")


def test_results_of_tasks_with_other_settings_are_refused_by_name(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    run_here(tmp_path, checked, found, only=(0,))

    def validates(content, draws):
        content["tasks"]["configs/eval/zero_shot.py"]["split"] = "validate"

    path = rewrite(tmp_path / "results.npz", validates, out=tmp_path / "other.npz")
    with pytest.raises(ConfigError, match=r"zero_shot\.py: task\.split: .*'test', .*'validate'"):
        load(path, sweep=checked, found=found, where="--earlier")
    # Files of earlier versions do not say what the tasks were.
    rewrite(path, lambda content, draws: content.pop("tasks"))
    assert len(load(path, sweep=checked, found=found, where="--earlier")) == 2


def test_results_of_other_data_are_refused_and_a_given_set_is_known_by_its_records(tmp_path):
    def swept(data):
        checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",), data=data))
        return checked, variants(checked)

    def read(path, data):
        checked, found = swept(data)
        return load(path, sweep=checked, found=found, where="--earlier")

    run_here(tmp_path, *swept(data_of()), only=(0,))
    drawn = tmp_path / "results.npz"
    assert len(read(drawn, data_of())) == 2
    with pytest.raises(ConfigError, match=r"sweep\.data: config\.prepare\.phantom\.seed: .* is 7,"):
        read(drawn, data_of(prepare__phantom__seed=7))
    with pytest.raises(ConfigError, match=r"sweep\.data: config\.prepare\.vocab_size"):
        read(drawn, data_of(prepare__vocab_size=301))
    # A set elsewhere with the same records is the same, and so is a path at which nothing is.
    for name, studies in (("one", 20), ("moved", 20), ("other", 21)):
        fixtures.write_prepared(tmp_path / name, studies=studies, validate=4, test=4)
    given = {name: data_of(data__path=str(tmp_path / name)) for name in ("one", "moved", "other")}
    with pytest.raises(ConfigError, match=r"sweep\.data: config\.data\.path: .*'no value'"):
        read(drawn, given["one"])
    run_here(tmp_path / "given", *swept(given["one"]), only=(0,))
    path = tmp_path / "given" / "results.npz"
    assert len(read(path, given["one"])) == len(read(path, given["moved"])) == 2
    with pytest.raises(ConfigError, match=r"sweep\.data: config\.data\.path: The value is .*other"):
        read(path, given["other"])
    (tmp_path / "one" / "manifest.json").unlink()
    assert len(read(path, given["one"])) == 2
    with pytest.raises(ConfigError, match=r"sweep\.data: config\.data\.path"):
        read(path, data_of(data__path=str(tmp_path / "none")))


def test_results_without_a_config_of_their_arm_or_of_an_earlier_form_are_refused(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    run_here(tmp_path, checked, found, only=(0,))
    path = tmp_path / "results.npz"
    for change, told in (
        (dict(configs={}), r"--earlier: .*there is no config of 'plain'"),
        (dict(form=1), r"--earlier: .* has the form 1, .* --collect"),
    ):
        other = rewrite(
            path, lambda content, _, c=change: content.update(c), out=tmp_path / "o.npz"
        )
        with pytest.raises(DataError, match=told):
            load(other, sweep=checked, found=found, where="--earlier")


def test_the_stored_results_of_the_study_are_of_its_arms_and_data():
    checked = sweep_of(study.get_config())
    path = pathlib.Path(__file__).parents[2] / "docs" / "study_results.npz"
    trials = load(path, sweep=checked, found=variants(checked), where="--earlier")
    assert {("paper", 0), ("release", 0), ("improved", 0)} <= set(trials)


def equal(one, other):
    """Whether two readings of results are the same, NaN being equal to NaN."""
    flat = [
        {(place, name): m for place, trial in trials.items() for name, m in trial.items()}
        for trials in (one, other)
    ]
    return flat[0].keys() == flat[1].keys() and all(
        (a.value, a.settings) == (b.value, b.settings)
        and np.array_equal(a.untrained, b.untrained, equal_nan=True)
        and np.array_equal(a.draws, b.draws, equal_nan=True)
        for a, b in ((flat[0][key], flat[1][key]) for key in flat[0])
    )


def test_a_file_with_a_flipped_bit_is_refused_or_reads_the_same(tmp_path, monkeypatch):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    run_here(tmp_path, checked, found, only=(0, 1))
    made = data_lib.identity(checked)  # read once, for speed
    monkeypatch.setattr(data_lib, "identity", lambda _: made)
    whole = (tmp_path / "results.npz").read_bytes()
    intact = load(tmp_path / "results.npz", sweep=checked, found=found, where="--earlier")
    path, refused = tmp_path / "damaged.npz", 0
    random = np.random.default_rng(0)
    # The heads of the members and the directory at the end are where most kinds of errors start.
    ends = {*range(120), *range(len(whole) - 500, len(whole))}
    for place in sorted(ends | set(random.integers(len(whole), size=700).tolist())):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            read = load(path, sweep=checked, found=found, where="--earlier")
        except DataError as error:
            assert str(error).startswith(f"--earlier: {path} cannot be read as results"), error
            refused += 1
        else:
            assert equal(read, intact), place
    assert refused > 800


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content, draws: draws.pop("draws_0"), "KeyError"),
        (lambda content, draws: content.update(configs=None), "'configs' has no objects"),
        (lambda content, draws: content.update(configs={"plain": 3}), "'configs' has no objects"),
        (lambda content, draws: content.pop("data"), "KeyError: 'data'"),
        (lambda content, draws: content.update(data=[]), "'data' is no object"),
        (lambda content, draws: content.update(metrics="zero"), "'metrics' has no names"),
        (lambda content, draws: content.update(tasks={"a": 3}), "'tasks' has no objects"),
        (lambda content, draws: content.update(rows=3), "TypeError"),
        (lambda content, draws: content["rows"].append("text"), "TypeError"),
        (lambda content, draws: content["rows"][0].pop("metric"), "KeyError: 'metric'"),
        (lambda content, draws: content["rows"][0].pop("seed"), "KeyError: 'seed'"),
        (lambda content, draws: content["rows"][0].update(seed=True), "the seed is True"),
        (lambda content, draws: content["rows"][0].update(metric="a.b"), "the metric is 'a.b'"),
        (lambda content, draws: content["rows"][0].update(value="0.7"), "the value is '0.7'"),
        (lambda content, draws: content["rows"][0].update(value=float("nan")), "value is nan"),
        (lambda content, draws: content["rows"][0].update(value=float("inf")), "value is inf"),
        (lambda content, draws: content["rows"][0].update(untrained="x"), "untrained value is 'x'"),
        (lambda content, draws: content["rows"][0].update(settings=None), "settings are no object"),
        (lambda content, draws: draws.update(draws_0=np.zeros((2, 2))), "no row of numbers"),
        (lambda content, draws: draws.update(draws_0=np.array(["a"])), "no row of numbers"),
        (lambda content, draws: draws.update(draws_0=np.array([np.inf])), "no row of numbers"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, change, told):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    run_here(tmp_path, checked, found, only=(0,))
    path = rewrite(tmp_path / "results.npz", change)
    with pytest.raises(DataError, match=f"--earlier: .* cannot be read as results .*{told}"):
        load(path, sweep=checked, found=found, where="--earlier")


def test_draws_of_other_numbers_of_resamples_are_not_paired(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    run_here(tmp_path, checked, found, only=(0,))
    path = rewrite(tmp_path / "results.npz", lambda _, draws: draws.update(draws_0=np.zeros(7)))
    trials = load(path, sweep=checked, found=found, where="--earlier")
    (_, quick) = sweep_table.collect(checked, found, trials)
    assert quick.difference.patients is None


@pytest.mark.parametrize("value", ["Infinity", '"text"'])
def test_a_metric_that_is_no_finite_number_is_refused_by_its_file(tmp_path, value):
    leave(tmp_path, arm="plain", seed=0)
    path = tmp_path / "eval" / "zero_shot.json"
    content = json.loads(path.read_text())
    content["metrics"]["macro_auroc"]["value"] = "HERE"
    path.write_text(json.dumps(content).replace('"HERE"', value))
    with pytest.raises(DataError, match=r"zero_shot\.json: The value of macro_auroc in 'metrics'"):
        read_trial(tmp_path, metrics=("zero_shot.macro_auroc",))


def test_a_metric_without_its_draws_is_refused_by_their_file(tmp_path):
    leave(tmp_path, arm="plain", seed=0)
    np.savez(tmp_path / "eval" / "zero_shot.draws.npz", other=np.zeros(3))
    with pytest.raises(DataError, match=r"zero_shot\.draws\.npz: There are no bootstrap draws of"):
        read_trial(tmp_path, metrics=("zero_shot.macro_auroc",))


def test_files_of_earlier_trials_add_up_and_make_a_table_without_any_data(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    config, workdir = tmp_path / "small.py", tmp_path / "run"
    config.write_text(
        "from tests.launch.small_sweep import settings\n\n\n"
        "def get_config():\n    return settings(metrics=('zero_shot.macro_auroc',))\n"
    )
    run_here(tmp_path / "old", checked, found, only=(0, 1))
    run_here(tmp_path / "new", checked, found, only=(1, 2))
    new = tmp_path / "new" / "results.npz"

    def changed(content, draws):  # of plain, seed 1
        content["rows"][0].update(value=0.9)
        draws["draws_0"] = np.full_like(draws["draws_0"], 0.9)

    rewrite(new, changed)
    flags = [f"--config={config}", f"--workdir={workdir}"]
    first = [*flags, f"--earlier={tmp_path / 'old' / 'results.npz'}"]
    said = forks.run_all(
        [
            ("launch.sweep", [*first, "--dry_run"]),
            ("launch.sweep", [*flags, "--collect"]),
            ("launch.sweep", [*first, "--collect"]),
            ("launch.sweep", [*flags, f"--earlier={new}", "--collect"]),
            ("launch.sweep", [*flags, "--collect"]),
            ("launch.sweep", [*flags, "--dry_run"]),
        ]
    )
    assert [one["code"] for one in said] == [0, 2, 0, 0, 0, 0], said
    assert "4 of 6 trials are done, 4 of them in another folder\n" in said[0]["err"]
    assert said[0]["out"].count("launch.train") == 2
    assert "holds no sweep" in said[1]["err"]
    assert "| plain | 2 |" in said[2]["out"] and "- quick, seed 2: waiting" in said[2]["out"]
    assert "| plain | 3 |" in said[3]["out"] and "waiting" not in said[3]["out"]
    assert said[4]["out"] == said[3]["out"]
    assert "6 of 6 trials are done" in said[5]["err"] and said[5]["out"] == ""
    kept = load(workdir / "earlier.npz", sweep=checked, found=found, where="--earlier")
    both = load(new, sweep=checked, found=found, where="--earlier")
    assert len(kept) == 6 and equal({place: kept[place] for place in both}, both)
    assert not (workdir / "data").exists() and not (workdir / "tokenizer").exists()
