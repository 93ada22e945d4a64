"""Programs as processes of their own: exit code, one line of error, and help."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def start(*command):
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_the_program_itself_ends_with_one_line_and_2(tmp_path):
    found = start(
        "launch.train",
        "--config=configs/debug.py",
        f"--workdir={tmp_path}",
        "--config.optimizer.beta1=2.0",
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        "config.optimizer.beta1: The value is 2.0. It must be at least 0 and below 1.\n"
    )


def test_help_tells_what_there_is_to_set():
    found = start("launch.evaluate", "--help")
    assert found.stderr == ""
    for name in (
        "--workdir",
        "--task",
        "--cpu_devices",
        "--coordinator",
        "--step",
        "--weights",
        "--random",
        "--out",
    ):
        assert name in found.stdout
