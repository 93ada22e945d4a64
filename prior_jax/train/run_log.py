"""Logs a step: reads its metrics, measures rates, writes its line, and reports a NaN."""

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from prior_jax.errors import NonFiniteLossError
from prior_jax.processes import activities
from prior_jax.processes.distributed import is_primary
from prior_jax.train.checksum import as_text
from prior_jax.train.feed import Feed, TrainingData
from prior_jax.train.metrics import Writers
from prior_jax.train.stages import Stage
from prior_jax.train.step import StepMetrics


@dataclasses.dataclass(frozen=True)
class Pending:
    """A step that was started and whose metrics have not been read yet.

    Attributes:
      done: number of steps done, this one included.
      stage: stage that the step belongs to.
      metrics: metrics on the devices, which may still be computing them.
      records: int32[b], indices of this process's records, -1 for filling rows.
      ended: time at which the devices were done with the step, in seconds of `time.monotonic`.
      compiled: time at which the program of the step had been compiled; None if it was there.
      waited: time for which the devices may have waited for batches in the whole run, up to this
        step's batch, in seconds.
    """

    done: int
    stage: Stage
    metrics: StepMetrics
    records: np.ndarray
    ended: concurrent.futures.Future[float]
    compiled: float | None
    waited: float


class RunLog:
    """Counts pairs, time and input wait since the last logged step, and writes the lines.

    A step takes the time from the end of the step before, from a restart, or from the end of its
    own compilation to its own end on the devices. The time at which its metrics are read would not
    do: the next step is started before that, and may keep the host busy for longer than the devices
    need for both. So a thread waits for the end of each step.
    """

    def __init__(self, writers: Writers, *, feed: Feed, data: TrainingData, workdir: pathlib.Path):
        """Starts the clock.

        Args:
          writers: destinations of the lines; the caller closes them.
          feed: feed that counts how long the loop has waited for its data.
          data: data that gives the records' ids.
          workdir: folder for nonfinite.json.
        """
        self._writers, self._feed, self._data, self._workdir = writers, feed, data, workdir
        self._programs: set[tuple[Any, ...]] = set()
        self._compiled: float | None = None
        self._ends = concurrent.futures.ThreadPoolExecutor(1, "ends of steps")
        self.restart()

    def restart(self) -> None:
        """Resets the counts, and leaves the time until now out of them."""
        self._at, self._waited_at = time.monotonic(), self._feed.waited_seconds
        self.reset()

    def reset(self) -> None:
        """Resets the counts of pairs, time and input wait of the steps that were read."""
        self._pairs = self._seconds = self._waited = 0.0

    def started(
        self, done: int, stage: Stage, metrics: StepMetrics, records: np.ndarray
    ) -> Pending:
        """Returns a step that was just started; for the arguments see `Pending`."""
        ended = self._ends.submit(_end_of, metrics)
        compiled, self._compiled = self._compiled, None
        waited = self._feed.waited_seconds
        return Pending(done, stage, metrics, records, ended, compiled, waited)

    @contextlib.contextmanager
    def compiling(self, stage: Stage, batch: Any) -> Iterator[None]:
        """Surrounds the call of a stage's step, which compiles for each new shape of a batch.

        Compilation is logged, and its time is excluded from the rates, as is the wait for its
        batch. Batches with longer reports have another shape.

        Args:
          stage: stage of the step.
          batch: arrays that the step is called with.
        """
        program = (stage.name, *(array.shape for array in jax.tree.leaves(batch)))
        if program in self._programs:
            yield
            return
        others = any(name == stage.name for name, *_ in self._programs)
        what = f"{stage.name} for batches of another shape" if others else stage.name
        self._programs.add(program)
        logging.info("compiling the training step of %s (a minute or more, once)", what)
        began = time.monotonic()
        yield
        self._compiled = time.monotonic()
        self._writers.leave_out(self._compiled - began)

    @activities.doing(activities.STEP)
    def read(self, pending: Pending) -> StepMetrics:
        """Returns the step's metrics on the host, and counts its pairs and its time.

        Raises:
          NonFiniteLossError: if the loss or gradient is not finite, after writing nonfinite.json.
        """
        metrics: StepMetrics = jax.device_get(pending.metrics)
        if not metrics.finite:
            self._stop_nonfinite(pending, metrics)
        self._pairs += float(metrics.pairs)
        if pending.compiled is not None:
            self._at, self._waited_at = max(self._at, pending.compiled), pending.waited
        ended = pending.ended.result()
        self._seconds += ended - self._at
        self._waited += pending.waited - self._waited_at
        self._at, self._waited_at = ended, pending.waited
        return metrics

    def rates(self) -> dict[str, float]:
        """Returns speed and input wait over the steps that were read since the last reset."""
        seconds = max(self._seconds, 1e-9)
        return {
            "pairs_per_second": self._pairs / seconds,
            "input_wait": min(self._waited / seconds, 1.0),
        }

    def write(
        self,
        pending: Pending,
        metrics: StepMetrics,
        *,
        rates: Mapping[str, float],
        evaluation: Mapping[str, float],
    ) -> None:
        """Writes the step's line."""
        self._writers.write(_record(pending, metrics, rates=rates, evaluation=evaluation))

    def write_untrained(self, stage: Stage, evaluation: Mapping[str, float]) -> None:
        """Writes the line of step 0, the numbers of the model before its first step."""
        numbers = {name: float(value) for name, value in evaluation.items()}
        self._writers.write({"step": 0, "stage": stage.name, **numbers})
        self.restart()

    def flush(self) -> None:
        """Syncs all lines to disk."""
        self._writers.flush()

    def _stop_nonfinite(self, pending: Pending, metrics: StepMetrics) -> None:
        """Writes nonfinite.json and raises; the step's state has not been saved."""
        records = pending.records
        if jax.process_count() > 1:
            records = multihost_utils.process_allgather(records)
        indices = sorted({int(index) for index in np.ravel(records) if index >= 0})
        ids = [self._data.record_id(index) for index in indices]
        values = {f"{name}_loss": float(value) for name, value in metrics.terms.items()}
        values["total_loss"] = float(metrics.total)
        values["grad_norm"] = float(metrics.gradient_norm)
        report = {"step": pending.done, "stage": pending.stage.name}
        report["values"] = {n: v if np.isfinite(v) else str(v) for n, v in values.items()}
        report["records"] = ids
        path = self._workdir / "nonfinite.json"
        if is_primary():
            path.write_text(json.dumps(report, indent=2) + "\n")
        bad = ", ".join(f"{n} = {v}" for n, v in values.items() if not np.isfinite(v))
        stage = pending.stage.name
        raise NonFiniteLossError(
            f"The loss or gradient is not finite: {bad}. Either the parameters before the step are "
            "at fault, or the records of the batch: "
            f"{', '.join(ids[:4])}{', ...' if len(ids) > 4 else ''} ({path} lists all of them).",
            f"See in {self._workdir / 'metrics.jsonl'} whether total_loss and grad_norm grew "
            "before this step. If they did, train in a new --workdir with a lower "
            f"--config.stages.{stage}.learning_rate; --config.init.image.path={self._workdir} "
            "and --config.init.image.step=STEP start it from an earlier checkpoint. If they did "
            "not, look at the records, and train in a new --workdir on a set without those that "
            "are damaged. The same command would end here again.",
            where=f"step {pending.done} ({stage})",
        )


def _end_of(metrics: Any) -> float:
    """Waits until the devices have computed a step's metrics, and returns the time."""
    jax.block_until_ready(metrics)
    return time.monotonic()


def _record(
    pending: Pending,
    metrics: StepMetrics,
    *,
    rates: Mapping[str, float],
    evaluation: Mapping[str, float],
) -> dict[str, Any]:
    """Returns the step's line in metrics.jsonl."""
    record: dict[str, Any] = {"step": pending.done, "stage": pending.stage.name}
    record["batch"] = as_text(metrics.batch)
    record["lr"] = float(metrics.learning_rate)
    record["total_loss"] = float(metrics.total)
    record["grad_norm"] = float(metrics.gradient_norm)
    record |= rates
    extra = {f"{name}_loss": float(value) for name, value in sorted(metrics.terms.items())}
    extra |= {name: float(value) for name, value in sorted(metrics.metrics.items())}
    taken = (record.keys() & (extra.keys() | evaluation.keys())) | (extra.keys() & evaluation)
    if taken:
        raise ValueError(
            f"Step {pending.done} has two numbers of each of the names {sorted(taken)}."
        )
    return record | extra | dict(evaluation)
