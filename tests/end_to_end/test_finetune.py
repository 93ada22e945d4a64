"""Classifiers of the phantom's findings, started from a run, stopped, resumed and opened."""

import json
import signal
import sys

import numpy as np
import pytest

import prior_jax
from launch.start import initial
from prior_jax.config import read_kept_config
from prior_jax.errors import ConfigError
from prior_jax.evaluate.class_scores import AUROC
from prior_jax.interop.initial import EncoderInit
from prior_jax.train.checkpoint_read import list_steps, read_document
from tests.end_to_end import runs

pytestmark = pytest.mark.slow

STEPS = 16


def start(workdir, finished, *options, config="debug.py"):
    data = f"--config.data.path={finished.workdir / 'data' / 'set'}"
    command = [sys.executable, "-m", "launch.train", f"--config=configs/finetune/{config}"]
    return runs.Running([*command, f"--workdir={workdir}", data, *options])


def go(workdir, finished, *options, code=0, config="debug.py"):
    found, output = runs.finish(start(workdir, finished, *options, config=config))
    assert found == code, output
    return output


def from_run(finished):
    """The flags of a classifier whose encoder is that of the debug job."""
    return (
        f"--config.init.image.path={finished.workdir}",
        f"--config.init.image.step={runs.STEPS}",
    )


def arrays(workdir):
    checkpoints = workdir / "checkpoints"
    return read_document(checkpoints / str(list_steps(checkpoints)[-1]))["arrays"]


@pytest.fixture(scope="module")
def classifier(finished, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("classifier") / "run"
    return workdir, go(workdir, finished, *from_run(finished))


def test_it_starts_from_the_encoder_of_the_run_and_names_the_rest(classifier, finished):
    workdir, output = classifier
    assert "not used of these weights: " in output and "text_encoder" in output
    frozen = read_document(workdir / "checkpoints" / "8")["arrays"]
    source = read_document(finished.workdir / "checkpoints" / str(runs.STEPS))["arrays"]
    names = [name for name in frozen if ":image_encoder/" in name and name.startswith("model:")]
    assert len(names) > 10
    for name in names:  # bit for bit: the checksums are of the bytes
        assert frozen[name] == source[name], name


def test_it_learns_and_is_validated_by_both_numbers(classifier):
    lines = runs.lines(classifier[0])
    assert len(lines) == STEPS
    losses = [line["classification_loss"] for line in lines]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert AUROC in lines[7] and "validation_total_loss" in lines[-1]
    assert 0 <= lines[-1][AUROC] <= 1


def test_a_stopped_run_resumes_bit_for_bit(classifier, finished, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir, finished, *from_run(finished))
    assert runs.wait_for(process, lambda: runs.logged(workdir) >= 10)
    process.send_signal(signal.SIGTERM)
    code, output = runs.finish(process)
    assert code == 75, output
    go(workdir, finished, *from_run(finished))
    assert arrays(workdir) == arrays(classifier[0])
    assert runs.numbers(workdir) == runs.numbers(classifier[0])


def test_a_part_of_the_labels_is_trained_on(finished, tmp_path):
    workdir = tmp_path / "run"
    output = go(workdir, finished, config="debug.py:50")
    assert "(patients, share 0.5)" in output
    config = json.loads((workdir / "config.json").read_text())
    assert config["data"]["fraction"]["share"] == 0.5


def test_a_class_that_the_set_lacks_ends_in_one_line(finished, tmp_path):
    output = go(tmp_path / "run", finished, "--config.model.classes=('Edemas',)", code=2)
    (line,) = [line for line in output.splitlines() if "config.model.classes" in line]
    assert "'Edema'" in line and "Traceback" not in output


def test_it_is_opened_in_python(classifier, finished):
    workdir, _ = classifier
    paths = sorted(finished.workdir.glob("data/raw/files/*/*/*/*.jpg"))[:3]
    trained = prior_jax.load_classifier(workdir)
    found = trained.predict(paths)
    assert found.shape == (3, len(trained.classes)) and ((found > 0) & (found < 1)).all()
    for source in (workdir, finished.workdir):
        new = prior_jax.load_classifier(source, 4)
        assert new.predict(paths).shape == (3, 4)
    with pytest.raises(ConfigError, match="load_classifier"):
        prior_jax.load(workdir)


def test_the_weights_of_a_run_are_found_by_their_step(finished):
    found = initial.find(EncoderInit(path=str(finished.workdir), adapt=(), step=runs.STEPS))
    assert found.document.part == "model"
    assert found.document.objective == read_kept_config(finished.workdir).objective
    read = found.read()
    assert read.keys() == found.document.arrays.keys()
    for name, array in read.items():
        assert list(array.shape) == found.document.arrays[name][0], name
