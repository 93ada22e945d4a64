"""Runs a program and measures the time and the memory that it takes."""

import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]

# A process inherits the peak of the one that starts it: this one, which is small, stands between.
_MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def launched(name: str, *flags: str) -> tuple[int, str, float, int]:
    """Runs `python -m name` with flags, from the root of the project.

    Returns:
      Exit code, output, seconds, and the most memory in bytes.
    """
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, sys.executable, "-m", name, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _, peak = done.stdout.rstrip("\n").rpartition("\n")
    return done.returncode, output, time.monotonic() - start, int(peak) * 1024
