"""Work between two steps: logging, evaluation, patience and saving."""

from collections.abc import Mapping
from typing import Any

from prior_jax.processes import activities
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.options import Evaluate, Snapshot, TrainOptions
from prior_jax.train.patience import Patience, metric_of
from prior_jax.train.run_log import Pending, RunLog
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import ModelDefinition, TrainState
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
            self._read_and_log(pending, evaluation=None)

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
        found = self._read_and_log(
            pending, evaluation=snapshot_of(state, pending.stage, self._model)
        )
        if found:
            patience = patience.after(
                found, stage=pending.stage, stopping=self._options.early_stopping
            )
        done, config, score = pending.done, self._options.checkpoint, self._score(found)
        best = config.keep_best > 0 and config.better(score, self._checkpoints.best_score())
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

    def _read_and_log(
        self, pending: Pending, *, evaluation: Snapshot | None
    ) -> Mapping[str, float]:
        """Reads a step's metrics, evaluates the model and logs both; returns the evaluation."""
        metrics = self._log.read(pending)
        rates, found = self._log.rates(), {}
        if evaluation is not None:
            for hook in self._due(pending.done):
                with activities.doing(activities.EVALUATE):
                    answer = hook(evaluation)
                found |= {name: float(value) for name, value in answer.items()}
        every = self._options.log.every_steps
        if pending.done % every == 0 or self._schedule.ends_after(pending.done - 1) or found:
            self._log.write(pending, metrics, rates=rates, evaluation=found)
            if not found:
                self._log.reset()
        return found

    def _score(self, evaluation: Mapping[str, float]) -> float | None:
        name = self._options.checkpoint.best_metric
        if name is None or not computed(evaluation, name):
            return None
        return metric_of(evaluation, name, field="config.checkpoint.best_metric")


def snapshot_of(state: TrainState, stage: Stage, model: ModelDefinition) -> Snapshot:
    """Returns the model after the last step of a state."""
    return Snapshot(int(state.step), stage.name, model, state.params, state.rest)
