"""Benchmarks in this process, or each in a process of its own, so that its memory is its own."""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Mapping

from launch.benchmarks.catalogue import BENCHMARKS, CHOICES
from launch.benchmarks.child import started
from launch.benchmarks.clock import time_blocks
from launch.benchmarks.machine_peak import machine_peak
from launch.benchmarks.report_file import from_json
from launch.benchmarks.request import Request
from launch.benchmarks.result import Report, Result, result_of
from launch.benchmarks.turns import serve
from launch.start import jax_settings

MODES = ("alone", "here", "turns", "compile")
UNTIMED = {"turns": ("steps", "blocks", "trace"), "compile": ("steps", "blocks", "trace")}
"""Mode -> attributes of a request that it does not read, as it times no blocks."""


def start_devices(request: Request) -> None:
    """Chooses the devices of this process and its cache of compiled programs."""
    if request.cpu_devices is not None:
        jax_settings.use_cpu(request.cpu_devices)
    else:
        jax_settings.leave_out_absent_tpu()
    jax_settings.keep_freed_memory()
    if request.cache_dir is not None:
        jax_settings.compile_to(request.cache_dir, quick=False)


def measure_here(name: str, request: Request, *, mode: str = "here") -> Result | None:
    """Measures a benchmark in this process, whose devices have been chosen.

    Args:
      name: key of `BENCHMARKS`.
      request: size, batch, dtype and repetitions of the run.
      mode: "here" times blocks; "turns" does what the lines of stdin ask for, see `turns`;
        "compile" only prepares the work, which puts its programs into the cache.

    Returns:
      The result; None with mode "compile".
    """
    quick = jax_settings.quick_compilation() if request.tiny else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, quick:
        with BENCHMARKS[name].opens(request, pathlib.Path(folder)) as work:
            if mode == "compile":
                return None
            if mode == "turns":
                timing = serve(work, given=sys.stdin, out=sys.stdout)
            else:
                trace = None if request.trace is None else pathlib.Path(request.trace) / name
                timing = time_blocks(work, trace=trace)
            result = result_of(name, work, timing, tiny=request.tiny)
        del work  # its arrays would take the room of the machine's
    if result.dtype is None:
        return result
    return dataclasses.replace(result, peak=machine_peak(result.dtype, tiny=request.tiny))


def command_of(
    name: str, request: Request, *, mode: str, out: pathlib.Path | None = None
) -> list[str]:
    """Returns the command of a process that measures a benchmark in one of `MODES`.

    Of the request it repeats what the benchmark reads, since what it does not read is refused.
    """
    unread = {*CHOICES} - {*BENCHMARKS[name].reads} | {*UNTIMED.get(mode, ())}
    request = dataclasses.replace(request, **dict.fromkeys(unread))
    to = () if out is None else (f"--out={out}",)
    command = [sys.executable, "-m", "launch.bench", f"--only={name}", f"--mode={mode}", *to]
    return [*command, *request.arguments()]


def measure_alone(
    name: str,
    request: Request,
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> Report:
    """Measures a benchmark in a process of its own.

    Args:
      name: key of `BENCHMARKS`.
      request: size, batch, dtype and repetitions of the run.
      seconds: limit of the process's time in seconds, after which it is ended.
      environment: variables to set where this process has none of the name.

    Raises:
      ChildFailed: if the process fails or takes too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "report.json"
        command = command_of(name, request, mode="here", out=out)
        with started(command, pathlib.Path(folder), environment=environment) as child:
            child.watch(seconds=seconds)
        return from_json(out.read_text(), where=str(out))
