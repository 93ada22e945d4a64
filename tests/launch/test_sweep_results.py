"""The file that carries the results of a sweep's trials to another folder."""

import dataclasses

import numpy as np
import pytest

from launch import sweep
from launch.sweeps.config import sweep_of, variants
from launch.sweeps.trials import load
from prior_jax.errors import ConfigError, DataError
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
