"""Programs as processes of their own: exit code, one line of error, and help."""

import json
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


def programs():
    """The modules of all programs; of a package, its __main__ is the program."""
    for folder in ("launch", "data_prep"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if 'if __name__ == "__main__"' in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__main__" else parts)


def test_help_shows_every_flag_of_every_program(tmp_path):
    named = sorted(programs())
    assert {"launch.bench", "launch.compile_check", "data_prep.phantom"} <= {*named}
    cases, out = tmp_path / "cases.json", tmp_path / "found.json"
    cases.write_text(json.dumps([{"module": name, "argv": ["--help"]} for name in named]))
    command = [sys.executable, "-m", "tests.parsing", cases, out]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    found = dict(zip(named, json.loads(out.read_text()), strict=True))
    assert {name: hidden for name, hidden in found.items() if hidden} == {}
