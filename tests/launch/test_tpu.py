"""Runs on TPU slices: what becomes of them when slices are lost, and what a host runs."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from configs.clusters import tpu_v5e
from launch.clusters.tpu import job
from launch.clusters.work import Work
from launch.submit import cluster_of
from prior_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
WRAPPER = ("bash", str(ROOT / "launch" / "clusters" / "one_process.sh"))

# Takes the next line of a file for an answer: states for describe, exit codes for the others.
GCLOUD = """#!/bin/bash
cd "$(dirname "$0")" || exit 9
verb=$4
[[ $verb == ssh && "$*" == *setup_host.sh* ]] && verb=setup
echo "$verb" >>calls
answer=$(head -n 1 "$verb" 2>/dev/null)
sed -i 1d "$verb" 2>/dev/null
[[ $verb != describe ]] && exit "${answer:-0}"
[[ $answer == nothing ]] && exit 1
echo "$answer"
"""

# What a host knows of itself.
CURL = """#!/bin/bash
[[ "$*" == *agent-worker-number ]] && printf 3
[[ "$*" == *tpu-env ]] && printf "ACCELERATOR_TYPE: 'x'\\nMEGASCALE_SLICE_ID: '1'\\nZONE: 'z'\\n"
true
"""


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def cluster(**changes):
    config = tpu_v5e.get_config()
    config.update(dict(code=str(ROOT), python=sys.executable, **changes))
    return cluster_of(config)


def work(workdir, *words):
    module = "tests.launch.fake_program"
    return Work(name="my-run", workdir=workdir, module=module, arguments=("echo", *words))


def supervised(tmp_path, monkeypatch, *, retries=1, **answers):
    """Exit code, what was asked of gcloud, and how often it was waited for."""
    program(tmp_path / "bin", "gcloud", GCLOUD)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for verb, lines in answers.items():
        (tmp_path / "bin" / verb).write_text("".join(f"{line}\n" for line in lines.split()))
    waits = []
    code = job.supervise(cluster(retries=retries), work(tmp_path), sleep=waits.append)
    return code, (tmp_path / "bin" / "calls").read_text().split(), waits


def test_slices_are_asked_for_used_and_given_back(tmp_path, monkeypatch):
    states = "nothing WAITING_FOR_RESOURCES PROVISIONING ACTIVE"
    code, calls, waits = supervised(tmp_path, monkeypatch, describe=states)
    assert code == 0 and waits == [30.0] * 3
    assert calls == "describe create describe describe describe setup ssh delete".split()


def test_lost_slices_are_asked_for_again_and_the_run_goes_on(tmp_path, monkeypatch):
    states = "ACTIVE SUSPENDING SUSPENDED ACTIVE"
    code, calls, _ = supervised(tmp_path, monkeypatch, describe=states, ssh="1 0")
    assert code == 0
    assert calls == (
        "describe setup ssh describe describe delete create describe setup ssh delete".split()
    )


def test_a_run_that_was_stopped_goes_on_on_the_same_slices(tmp_path, monkeypatch):
    code, calls, _ = supervised(tmp_path, monkeypatch, describe="ACTIVE " * 3, ssh="75 0")
    assert code == 0 and "create" not in calls and calls.count("ssh") == 2


def test_a_fault_of_the_run_ends_it_and_keeps_the_slices(tmp_path, monkeypatch):
    code, calls, _ = supervised(tmp_path, monkeypatch, describe="ACTIVE " * 2, ssh="2")
    assert code == 2 and "delete" not in calls


def test_a_lost_connection_is_tried_again_so_many_times(tmp_path, monkeypatch):
    code, calls, _ = supervised(tmp_path, monkeypatch, describe="ACTIVE " * 9, ssh="255 255 0")
    assert code == 255 and calls.count("ssh") == 2


def test_slices_that_cannot_be_asked_for_are_an_error(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"queued-resources create my-run"):
        supervised(tmp_path, monkeypatch, describe="nothing nothing", create="1")


def test_slices_whose_description_fails_once_are_waited_for(tmp_path, monkeypatch):
    states = "WAITING_FOR_RESOURCES nothing WAITING_FOR_RESOURCES ACTIVE"
    code, calls, _ = supervised(tmp_path, monkeypatch, describe=states, create="1")
    assert code == 0
    assert calls == "describe describe create describe describe setup ssh delete".split()


def test_commands_name_the_slices_and_wait_for_no_batch(tmp_path):
    found = job.steps(cluster(slices=2, spot=False, options=("--reserved",)), work(tmp_path))
    create = found.create.arguments
    assert {"--node-count=2", "--node-prefix=my-run", "--reserved"} <= set(create)
    assert "--spot" not in create and "--node-id=my-run" not in create
    assert {"--node=all", "--worker=all", "--batch-size=all"} <= set(found.run.arguments)
    shown = job.describe(cluster(), work(tmp_path))
    assert all(str(step) in shown for step in vars(job.steps(cluster(), work(tmp_path))).values())


@pytest.mark.parametrize(
    ("accelerator", "devices"),
    [
        ("v2-8", 8),
        ("v3-32", 32),
        ("v4-32", 16),
        ("v5litepod-16", 16),
        ("v5p-128", 64),
        ("v6e-256", 256),
        ("tpu7x-128", None),
        ("v5litepod", None),
    ],
)
def test_the_devices_of_a_slice_are_known_by_its_type(accelerator, devices):
    assert cluster(accelerator=accelerator).devices == devices
    two = cluster(accelerator=accelerator, slices=2).devices
    assert two == (None if devices is None else 2 * devices)


def test_a_host_runs_the_program_with_its_log(tmp_path, monkeypatch):
    program(tmp_path / "bin", "curl", CURL)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    words = ("two words", "$HOME 'and' \"more\"")
    command = job.steps(cluster(), work(tmp_path / "a b", *words)).run.arguments[-1]
    line = command.removeprefix("--command=")
    subprocess.run(["sh", "-c", line], env=os.environ | environment, check=True, timeout=60)
    log = (tmp_path / "a b" / "logs" / "process_1_3.log").read_text().splitlines()
    assert json.loads(log[-1])["words"] == [*words, "--distributed=auto"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [(dict(project=""), r"cluster\.project.*--cluster\.project"), (dict(slices=0), "slices")],
)
def test_a_mistake_is_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        cluster(**changes)


def wrapped(tmp_path, script, **options):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = (*WRAPPER, str(tmp_path / "logs" / "one.log"), "bash", "-c", script)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_wrapped_process_is_told_to_stop_and_keeps_its_code_and_last_words(tmp_path):
    script = (
        "trap 'sleep 0.1; echo saved; exit 75' TERM; echo started; while :; do sleep 0.02; done"
    )
    process, log = wrapped(tmp_path, script), tmp_path / "logs" / "one.log"
    wait_for(lambda: log.exists() and "\nstarted\n" in log.read_text())
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 75
    assert out == log.read_text() and out.endswith("started\nsaved\n")


def test_a_wrapped_process_outlives_its_reader_and_the_next_waits_for_it(tmp_path):
    log = tmp_path / "logs" / "one.log"
    first = wrapped(tmp_path, "for n in 1 2 3 4 5 6; do sleep 0.05; echo $n; done")
    wait_for(lambda: log.exists() and "1" in log.read_text().split())
    first.stdout.close()
    second = wrapped(tmp_path, "echo next; exit 3")
    second.communicate(timeout=30)
    assert (first.wait(timeout=30), second.returncode) == (0, 3)
    words = log.read_text().split()
    assert words.index("next") == len(words) - 1 and words.index("6") < words.index("next;")
