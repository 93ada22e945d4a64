"""Runs in processes of their own: killed, told to stop, and several as one."""

import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from prior_jax.train.checkpoint_read import list_steps, read_document
from tests.train import toy

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.multiprocess


def start(workdir, cache, *options):
    environment = os.environ | {"NPROC": "16", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.train.worker", str(workdir), "--cache", str(cache)]
    return subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=150):
    try:
        _, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, errors


def pair(workdir, cache, *options, second=()):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ("--coordinator", f"127.0.0.1:{port}", "--processes", "2", *options)
    return [
        start(workdir, cache, *shared, "--process", "0"),
        start(workdir, cache, *shared, "--process", "1", *second),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compilation_cache):
    workdir = tmp_path_factory.mktemp("whole")
    code, errors = finish(start(workdir, compilation_cache))
    assert code == 0, errors
    return workdir


def last_checkpoint(workdir):
    """Every bit of the final state, as the checksum of each array."""
    folder = pathlib.Path(workdir) / "checkpoints"
    arrays = read_document(folder / str(list_steps(folder)[-1]))["arrays"]
    assert len(arrays) > 10
    return arrays


def wait_for_lines(workdir, process, count):
    path = pathlib.Path(workdir) / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)


def kill_and_rerun(whole, workdir, cache, moments):
    """`moments`: for each life, the number of lines to wait for and seconds to wait then."""
    for lines, seconds in moments:
        process = start(workdir, cache, "--slow", "0.03")
        wait_for_lines(workdir, process, lines)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        finish(process)
    code, errors = finish(start(workdir, cache))
    assert code == 0, errors
    assert toy.losses(workdir) == toy.losses(whole)
    assert last_checkpoint(workdir) == last_checkpoint(whole)


def test_killed_twice_it_ends_as_if_never_killed(whole, tmp_path, compilation_cache):
    # Checkpoints start after steps 4 and 8: line 4 is written just before.
    kill_and_rerun(whole, tmp_path, compilation_cache, [(4, 0.02), (8, 0.1)])


@pytest.mark.slow
def test_killed_ten_times_at_random_it_ends_as_if_never_killed(whole, tmp_path, compilation_cache):
    rng = random.Random(0)
    moments = [(rng.randint(1, 12), rng.random() * 0.15) for _ in range(10)]
    kill_and_rerun(whole, tmp_path, compilation_cache, sorted(moments))


@pytest.mark.slow
def test_sigterm_exits_with_its_own_code_after_saving(whole, tmp_path, compilation_cache):
    process = start(tmp_path, compilation_cache, "--slow", "0.1")
    wait_for_lines(tmp_path, process, 2)
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 75, errors
    assert "has saved its state after step" in errors
    code, errors = finish(start(tmp_path, compilation_cache))
    assert code == 0, errors
    assert toy.losses(tmp_path) == toy.losses(whole)
    assert last_checkpoint(tmp_path) == last_checkpoint(whole)


def assert_close_losses(one, two):
    for line, other in zip(toy.losses(one), toy.losses(two), strict=True):
        assert (line["step"], line["batch"]) == (other["step"], other["batch"])
        for name in ("total_loss", "contrast_loss", "grad_norm", "lr"):
            np.testing.assert_allclose(other[name], line[name], rtol=1e-4, err_msg=name)


def test_two_processes_train_as_one(whole, tmp_path, compilation_cache):
    results = [finish(process) for process in pair(tmp_path, compilation_cache)]
    assert [code for code, _ in results] == [0, 0], results
    assert_close_losses(whole, tmp_path)


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(whole, tmp_path, compilation_cache):
    processes = pair(tmp_path, compilation_cache, "--slow", "0.2")
    wait_for_lines(tmp_path, processes[0], 2)
    processes[1].send_signal(signal.SIGTERM)
    results = [finish(process) for process in processes]
    assert [code for code, _ in results] == [75, 75], results
    code, errors = finish(start(tmp_path, compilation_cache))
    assert code == 0, errors
    assert_close_losses(whole, tmp_path)


@pytest.mark.slow
def test_a_request_between_two_trainings_stops_the_second(tmp_path, compilation_cache):
    processes = pair(tmp_path, compilation_cache, "--ask_between", "1")
    results = [finish(process) for process in processes]
    assert [code for code, _ in results] == [75, 75], results
    assert [line["step"] for line in toy.lines(tmp_path / "second")] == [1]


def test_processes_started_differently_refuse_to_train(tmp_path, compilation_cache):
    processes = pair(tmp_path, compilation_cache, second=("--config", "other"))
    for code, errors in (finish(process) for process in processes):
        assert code == 2, errors
        assert "The config of the processes [1] differs from that of process 0" in errors
