"""Checkpoints: a whole state is saved and read, and steps are timed while a save goes on."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from launch.benchmarks import counted
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import StepConfig, on_accelerator
from launch.benchmarks.steps import ReadyStep, ready_step
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.checkpoint_table import CheckpointConfig

_PERCENTILES = (50, 90, 100)


@contextlib.contextmanager
def checkpoint(step: StepConfig, request: Request, folder: pathlib.Path) -> Iterator[Repeated]:
    """Opens the save of the state of a training step, until it is on the disk.

    Args:
      step: step whose state is saved, and which is timed beside a save.
      request: batch, dtype and size.
      folder: folder for the checkpoints.

    Yields:
      A save; its unit is the megabyte. The facts have the seconds until a step may go on, the
      seconds to read the state again, and percentiles of the steps' seconds without and with a
      save.
    """
    with ready_step(step, request, folder) as (ready, config):
        kept = CheckpointConfig(
            every_steps=1, keep_last=1, keep_best=0, best_metric=None, best_is="lowest",
            directory=None,
        )  # fmt: skip
        checkpoints = Checkpoints(folder / "checkpoints", kept)
        size = counted.bytes_of(ready.state)
        numbers, held = itertools.count(1), []

        def begin() -> None:
            began = time.perf_counter()
            number = ready.program.scalar(np.int32(next(numbers)))
            state = dataclasses.replace(ready.state, step=number)
            checkpoints.save(state, host={}, score=None)
            held.append(time.perf_counter() - began)

        def run(count: int) -> None:
            for _ in range(count):
                begin()
                checkpoints.wait()

        ready.run(1)
        yield Repeated(
            run=run,
            unit="MB",
            count=max(size // 10**6, 1),
            batch=config.data.batch_size,
            steps=request.steps or 1,
            blocks=request.blocks or (2 if request.tiny else 6),
            after=functools.partial(_facts, ready, checkpoints, begin, held),
        )


def _facts(
    ready: ReadyStep, checkpoints: Checkpoints, begin: Callable[[], None], held: list[float]
) -> dict[str, Any]:
    """Returns how long a save holds training up, how long a read takes, and steps beside a save."""
    steps = 20 if on_accelerator() else 4
    facts: dict[str, Any] = {"held_seconds": round(float(np.median(held)), 4)}
    began = time.perf_counter()
    restored = checkpoints.restore_newest(ready.program.abstract_after, check=lambda host: None)
    jax.block_until_ready(restored)
    facts["read_seconds"] = round(time.perf_counter() - began, 4)
    del restored
    facts["step_seconds"] = _percentiles(ready, steps)
    begin()
    facts["step_seconds_during_a_save"] = _percentiles(ready, steps)
    checkpoints.wait()
    return facts


def _percentiles(ready: ReadyStep, count: int) -> dict[str, float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        ready.run(1)
        seconds.append(time.perf_counter() - began)
    return {f"p{q}": round(float(np.percentile(seconds, q)), 4) for q in _PERCENTILES}
