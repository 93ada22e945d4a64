"""A run that starts from weights: it trains, resumes, is evaluated, and refuses others."""

import json
import signal

import numpy as np
import pytest
from flax import nnx

import prior_jax
from prior_jax.config import kept_json
from prior_jax.interop.weights_folder import Weights, save_weights
from tests.end_to_end import runs

pytestmark = pytest.mark.slow


def weights_of(finished, *, factor=1.0):
    """The debug job's model, all of it scaled."""
    model = prior_jax.load(finished.workdir)
    state = nnx.to_flat_state(nnx.as_pure(nnx.split(model.module)[1]))
    return Weights(
        part="model",
        objective="prior",
        model=kept_json(finished.workdir)["model"],
        data={"tokenizer": {"kind": "sentencepiece", "lower_case": True}},
        origin={"source": "the debug job"},
        arrays={
            "/".join(map(str, path)): np.asarray(value) * np.float32(factor)
            for path, value in state
        },
    )


@pytest.fixture(scope="module")
def weights(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "w"
    tokenizer = finished.workdir / "tokenizer" / "tokenizer.model"
    save_weights(folder, weights_of(finished), tokenizer)
    return folder


def flags(finished, weights):
    return (
        *finished.data,
        f"--config.init.image.path={weights}",
        f"--config.init.text.path={weights}",
    )


@pytest.fixture(scope="module")
def whole(finished, weights, tmp_path_factory):
    workdir = runs.folder(tmp_path_factory.mktemp("whole") / "run", finished)
    runs.go(workdir, *flags(finished, weights))
    return workdir


def test_the_first_loss_is_that_of_the_weights(finished, whole):
    fresh, started = runs.lines(finished.workdir)[0], runs.lines(whole)[0]
    assert abs(fresh["total_loss"] - started["total_loss"]) > 1e-3


def test_killed_it_goes_on_without_the_arrays(finished, weights, whole, tmp_path):
    workdir = runs.folder(tmp_path / "run", finished)
    process = runs.start(workdir, *flags(finished, weights))
    assert runs.wait_for(process, lambda: runs.logged(workdir) >= 10)
    process.send_signal(signal.SIGKILL)
    runs.finish(process)
    arrays = weights / "arrays"
    aside = arrays.rename(weights / "aside")
    try:
        runs.go(workdir, *flags(finished, weights))
    finally:
        aside.rename(arrays)
    assert runs.final_bits(workdir) == runs.final_bits(whole)


def test_untrained_is_what_training_began_with(finished, whole):
    code, output = runs.finish(
        runs.start(
            whole,
            "--task=configs/eval/retrieval.py",
            "--task.batch_size=16",
            program="launch.evaluate",
        )
    )
    assert code == 0, output
    found, drawn = (
        json.loads((workdir / "eval" / "retrieval.json").read_text())
        for workdir in (whole, finished.workdir)
    )
    assert found["untrained"] != drawn["untrained"]
    began = [one["settings"]["began_with_weights"] for one in (found, drawn)]
    assert began == [True, False]


def test_other_weights_are_refused(finished, whole, tmp_path):
    other = tmp_path / "other"
    tokenizer = finished.workdir / "tokenizer" / "tokenizer.model"
    save_weights(other, weights_of(finished, factor=1.5), tokenizer)
    output = runs.go(whole, *flags(finished, other), code=2)
    assert "config.init.image.path: The folder of weights (fingerprint" in output
    config = whole / "config.json"
    before = config.read_text()
    try:
        config.write_text(
            before.replace(str(json.loads(before)["init"]["image"]["path"]), str(other))
        )
        code, output = runs.finish(
            runs.start(whole, "--task=configs/eval/retrieval.py", program="launch.evaluate")
        )
    finally:
        config.write_text(before)
    assert code == 2 and "config.init.image: The value is" in output
