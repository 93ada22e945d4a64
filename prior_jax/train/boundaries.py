"""Work between two steps: logging, evaluation, patience and saving."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from prior_jax.processes import activities
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.options import Evaluate, Snapshot, TrainOptions
from prior_jax.train.patience import Patience, metric_of
from prior_jax.train.run_log import Pending, RunLog
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import ModelDefinition, TrainState
from prior_jax.train.step import StepMetrics
from prior_jax.train.watched import computed


class Boundaries:
    """Decides after which steps the state is evaluated, logged and saved, and does so."""

    def __init__(
        self,
        *,
        options: TrainOptions,
        schedule: Schedule,
        settings: Mapping[str, Any],
        model: ModelDefinition,
        validate: Evaluate | None,
        evaluate: Evaluate | None,
        checkpoints: Checkpoints,
        log: RunLog,
    ):
        """Stores the parts of the run.

        Args:
          options: intervals of validation, evaluation, logging and checkpoints.
          schedule: stages of the run.
          settings: JSON values stored in each checkpoint, by which a resuming run is compared.
          model: structure that the state's arrays belong to.
          validate: validation of the model after a step, or None.
          evaluate: evaluation of the model after a step, or None.
          checkpoints: checkpoints of the run.
          log: log of the run.
        """
        self._options, self._schedule, self._settings = options, schedule, settings
        self._model, self._evaluate = model, evaluate if options.evaluate_every else None
        hooks = ((options.validate_every, validate), (options.evaluate_every, self._evaluate))
        self._hooks = tuple((every, hook) for every, hook in hooks if every and hook is not None)
        self._checkpoints, self._log = checkpoints, log

    def is_at(self, done: int) -> bool:
        """Returns whether the state is evaluated or saved after this many steps."""
        return self._saves(done) or bool(self._due(done))

    def log_untrained(self, state: TrainState, stage: Stage) -> None:
        """Evaluates the model before its first step and logs its numbers as those of step 0."""
        if self._evaluate is not None:
            with activities.doing(activities.EVALUATE, step=0):
                found = self._evaluate(snapshot_of(state, stage, self._model))
            self._log.write_untrained(stage, found)

    def log_step(self, pending: Pending | None) -> None:
        """Reads the metrics of a step without a boundary, and logs them at the logging interval."""
        if pending is not None:
            metrics = self._log.read(pending)
            self._write(pending, metrics, rates=self._log.rates(), found={})

    def cross(
        self, state: TrainState, pending: Pending, patience: Patience, *, stop: bool
    ) -> Patience:
        """Evaluates, logs and saves the state after a step, as far as due at this step.

        Args:
          state: state after the step.
          pending: the step.
          patience: patience before the evaluation.
          stop: whether the run was asked to stop, so that the state is saved in any case.

        Returns:
          The patience after the evaluation; its `ended` is True if the stage ends here.
        """
        metrics = self._log.read(pending)
        rates, done, due = self._log.rates(), pending.done, self._due(pending.done)
        snapshot = snapshot_of(state, pending.stage, self._model)
        found = _call(due, snapshot)
        if found:
            patience = patience.after(
                found, stage=pending.stage, stopping=self._options.early_stopping
            )
        if patience.ended and pending.stage == self._schedule.stages[-1]:
            # This is the last step of the run after all, which everything is computed for.
            found |= _call((hook for _, hook in self._hooks if hook not in due), snapshot)
        self._write(pending, metrics, rates=rates, found=found)
        score = self._score(found)
        best = self._checkpoints.among_best(score)
        if self._saves(done) or stop or patience.ended or best:
            # The log is flushed to disk first, so that no checkpoint is ever ahead of the metrics.
            self._log.flush()
            host = {**self._settings, "patience": patience.as_json(), "step": done}
            self._checkpoints.save(state, host=host, score=score)
        self._log.restart()
        return patience

    def wait_for_save(self) -> None:
        """Waits until the last save is complete on disk."""
        self._checkpoints.wait()

    def _saves(self, done: int) -> bool:
        """Returns whether the state is saved after this many steps, whatever else happens."""
        due = done % self._options.checkpoint.every_steps == 0
        return due or self._schedule.ends_after(done - 1)

    def _due(self, done: int) -> tuple[Evaluate, ...]:
        """Returns what is called after this many steps: validation, evaluation, both or none."""
        last = done == self._schedule.total_steps
        return tuple(hook for every, hook in self._hooks if last or done % every == 0)

    def _write(
        self,
        pending: Pending,
        metrics: StepMetrics,
        *,
        rates: Mapping[str, float],
        found: Mapping[str, float],
    ) -> None:
        """Logs a step that was evaluated, and other steps at the logging interval."""
        every = self._options.log.every_steps
        if pending.done % every == 0 or self._schedule.ends_after(pending.done - 1) or found:
            self._log.write(pending, metrics, rates=rates, evaluation=found)
            if not found:
                self._log.reset()

    def _score(self, evaluation: Mapping[str, float]) -> float | None:
        """Returns the number that the best checkpoint is chosen by; None if it is not finite."""
        name = self._options.checkpoint.best_metric
        if name is None or not computed(evaluation, name):
            return None
        score = metric_of(evaluation, name, field="config.checkpoint.best_metric")
        return score if math.isfinite(score) else None


def _call(hooks: Iterable[Evaluate], snapshot: Snapshot) -> dict[str, float]:
    """Evaluates the model by each of these; returns name -> number."""
    found = {}
    for hook in hooks:
        with activities.doing(activities.EVALUATE):
            answer = hook(snapshot)
        found |= {name: float(value) for name, value in answer.items()}
    return found


def snapshot_of(state: TrainState, stage: Stage, model: ModelDefinition) -> Snapshot:
    """Returns the model after the last step of a state."""
    return Snapshot(int(state.step), stage.name, model, state.params, state.rest)
