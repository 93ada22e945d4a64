"""A sweep that is stopped and killed goes on: the real programs, as small as they come."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STEPS, PARALLEL = 4, 2
# JAX keeps what took a second to compile; steps as small as these take less on a fast machine.
ENVIRONMENT = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

# 12 points that differ in what the data's readers do: all share their compiled programs.
SWEEP = f"""
from ml_collections import ConfigDict
from configs.sweeps import objectives

OVERRIDES = (
    ("prepare.vocab_size", 300),
    ("data.buckets", (128,)),
    ("data.max_tokens", 128),
    ("data.image.size", 32),
    ("model.image.resnet.depths", (1, 1)),
    ("model.image.resnet.width", 8),
    ("model.text.hidden_size", 32),
    ("model.text.layers", 1),
    ("model.text.intermediate_size", 64),
    ("model.text.scan_layers", False),
    ("model.embed_dim", 32),
    ("checkpoint.every_steps", 1),
    ("log.every_steps", 1),
    ("log.progress", False),
    ("log.tensorboard", False),
    ("validate_every", {STEPS}),
    ("quick_compile", True),
)


def get_config():
    config = objectives.get_config()
    config.data = ConfigDict(dict(config="configs/debug.py", overrides=()))
    siglip = "configs/baselines/phantom.py:siglip"
    config.arms = (dict(name="siglip", config=siglip, overrides=OVERRIDES),)
    config.reference = "siglip"
    angles = tuple(float(angle) for angle in range(12))
    choices = (dict(key="data.augment.rotation_degrees", values=angles),)
    config.space = ConfigDict(dict(sampler="grid", choices=choices, count=None, seed=None))
    config.seeds = (0,)
    config.budget = ConfigDict(dict(steps={STEPS}, batch_size=16))
    config.shared = ()
    config.tasks = ("configs/eval/retrieval.py",)
    config.metrics = ("retrieval.precision_at_5",)
    return config
"""


def trials_running(workdir):
    """Process -> folder of every program that trains in this sweep, whoever started it."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:  # it has ended
            continue
        for word in words:
            folder = word.removeprefix("--workdir=")
            if "launch.train" in words and folder != word and folder.startswith(str(workdir)):
                found[int(path.parent.name)] = pathlib.Path(folder)
    return found


def wait(workdir, condition, *, process):
    """Waits, and looks that never more trials run than asked for."""
    deadline = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, "it did not happen"
        running = list(trials_running(workdir).values())
        assert len(running) <= PARALLEL and len(set(running)) == len(running), running
        time.sleep(0.1)


@pytest.mark.slow
def test_a_sweep_of_twelve_that_is_stopped_and_killed_ends_with_twelve_rows(tmp_path):
    path, workdir = tmp_path / "twelve.py", tmp_path / "run"
    path.write_text(SWEEP)
    command = [sys.executable, "-m", "launch.sweep", f"--config={path}", f"--workdir={workdir}"]
    command.append(f"--parallel={PARALLEL}")

    def done():
        return {mark.parent for mark in workdir.glob("trials/*/*/trial.json")}

    def training():
        return {path.parent for path in workdir.glob("trials/*/*/metrics.jsonl")} - done()

    # Stopped while its first trials train.
    first = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT)
    wait(workdir, training, process=first)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=120) == 75
    assert not trials_running(workdir)
    # Killed, and one of its trials with it, when some are done and others train.
    second = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT)
    wait(workdir, lambda: len(done()) >= 3 and training(), process=second)
    before = {trial: (trial / "trial.json").read_bytes() for trial in done()}
    second.kill()
    second.wait()
    left = trials_running(workdir)
    if left:
        os.kill(min(left), signal.SIGKILL)
    # It goes on to its end.
    third = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    wait(workdir, lambda: len(done()) == 12, process=third)
    third.communicate(timeout=120)
    assert third.returncode == 0
    check(workdir, before, rows=json.loads((workdir / "table.json").read_text())["rows"])


def check(workdir, before, *, rows):
    """12 rows; every trial did each step once; what was done is not done again."""
    assert len(rows) == len({row["variant"] for row in rows}) == 12
    assert all(row["seeds"] == [0] and len(row["values"]) == 1 for row in rows)
    assert all((trial / "trial.json").read_bytes() == mark for trial, mark in before.items())
    for trial in workdir.glob("trials/*/*"):
        text = (trial / "metrics.jsonl").read_text()
        steps = [json.loads(line)["step"] for line in text.splitlines()]
        assert steps == list(range(1, STEPS + 1)), trial
    # One stage, compiled once for all.
    names = [entry.name.split("-")[0] for entry in workdir.glob("cache/compiled/*/*-cache")]
    assert names.count("jit_step") == names.count("jit_draw") == 1
