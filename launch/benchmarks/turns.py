"""Two programs take turns, so that what else the machine does falls on both.

The protocol of a peer, the program that `--peer=COMMAND` names:

- It is started once for each benchmark as `COMMAND NAME BATCH DTYPE`, for example
  `COMMAND prior_stage1_release_full 98 bfloat16`, in the root of this checkout. bfloat16 asks for
  its automatic mixed precision. It gets ready by itself.
- Each line of its stdin is a number of steps. It does so many, waits until the device has done
  each, and prints a JSON object for each on a line of its own, at once (flushed):
  `{"seconds": 0.104, "cpu_seconds": 0.21, "peak_bytes": 31000000000}`. Only "seconds" must be
  there; without "peak_bytes" the resident memory of its process is told. Lines that are no JSON
  object are passed over.
- At the end of its stdin it ends.

Our own process speaks the same protocol (`--mode=turns`), but first prints the batch and the dtype.
A process that waits loses pages and clocks, so the first step of every turn is left out.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shlex
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from launch.benchmarks import usage
from launch.benchmarks.child import ROOT, Child, ChildFailed, started
from launch.benchmarks.clock import Timing, timing_of
from launch.benchmarks.median import median_of
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.report_file import from_json
from launch.benchmarks.result import Report
from prior_jax.errors import ConfigError

STEPS = 4
"""Steps of a turn, of which the first is left out."""
TURNS = 8
"""Turns of each program that count, after one that does not."""
_LONGEST_SECONDS = 1800.0
# Both programs have to fit on one device.
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def serve(work: Repeated, *, given: TextIO, out: TextIO) -> Timing:
    """Does units of work as the lines of a stream ask for them, and prints each.

    Args:
      work: the work.
      given: stream of numbers, one a line; its end ends the serving.
      out: stream for the JSON objects.

    Returns:
      The samples, without the first of every turn and all of the first turn.
    """
    _say(out, {"batch": work.batch, "dtype": work.dtype})
    seconds: list[float] = []
    cpu: list[float] = []
    for turn, line in enumerate(given):
        for index in range(int(line)):
            used = usage.cpu_seconds()
            began = time.perf_counter()
            work.run(1)
            took, spent = time.perf_counter() - began, usage.cpu_seconds() - used
            _say(out, {"seconds": took, "cpu_seconds": spent})
            if turn and index:
                seconds.append(took)
                cpu.append(spent)
    return timing_of(work, seconds, cpu, facts={**work.facts, **work.after()})


def _say(out: TextIO, what: Mapping[str, Any]) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns:
    """How two programs take turns.

    Attributes:
      steps: steps of a turn; at least 2, since the first is left out.
      count: turns of each program that count.
    """

    steps: int = STEPS
    count: int = TURNS


def check_peer(command: str) -> None:
    """Refuses the command of a peer that cannot be started.

    Raises:
      ConfigError: if it is empty, no command line, or its program is absent.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(
            f"The value {command!r} is no command line ({error}).",
            "Close its quotation marks.",
            where="--peer",
        ) from error
    if not words:
        raise ConfigError("The command is empty.", "Give --peer=COMMAND.", where="--peer")
    # A program with a folder in its name is looked for from where the peer is started.
    program = str(ROOT / words[0]) if os.sep in words[0] else words[0]
    if shutil.which(program) is None:
        raise ConfigError(
            f"There is no program {words[0]!r} that can be started.",
            f"Give a command that runs in {ROOT}.",
            where="--peer",
        )


def beside(ours: Sequence[str], peer: str, *, name: str, out: pathlib.Path, turns: Turns) -> Report:
    """Lets a benchmark of this project and a peer's program take turns.

    Args:
      ours: command of our process, with `--mode=turns` and `--out`.
      peer: command of the peer, to which name, batch and dtype are added.
      name: name of the benchmark.
      out: file that `--out` of our command names; its folder gets the output of both.
      turns: how often and how long.

    Returns:
      The report of our process; `Result.beside` has the peer's median seconds and the median, over
      turns, of our seconds divided by the peer's.

    Raises:
      ChildFailed: if a process ends early, does not answer, or tells no seconds above 0.
    """
    with contextlib.ExitStack() as opened:
        own = opened.enter_context(
            started(ours, out.parent / "ours", environment=_ENVIRONMENT, pipes=True)
        )
        size = _answers(own, 1)[0]
        command = [*shlex.split(peer), name, str(size["batch"]), str(size["dtype"])]
        other = opened.enter_context(
            started(command, out.parent / "peer", environment=_ENVIRONMENT, pipes=True)
        )
        pairs = [
            (_turn(own, turns.steps), _turn(other, turns.steps)) for _ in range(turns.count + 1)
        ][1:]
        for child in (other, own):
            child.close_input()
            child.watch(seconds=_LONGEST_SECONDS)
        report = from_json(out.read_text(), where=str(out))
    (result,) = report.results
    found = _compared(pairs, command=peer, peak_bytes=other.peak_bytes)
    return dataclasses.replace(report, results=(dataclasses.replace(result, beside=found),))


def _compared(
    pairs: Sequence[tuple[list[dict[str, Any]], list[dict[str, Any]]]],
    *,
    command: str,
    peak_bytes: int,
) -> dict[str, Any]:
    """Returns the peer's median and the ratio, paired by turns."""
    middle = [[statistics.median(step["seconds"] for step in turn) for turn in p] for p in pairs]
    theirs = [step for _, turn in pairs for step in turn]
    told = [step["peak_bytes"] for step in theirs if "peak_bytes" in step]
    cpu = [step["cpu_seconds"] for step in theirs if "cpu_seconds" in step]
    return {
        "command": command,
        "turns": len(pairs),
        "seconds": dataclasses.asdict(median_of([step["seconds"] for step in theirs])),
        "cpu_seconds": statistics.median(cpu) if cpu else None,
        "peak_bytes": max(told) if told else peak_bytes,
        "ratio": dataclasses.asdict(median_of([ours / other for ours, other in middle])),
    }


def _turn(child: Child, steps: int) -> list[dict[str, Any]]:
    """Returns what a process says of the steps of a turn, the first left out."""
    child.write(f"{steps}\n")
    answers = _answers(child, steps)
    for answer in answers:
        seconds = answer.get("seconds")
        if not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0):
            raise ChildFailed(
                f"A step of {child.command[0]} is told as {answer}, without seconds above 0.",
                "launch/benchmarks/turns.py says what a peer has to print.",
            )
    return answers[1:]


def _answers(child: Child, count: int) -> list[dict[str, Any]]:
    found = []
    for line in _lines(child):
        with contextlib.suppress(json.JSONDecodeError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                found.append(answer)
        if len(found) == count:
            break
    child.note_peak()
    return found


def _lines(child: Child) -> Iterator[str]:
    """Yields the lines of a process, which is killed if the next takes too long."""
    while True:
        timer = threading.Timer(_LONGEST_SECONDS, child.end)
        timer.start()
        try:
            line = child.read_line()
        finally:
            timer.cancel()
        yield line
