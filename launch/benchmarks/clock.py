"""Times a unit of work in blocks: warm-up, samples, processor seconds and memory."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax

from launch.benchmarks import usage
from launch.benchmarks.repeated import Repeated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """What the blocks showed; a sample is the mean of a block, for one unit of work.

    Attributes:
      seconds: wall-clock seconds of each block.
      cpu_seconds: processor seconds of each block, with those of processes that it started.
      input_seconds: seconds of each block with data that are read meanwhile; empty where the work
        has no such form.
      input_waited: seconds of each of those blocks that were spent waiting for data.
      host_peak_bytes: largest resident memory of the process that does the work.
      device_peak_bytes: largest memory in use on a device; None where devices do not tell.
      facts: further facts, those of the work among them.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    input_seconds: tuple[float, ...]
    input_waited: tuple[float, ...]
    host_peak_bytes: int
    device_peak_bytes: int | None
    facts: Mapping[str, Any]


def time_blocks(work: Repeated, *, trace: pathlib.Path | None = None) -> Timing:
    """Runs all blocks of a unit of work.

    Args:
      work: the work; its blocks are those of `Repeated.blocks`, after those that warm up.
      trace: folder for a profiler's trace of one more block, which is not timed; None for none.
    """
    for _ in range(work.warm_up):
        work.run(work.steps)
    seconds, cpu = [], []
    for _ in range(work.blocks):
        used = usage.cpu_seconds()
        began = time.perf_counter()
        work.run(work.steps)
        seconds.append((time.perf_counter() - began) / work.steps)
        cpu.append((usage.cpu_seconds() - used) / work.steps)
    fed, waited = _with_input(work)
    facts = {**work.facts, **work.after()}
    if trace is not None and work.trace:
        with jax.profiler.trace(str(trace)):
            work.run(work.steps)
        facts["trace"] = str(trace)
    return timing_of(work, seconds, cpu, facts=facts, input_seconds=fed, input_waited=waited)


def timing_of(
    work: Repeated,
    seconds: list[float],
    cpu: list[float],
    *,
    facts: Mapping[str, Any],
    input_seconds: list[float] | None = None,
    input_waited: list[float] | None = None,
) -> Timing:
    """Returns samples together with the peak memory until now."""
    return Timing(
        seconds=tuple(seconds),
        cpu_seconds=tuple(cpu),
        input_seconds=tuple(input_seconds or ()),
        input_waited=tuple(input_waited or ()),
        host_peak_bytes=work.child_peak() if work.child_peak else usage.peak_bytes(),
        device_peak_bytes=None if work.child_peak else usage.device_peak_bytes(),
        facts=facts,
    )


def _with_input(work: Repeated) -> tuple[list[float], list[float]]:
    """Returns the seconds of blocks that read their data, and those waited in each."""
    seconds, waited = [], []
    if work.with_input is not None:
        work.with_input(work.steps)
        for _ in range(work.blocks):
            began = time.perf_counter()
            waited.append(work.with_input(work.steps) / work.steps)
            seconds.append((time.perf_counter() - began) / work.steps)
    return seconds, waited
