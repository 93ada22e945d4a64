"""The loop that every objective is trained with: start or resume, step, log, save, stop."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from prior_jax.errors import CheckpointError, ConfigError, NonFiniteLossError
from prior_jax.objectives.base import TrainObjective
from prior_jax.sharding.distributed import is_primary
from prior_jax.sharding.mesh import is_simulated
from prior_jax.sharding.rules import Rule
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.checkpoint_table import CheckpointConfig, is_out_of_space
from prior_jax.train.feed import Feed, TrainingData
from prior_jax.train.metrics import LogConfig, Writers, check_installed, open_writers
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.preemption import Preempted, PreemptionGuard
from prior_jax.train.program import Program
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import ModelDefinition, TrainState
from prior_jax.train.step import StepMetrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a run is run.

    Attributes:
      seed: of the parameters and of every step's noise; 0 to 2**32 - 1.
      evaluate_every: steps between calls of the evaluation hook, or None for never; the last
        step of the run is evaluated as well.
      log: what is logged, and where.
      checkpoint: when to save and what to keep.
      identity: name -> JSON value, settings that must be the same when the run is resumed
        (stages and seed are compared in any case), e.g. the model's and the data's.
    """

    seed: int
    evaluate_every: int | None
    log: LogConfig
    checkpoint: CheckpointConfig
    identity: Mapping[str, Any]

    def __post_init__(self):
        """Refuses values that no run could follow."""
        if not 0 <= self.seed < 2**32:
            raise ConfigError("config.seed", received=self.seed, accepted="0 to 2**32 - 1")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise ConfigError(
                "config.evaluate_every", received=self.evaluate_every, accepted=">= 1, or None"
            )


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The model after some step, for hooks; valid only until the hook returns.

    Attributes:
      step: steps done.
      stage: name of the stage that the last of them belonged to.
      model: the structure that the arrays belong to.
      params: path -> parameter.
      rest: path -> the rest of the model's state.
    """

    step: int
    stage: str
    model: ModelDefinition
    params: Mapping[str, jax.Array]
    rest: Mapping[str, jax.Array]

    def module(self) -> nnx.Module:
        """The model with these arrays."""
        return self.model.merge(self.params, self.rest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the launcher hangs into the loop; every process calls each at the same step.

    Attributes:
      evaluate: gives name -> number, which join the step's line in metrics.jsonl; called every
        `evaluate_every` steps and after the last.
      stage_end: called after each stage, before its checkpoint is saved: after a crash it may
        be called again for the same stage.
    """

    evaluate: Callable[[Snapshot], Mapping[str, float]] | None = None
    stage_end: Callable[[Snapshot], None] | None = None


