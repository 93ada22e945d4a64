"""A disk that is really full, or cannot be written to: file systems of a few MB, mounted."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow
SAVE = f"{sys.executable} -m tests.train.saver"
# Of a process that is not root, in a user namespace of its own.
ALONE = ["unshare", "--mount"] + ([] if os.getuid() == 0 else ["--user", "--map-root-user"])


def shell(folder, script):
    """Runs a script with a file system of 6 MB mounted at `folder`, which goes with the script."""
    mount = f"set -e; mount -t tmpfs -o size=6m tmpfs {folder}\nset +e\n"
    return subprocess.run(
        [*ALONE, "sh", "-c", mount + script],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_full_disk_ends_with_one_line_and_loses_no_checkpoint(tmp_path):
    place = tmp_path / "checkpoints"
    place.mkdir()
    # Two arrays of 1 MiB a checkpoint: the third finds no space.
    done = shell(
        place,
        f"{SAVE} {place} 1 4 --columns 4096; echo code $?\n"
        f"ls {place}; ls {place}/2\n"
        f"{SAVE} {place} 3 2 --columns 4096; echo code $?; ls -A {place}\n",
    )
    output, errors = done.stdout, done.stderr
    assert "saved 2\nsaving 3\ncode 2\n1\n2\n3\n" in output, output + errors
    assert "commit_success.txt" in output
    assert output.endswith("restored 2\ncode 0\n1\n2\n"), output + errors
    told = [line for line in errors.splitlines() if "no space left on the device" in line]
    assert len(told) == 1 and told[0].startswith(f"{place}/3: There is"), errors
    assert "Traceback" not in errors
    assert f"removing {place}/3, left by an interrupted run" in errors


def test_a_folder_that_cannot_be_written_to_is_told_at_the_start(tmp_path):
    place = tmp_path / "checkpoints"
    place.mkdir()
    done = shell(
        place,
        f"{SAVE} {place} 1 1\nmount -o remount,ro {place}\n{SAVE} {place} 2 2; echo code $?\n",
    )
    assert done.stdout == "restored None\nsaving 1\nsaved 1\ncode 2\n", done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(rf"{place}: There is no permission .*Read-only file system", last), last
