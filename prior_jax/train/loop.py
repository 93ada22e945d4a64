"""The training loop of every objective: starts or resumes, steps, logs, saves, stops."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from prior_jax.errors import CheckpointError, ConfigError
from prior_jax.objectives.base import TrainObjective
from prior_jax.processes import activities
from prior_jax.processes.distributed import is_primary, peers
from prior_jax.processes.preemption import Preempted, PreemptionGuard
from prior_jax.processes.watchdog import Watchdog
from prior_jax.sharding.mesh import is_simulated
from prior_jax.sharding.rules import Rule
from prior_jax.storage_errors import is_out_of_space
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.feed import Feed, TrainingData
from prior_jax.train.metrics import Writers, check_installed, open_writers
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.options import Hooks, Snapshot, TrainOptions
from prior_jax.train.patience import Patience, metric_of
from prior_jax.train.program import Program
from prior_jax.train.resume import check_same, settings_of
from prior_jax.train.run_log import Pending, RunLog
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import ModelDefinition, TrainState

InitialValues = Callable[[ModelDefinition], Mapping[str, np.ndarray]]


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
    initial_values: InitialValues | None = None,
) -> Snapshot:
    """Trains through all stages, from the newest intact checkpoint in `workdir` or from scratch.

    If `options.early_stopping` ends a stage early, the next stage starts at its own first step.

    A run that is killed at any moment and called again ends with the same parameters and the same
    metrics.jsonl (but for timings) as if it had never been stopped.

    Args:
      objective: model, terms, weights, and the parameters that each stage trains.
      data: batches as a function of the step, e.g. `data.pipeline.Split`.
      stages: stages in order; the objective must know their names.
      optimizer: optimizer settings that the stages share.
      options: seed, logging, checkpoints.
      mesh: mesh of the devices; may differ from that of an earlier part of the run.
      rules: sharding rules of the arrays.
      data_axes: axes that a batch's rows are split over.
      workdir: folder for metrics.jsonl, tensorboard/, nonfinite.json and, unless the options name
        another folder, checkpoints/.
      hooks: functions to call for evaluation and at stage ends.
      initial_values: function that returns path -> array, imported weights that replace initial
        ones; called when the run starts, not when it resumes.

    Returns:
      The final model.

    Raises:
      ConfigError: for settings that do not fit each other or the devices, or a metric that the
        evaluation does not return.
      CheckpointError: if no checkpoint can be used, the run is of another config, or no space
        is left.
      DataError: if the data ends or is damaged.
      NonFiniteLossError: if a loss or gradient is NaN or infinite; nothing of that step is saved.
      Preempted: after SIGTERM or SIGINT, once the state is saved; exit with
        `preemption.EXIT_CODE`.
    """
    folder = pathlib.Path(workdir)
    check_installed(options.log)
    guard, watchdog = PreemptionGuard(), Watchdog(options.watchdog, peers=peers())
    with _space_errors(folder), watchdog, guard:
        folder.mkdir(parents=True, exist_ok=True)
        program = Program(
            objective=objective,
            stages=stages,
            optimizer=optimizer,
            mesh=mesh,
            rules=rules,
            data_axes=data_axes,
        )
        checkpoints = Checkpoints(options.checkpoint.folder(folder), options.checkpoint)
        run = _Run(program, data, options, hooks or Hooks(), checkpoints, folder, guard)
        restored = checkpoints.restore_newest(program.abstract_after, check=run.check_same)
        if restored is not None:
            state, host = restored
            return run.go(state, Patience.from_json(host["patience"]))
        values = None if initial_values is None else initial_values(program.model)
        state = program.initial(seed=options.seed, values=values)
        checkpoints.get_ready(state)  # restoring has already compiled the checksums
        return run.go(state, Patience())


class _Run:
    """One execution of a run, from its restored or initial state to its end."""

    def __init__(
        self,
        program: Program,
        data: TrainingData,
        options: TrainOptions,
        hooks: Hooks,
        checkpoints: Checkpoints,
        workdir: pathlib.Path,
        guard: PreemptionGuard,
    ):
        self._program, self._data, self._options = program, data, options
        self._hooks, self._checkpoints, self._workdir = hooks, checkpoints, workdir
        self._guard = guard
        self._schedule: Schedule = program.schedule
        # Simulated devices can deadlock when the collectives of two steps are in flight.
        self._blocking = is_simulated(program.mesh)
        self._settings = settings_of(options, self._schedule)
        self._patience = Patience()
        self._compiled: set[str] = set()
        self._log: RunLog
        self._writers: Writers
        self._check_validates()

    def _check_validates(self) -> None:
        """Refuses early stopping and plateaus that need a metric which is never computed."""
        validates = self._hooks.evaluate is not None and self._options.validate_every > 0
        waits = [f"config.stages.{s.name}.plateau" for s in self._schedule.stages if s.watched]
        if self._options.early_stopping is not None:
            waits.append("config.early_stopping")
        if waits and not validates:
            raise ConfigError(
                "config.validate_every",
                received=self._options.validate_every,
                accepted=f"validations every few steps, for {' and '.join(waits)}",
            )

    def check_same(self, host: Mapping[str, Any]) -> None:
        """Refuses a checkpoint that this run could not have written."""
        check_same(self._settings, host, schedule=self._schedule, workdir=self._workdir)

    def go(self, state: TrainState, patience: Patience) -> Snapshot:
        """Runs the remaining steps; always closes the resources that it opened."""
        done, total = int(state.step), self._schedule.total_steps
        self._patience, start = patience, done
        if patience.ended:
            start = self._schedule.end(self._schedule.at(done - 1))
        with contextlib.ExitStack() as stack:
            self._writers = open_writers(
                self._options.log,
                workdir=self._workdir,
                total=total,
                done=done,
                primary=is_primary(),
            )
            stack.callback(self._writers.close)
            if start < total:
                feed = Feed(
                    self._data,
                    start=start,
                    stop=total,
                    mesh=self._program.mesh,
                    data_axes=self._program.data_axes,
                )
                stack.callback(feed.close)
                stack.callback(self._finish_save_quietly)
                self._log = RunLog(self._writers, feed=feed, data=self._data, workdir=self._workdir)
                state = self._steps(state, start=start, feed=feed)
                self._checkpoints.wait()
        return self._snapshot(state, self._schedule.stages[-1])

    def _finish_save_quietly(self) -> None:
        """Waits for a save in progress; an error here must not hide the one that ended the run."""
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            logging.error("the save in progress failed: %s", error)

    def _steps(self, state: TrainState, *, start: int, feed: Feed) -> TrainState:
        total, pending, step, ran = self._schedule.total_steps, None, start, 0
        while step < total:
            activities.reach(step)
            stage = self._schedule.at(step)
            if step == self._schedule.start(stage):
                state = self._begin(state, stage)
            fed, factor = feed.take(), self._program.scalar(np.float32(self._patience.factor))
            with activities.doing(activities.STEP):
                with self._compiling(stage):
                    state, metrics = self._program.step(stage)(state, fed.batch, factor)
                feed.prefetch()
                if self._blocking:
                    jax.block_until_ready(metrics)
            # The previous step's metrics are read only now, so that the device is never idle.
            self._settle(pending)
            step, ran = step + 1, ran + 1
            pending = Pending(step, stage, metrics, fed.records)
            stop = self._guard.requested(ran) and step < total
            # Rates are measured from the end of the first step after a start, whether or not that
            # step saves a checkpoint.
            if stop or ran == 1 or self._is_boundary(step):
                evaluation = self._settle(pending, snapshot=self._snapshot(state, stage))
                pending = None
                self._boundary(state, stage, evaluation=evaluation, stop=stop)
                self._log.restart()
            if stop:
                self._checkpoints.wait()
                self._guard.log_saved(step)
                raise Preempted(step)
            if self._patience.ended:
                step = self._skip(step, stage, feed=feed)
        return state

    def _compiling(self, stage: Stage) -> contextlib.AbstractContextManager[None]:
        """Returns a context for the call of a stage's step, which compiles on the first call."""
        if stage.name in self._compiled:
            return contextlib.nullcontext()
        self._compiled.add(stage.name)
        return self._log.compiling(stage)

    def _begin(self, state: TrainState, stage: Stage) -> TrainState:
        logging.info("%s begins at step %d", stage.name, self._schedule.start(stage))
        self._patience = Patience()
        return self._program.begin(state, stage)

    def _skip(self, step: int, stage: Stage, *, feed: Feed) -> int:
        """Returns the index of the step to continue with after a stage that was ended early."""
        end = self._schedule.end(stage)
        logging.info("%s ends early, after step %d of %d", stage.name, step, end)
        if step < end < self._schedule.total_steps:
            feed.skip_to(end)
        return end

    def _evaluates(self, done: int) -> bool:
        every = self._options.validate_every
        if self._hooks.evaluate is None or not every:
            return False
        return done % every == 0 or done == self._schedule.total_steps

    def _is_boundary(self, done: int) -> bool:
        """Returns whether a save, an evaluation or the end of a stage is due after `done` steps."""
        saves = done % self._options.checkpoint.every_steps == 0
        return saves or self._evaluates(done) or self._schedule.ends_after(done - 1)

    def _settle(
        self, pending: Pending | None, snapshot: Snapshot | None = None
    ) -> Mapping[str, float]:
        """Reads a step's metrics, evaluates and logs it; returns the evaluation's numbers."""
        if pending is None:
            return {}
        metrics = self._log.read(pending)
        rates, evaluation = self._log.rates(), {}
        if snapshot is not None and self._hooks.evaluate and self._evaluates(pending.done):
            with activities.doing(activities.EVALUATE):
                found = self._hooks.evaluate(snapshot)
            evaluation = {name: float(value) for name, value in found.items()}
        every = self._options.log.every_steps
        ends = self._schedule.ends_after(pending.done - 1)
        if pending.done % every == 0 or ends or evaluation:
            self._log.write(pending, metrics, rates=rates, evaluation=evaluation)
            if not evaluation:
                self._log.restart()
        return evaluation

    def _score(self, evaluation: Mapping[str, float]) -> float | None:
        name = self._options.checkpoint.best_metric
        if name is None or not evaluation:
            return None
        return metric_of(evaluation, name, field="config.checkpoint.best_metric")

    def _boundary(
        self, state: TrainState, stage: Stage, *, evaluation: Mapping[str, float], stop: bool
    ) -> None:
        """Updates the patience, calls the stage's hook and saves, as far as due at this step."""
        done, config = int(state.step), self._options.checkpoint
        score = self._score(evaluation)
        if evaluation:
            self._patience = self._patience.after(
                evaluation, stage=stage, stopping=self._options.early_stopping
            )
        ends = self._schedule.ends_after(done - 1) or self._patience.ended
        if ends and self._hooks.stage_end is not None:
            with activities.doing(activities.STAGE_END):
                self._hooks.stage_end(self._snapshot(state, stage))
        best = config.keep_best > 0 and config.better(score, self._checkpoints.best_score())
        if stop or ends or best or done % config.every_steps == 0:
            # The metrics are flushed to disk first, so that no checkpoint is ever ahead of them.
            self._writers.flush()
            host = {**self._settings, "patience": self._patience.as_json()}
            host |= {"step": done, "input_position": done}
            self._checkpoints.save(state, host=host, score=score)

    def _snapshot(self, state: TrainState, stage: Stage) -> Snapshot:
        return Snapshot(int(state.step), stage.name, self._program.model, state.params, state.rest)


@contextlib.contextmanager
def _space_errors(workdir: pathlib.Path) -> Iterator[None]:
    """Turns a full disk into an error of one line, wherever in the run it occurs."""
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