def train(
    *,
    objective: TrainObjective,
    data: TrainingData,
    stages: Sequence[Stage],
    optimizer: OptimizerConfig,
    options: TrainOptions,
    mesh: Mesh,
    rules: Sequence[Rule],
    data_axes: Sequence[str],
    workdir: str | pathlib.Path,
    hooks: Hooks | None = None,
    initial_values: Mapping[str, np.ndarray] | None = None,
) -> Snapshot:
    """Trains through all stages, from the newest sound checkpoint in `workdir` or from scratch.

    Killed at any moment and called again, it ends with the same parameters and the same
    metrics.jsonl (but for timings) as if it had never been stopped.

    Args:
      objective: model, terms, weights, and what each stage trains.
      data: batches as a function of the step, e.g. `data.pipeline.Split`.
      stages: in order; names that the objective knows.
      optimizer: what the stages share.
      options: seed, logging, checkpoints.
      mesh: the devices; may differ from that of an earlier part of the run.
      rules: where each array lies.
      data_axes: the axes that a batch's rows are split over.
      workdir: holds metrics.jsonl, checkpoints/, tensorboard/ and nonfinite.json.
      hooks: evaluation and stage ends.
      initial_values: path -> array, imported weights that replace drawn ones when the run
        starts (not when it resumes).

    Returns:
      The final model.

    Raises:
      ConfigError: for settings that do not fit each other or the devices.
      CheckpointError: if no checkpoint can be used, the run is of another config, or no space
        is left.
      DataError: if the data ends or is damaged.
      NonFiniteLossError: if a loss or gradient is NaN or infinite; nothing of that step is saved.
      Preempted: after SIGTERM or SIGINT, once the state is saved; exit with
        `preemption.EXIT_CODE`.
    """
    folder = pathlib.Path(workdir)
    check_installed(options.log)
    with _space_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        program = Program(
            objective=objective,
            stages=stages,
            optimizer=optimizer,
            mesh=mesh,
            rules=rules,
            data_axes=data_axes,
        )
        checkpoints = Checkpoints(folder / "checkpoints", options.checkpoint)
        run = _Run(program, data, options, hooks or Hooks(), checkpoints, folder)
        restored = checkpoints.restore_newest(program.abstract_after, check=run.check_same)
        if restored is None:
            state = program.initial(seed=options.seed, values=initial_values)
        else:
            state = restored[0]
        return run.go(state)


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A step that was started and whose metrics are still to be read."""

    done: int
    stage: Stage
    metrics: StepMetrics
    records: np.ndarray


class _Meter:
    """Pairs, time and input wait since the last logged step."""

    def __init__(self, feed: Feed):
        self._feed = feed
        self.restart()

    def restart(self) -> None:
        self._pairs, self._began = 0.0, time.monotonic()
        self._waited = self._feed.waited_seconds

    def count(self, pairs: float) -> None:
        self._pairs += pairs

    def rates(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._began, 1e-9)
        waited = self._feed.waited_seconds - self._waited
        return {
            "pairs_per_second": self._pairs / seconds,
            "input_wait": min(waited / seconds, 1.0),
        }


class _Run:
    """One life of a run, from its restored or initial state to its end."""

    def __init__(
        self,
        program: Program,
        data: TrainingData,
        options: TrainOptions,
        hooks: Hooks,
        checkpoints: Checkpoints,
        workdir: pathlib.Path,
    ):
        self._program, self._data, self._options = program, data, options
        self._hooks, self._checkpoints, self._workdir = hooks, checkpoints, workdir
        self._schedule: Schedule = program.schedule
        # Simulated devices can deadlock when the collectives of two steps are in flight.
        self._blocking = is_simulated(program.mesh)
        self._host = {
            "seed": options.seed,
            "identity": json.loads(json.dumps(dict(options.identity))),
            "stages": [dataclasses.asdict(stage) for stage in self._schedule.stages],
        }
        self._writers = Writers([])
        self._meter: _Meter

    def check_same(self, host: Mapping[str, Any]) -> None:
        """Refuses a checkpoint that this run could not have written."""
        step, ours, theirs = host["step"], dict(self._host), dict(host)
        if step > self._schedule.total_steps:
            raise CheckpointError(
                "config.stages",
                received=f"{self._schedule.total_steps} steps in all",
                accepted=f"at least the {step} steps of the checkpoint in {self._workdir}",
            )
        begun = self._schedule.stages.index(self._schedule.at(max(step - 1, 0))) + 1
        pairs = {"config.seed": (ours["seed"], theirs["seed"])}
        for name in sorted(ours["identity"].keys() | theirs["identity"].keys()):
            pairs[name] = ours["identity"].get(name), theirs["identity"].get(name)
        # Stages that are still to come may change; what has been run may not.
        for i in range(begun):
            pairs[f"config.stages[{i}]"] = ours["stages"][i], theirs["stages"][i]
        for name, (now, then) in pairs.items():
            if now != then:
                raise CheckpointError(
                    name,
                    received=now,
                    accepted=f"{then}, as in the checkpoint in {self._workdir}, or a new workdir",
                )

    def go(self, state: TrainState) -> Snapshot:
        """Runs what is left; always closes what it opened."""
        done, total = int(state.step), self._schedule.total_steps
        with contextlib.ExitStack() as stack:
            self._writers = open_writers(
                self._options.log,
                workdir=self._workdir,
                total=total,
                done=done,
                primary=is_primary(),
            )
            stack.callback(self._writers.close)
            guard = stack.enter_context(PreemptionGuard())
            if done < total:
                feed = Feed(
                    self._data,
                    start=done,
                    stop=total,
                    mesh=self._program.mesh,
                    data_axes=self._program.data_axes,
                )
                stack.callback(feed.close)
                stack.callback(self._finish_save_quietly)
                self._meter = _Meter(feed)
                state = self._steps(state, done=done, feed=feed, guard=guard)
                self._checkpoints.wait()
        return self._snapshot(state, self._schedule.stages[-1])

    def _finish_save_quietly(self) -> None:
        """Lets a save in progress end; an error here must not hide the one that stopped us."""
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            logging.error("the save in progress failed: %s", error)

    def _steps(
        self, state: TrainState, *, done: int, feed: Feed, guard: PreemptionGuard
    ) -> TrainState:
        total, pending = self._schedule.total_steps, None
        for step in range(done, total):
            stage = self._schedule.at(step)
            if step == self._schedule.start(stage):
                logging.info("%s begins at step %d", stage.name, step)
                state = self._program.begin(state, stage)
            fed = feed.take()
            state, metrics = self._program.step(stage)(state, fed.batch)
            feed.prefetch()
            if self._blocking:
                jax.block_until_ready(metrics)
            # The step before this one is read only now, so that the device is never idle.
            self._settle(pending)
            pending = _Pending(step + 1, stage, metrics, fed.records)
            stop = guard.requested(step + 1) and step + 1 < total
            # The first step compiles, which would spoil the first rates.
            if stop or step == done or self._is_boundary(step + 1):
                score = self._settle(pending, snapshot=self._snapshot(state, stage))
                pending = None
                self._boundary(state, stage, score=score, stop=stop)
                self._meter.restart()
            if stop:
                self._checkpoints.wait()
                raise Preempted(step + 1)
        return state

    def _evaluates(self, done: int) -> bool:
        every = self._options.evaluate_every
        if self._hooks.evaluate is None or every is None:
            return False
        return done % every == 0 or done == self._schedule.total_steps

    def _is_boundary(self, done: int) -> bool:
        """Whether something is to be done with the state after this many steps."""
        saves = done % self._options.checkpoint.every_steps == 0
        return saves or self._evaluates(done) or self._schedule.ends_after(done - 1)

    def _settle(self, pending: _Pending | None, snapshot: Snapshot | None = None) -> float | None:
        """Reads a step's metrics, evaluates and logs it; gives the score if it was evaluated."""
        if pending is None:
            return None
        metrics: StepMetrics = jax.device_get(pending.metrics)
        if not metrics.finite:
            self._stop_nonfinite(pending, metrics)
        self._meter.count(float(metrics.pairs))
        rates, evaluation = self._meter.rates(), {}
        if snapshot is not None and self._hooks.evaluate and self._evaluates(pending.done):
            found = self._hooks.evaluate(snapshot)
            evaluation = {name: float(value) for name, value in found.items()}
        every = self._options.log.every_steps
        ends = self._schedule.ends_after(pending.done - 1)
        if pending.done % every == 0 or ends or evaluation:
            self._writers.write(_record(pending, metrics, rates=rates, evaluation=evaluation))
            if not evaluation:
                self._meter.restart()
        return self._score(evaluation)

    def _score(self, evaluation: Mapping[str, float]) -> float | None:
        name = self._options.checkpoint.best_metric
        if name is None or not evaluation:
            return None
        if name not in evaluation:
            raise ConfigError(
                "config.checkpoint.best_metric",
                received=name,
                accepted=f"one of the evaluation's {sorted(evaluation)}",
            )
        return evaluation[name]

    def _boundary(
        self, state: TrainState, stage: Stage, *, score: float | None, stop: bool
    ) -> None:
        """Calls the stage's hook and saves, where this step is one of those."""
        done, config = int(state.step), self._options.checkpoint
        ends = self._schedule.ends_after(done - 1)
        if ends and self._hooks.stage_end is not None:
            self._hooks.stage_end(self._snapshot(state, stage))
        best = config.keep_best > 0 and config.better(score, self._checkpoints.best_score())
        if stop or ends or best or done % config.every_steps == 0:
            # On disk first, so that no checkpoint is ever ahead of the metrics.
            self._writers.flush()
            host = {**self._host, "step": done, "input_position": done}
            self._checkpoints.save(state, host=host, score=score)

    def _snapshot(self, state: TrainState, stage: Stage) -> Snapshot:
        return Snapshot(int(state.step), stage.name, self._program.model, state.params, state.rest)

    def _stop_nonfinite(self, pending: _Pending, metrics: StepMetrics) -> None:
        """Writes nonfinite.json and stops; the step's state has not been saved."""
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
        bad = {name: value for name, value in values.items() if not np.isfinite(value)}
        raise NonFiniteLossError(
            f"step {pending.done} ({pending.stage.name})",
            received=bad,
            accepted=f"finite losses and gradients; records {', '.join(ids[:4])}"
            f"{', ...' if len(ids) > 4 else ''} (all in {path})",
        )


