"""Any model on any set: a run, exported weights, an image encoder and an untrained config."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests import fixtures
from tests.launch import forks

ROOT = pathlib.Path(__file__).parents[2]
FEW = ("--task.min_positives=1", "--task.bootstrap.resamples=10")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A set that no model was trained on, with other labels and other pixel statistics."""
    folder = tmp_path_factory.mktemp("other")
    return fixtures.write_prepared(folder / "set", studies=40, validate=12, test=16, seed=5)


@pytest.fixture(scope="module")
def weights(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "w"
    program("launch.export", f"--workdir={finished.workdir}", "--format=nnx", f"--out={folder}")
    return folder


def program(name, *flags):
    done = subprocess.run(
        [sys.executable, "-m", name, *flags], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluate(task, *flags):
    return program("launch.evaluate", f"--task=configs/eval/{task}.py", *FEW, *flags)


def result(folder, task):
    return json.loads((folder / "eval" / f"{task}.json").read_text())


@pytest.mark.slow
def test_a_run_and_its_exported_weights_measure_the_same_on_another_set(
    finished, weights, other, tmp_path
):
    before = (finished.workdir / "eval" / "zero_shot.json").read_bytes()
    path = f"--task.data.path={other}"
    evaluate("zero_shot", f"--workdir={finished.workdir}", path, f"--out={tmp_path / 'run'}")
    evaluate("zero_shot", f"--weights={weights}", path, f"--out={tmp_path / 'weights'}")
    run, exported = result(tmp_path / "run", "zero_shot"), result(tmp_path / "weights", "zero_shot")
    assert run["settings"]["set"] == exported["settings"]["set"]
    assert run["settings"]["step"] == 24 and "weights" in exported["settings"]
    for name, metric in run["metrics"].items():
        assert metric["value"] == pytest.approx(exported["metrics"][name]["value"], abs=1e-4), name
    assert (tmp_path / "weights" / "report" / "index.html").is_file()
    assert (finished.workdir / "eval" / "zero_shot.json").read_bytes() == before


def test_results_of_another_set_are_not_replaced(finished, other):
    before = (finished.workdir / "eval" / "zero_shot.json").read_bytes()
    flags = (f"--workdir={finished.workdir}", f"--task.data.path={other}")
    task = "--task=configs/eval/zero_shot.py"
    (found,) = forks.run_all([("launch.evaluate", [task, *FEW, *flags])])
    said = found["err"]
    assert found["code"] == 2, said
    assert "holds results of another set" in said and "--out=DIR" in said
    assert (finished.workdir / "eval" / "zero_shot.json").read_bytes() == before


@pytest.mark.slow
def test_an_untrained_config_is_the_baseline_of_its_run(finished, tmp_path):
    path = f"--task.data.path={finished.workdir / 'data' / 'set'}"
    evaluate("probe", f"--workdir={finished.workdir}", path, f"--out={tmp_path / 'run'}")
    evaluate("probe", "--random=configs/debug.py", path, f"--out={tmp_path / 'random'}")
    baseline = result(tmp_path / "run", "probe")["untrained"]
    found = result(tmp_path / "random", "probe")
    for name, metric in baseline.items():
        assert metric["value"] == pytest.approx(found["metrics"][name]["value"], abs=1e-4), name
    assert not (tmp_path / "random" / "tokenizer").exists()  # the probe reads no text


# What is said -> flags that do not fit together; b is a folder that is not there.
MISFITS = {
    "No model is given": (),
    "--workdir and --weights": ("--workdir=a", "--weights=b"),
    "Weights have no set of their own": ("--weights=a", "--out=b"),
    "--out: The folder of the results is missing": ("--weights=a", "--task.data.path=b"),
    "no step 3": ("--weights=a", "--out=b", "--step=3"),
    "/none": ("--weights=/none", "--out=b", "--task.data.path=/none"),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What is expected to be said -> how the program ended, and the folder that it was given."""
    folders = [tmp_path_factory.mktemp("misfit") / "b" for _ in MISFITS]
    task = ("--task=configs/eval/zero_shot.py", *FEW)
    cases = [
        ("launch.evaluate", [*task, *(flag.replace("=b", f"={folder}") for flag in flags)])
        for folder, flags in zip(folders, MISFITS.values(), strict=True)
    ]
    return dict(zip(MISFITS, zip(forks.run_all(cases), folders, strict=True), strict=True))


@pytest.mark.parametrize("said", MISFITS)
def test_what_does_not_fit_together_is_refused(refusals, said):
    result, folder = refusals[said]
    assert result["code"] == 2 and said in result["err"], result["err"]
    assert not folder.exists()