def _record(
    pending: _Pending,
    metrics: StepMetrics,
    *,
    rates: Mapping[str, float],
    evaluation: Mapping[str, float],
) -> dict[str, Any]:
    """The step's line in metrics.jsonl."""
    record: dict[str, Any] = {"step": pending.done, "stage": pending.stage.name}
    record["lr"] = float(metrics.learning_rate)
    record["total_loss"] = float(metrics.total)
    record["grad_norm"] = float(metrics.gradient_norm)
    record |= rates
    extra = {f"{name}_loss": float(value) for name, value in sorted(metrics.terms.items())}
    extra |= {name: float(value) for name, value in sorted(metrics.metrics.items())}
    taken = (record.keys() & (extra.keys() | evaluation.keys())) | (extra.keys() & evaluation)
    if taken:
        raise ValueError(f"two numbers of step {pending.done} are called {sorted(taken)}")
    return record | extra | dict(evaluation)


@contextlib.contextmanager
def _space_errors(workdir: pathlib.Path) -> Iterator[None]:
    """Turns a full disk into one clear line, wherever in the run it is met."""
    try:
        yield
    except OSError as error:
        if not is_out_of_space(error):
            raise
        raise CheckpointError(
            str(workdir),
            received="no space left on device",
            accepted="a workdir with free space; run again to go on from the last checkpoint",
        ) from error
