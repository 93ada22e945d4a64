"""Options of a run, and the snapshot that its evaluation gets."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from prior_jax.errors import ConfigError, check_field
from prior_jax.processes.watchdog import WatchdogConfig
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.metrics import LogConfig
from prior_jax.train.patience import EarlyStoppingConfig
from prior_jax.train.state import ModelDefinition
from prior_jax.train.watched import EVALUATE, VALIDATE, interval_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a run.

    Attributes:
      seed: seed of the parameters and of every step's noise; 0 to 2**32 - 1.
      validate_every: steps between validations, which compute the loss terms on held-out pairs, or
        0 for never; the last step of the run is validated as well.
      evaluate_every: steps between evaluations, which measure what the model can do on a subset, or
        0 for never; the model is evaluated before its first and after its last step as well.
      evaluation: settings of the evaluations, JSON values, by which a resuming run is compared if
        a decision waits for one of their numbers.
      early_stopping: condition for ending a stage before its last step, or None for never.
      log: destinations and frequency of logging.
      checkpoint: schedule of saves, and number of checkpoints to keep.
      watchdog: limits on the duration of an activity.
      identity: name -> JSON value, settings that must be the same when the run is resumed, e.g.
        the model's and the data's (stages, seed and early stopping are compared in any case).
    """

    seed: int
    validate_every: int
    early_stopping: EarlyStoppingConfig | None
    log: LogConfig
    checkpoint: CheckpointConfig
    watchdog: WatchdogConfig
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluate_every: int = 0
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Refuses values out of range, and decisions by numbers that are never computed."""
        check_field(self, "seed", 0 <= self.seed < 2**32, "an integer from 0 to 2**32 - 1")
        must_be = "a number of steps, or 0 for no validation"
        check_field(self, "validate_every", self.validate_every >= 0, must_be)
        must_be = "a number of steps, or 0 for no evaluation"
        check_field(self, "evaluate_every", self.evaluate_every >= 0, must_be)
        stopping, best = self.early_stopping, self.checkpoint.best_metric
        if stopping is not None and not self.every[interval_of(stopping.metric)]:
            kind = {VALIDATE: "validations", EVALUATE: "evaluations"}[interval_of(stopping.metric)]
            raise ConfigError(
                f"Early stopping needs the results of {kind}, and the value 0 turns them off.",
                "Set it to a number of steps, or early_stopping to None.",
                where=interval_of(stopping.metric),
            )
        if best is not None and interval_of(best) == EVALUATE and not self.evaluate_every:
            raise ConfigError(
                f"The best checkpoint is chosen by {best!r}, a number of evaluations, and the "
                "value 0 turns them off.",
                "Set it to a number of steps, or checkpoint.best_metric to another number.",
                where="evaluate_every",
            )

    @property
    def every(self) -> Mapping[str, int]:
        """Returns the steps between validations and between evaluations, by their settings."""
        return {VALIDATE: self.validate_every, EVALUATE: self.evaluate_every}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The model after some step, for an evaluation; valid only until the evaluation returns.

    Attributes:
      step: number of steps done.
      stage: name of the stage that the last step belonged to.
      model: structure that the arrays belong to.
      params: path -> parameter.
      rest: path -> other state of the model.
    """

    step: int
    stage: str
    model: ModelDefinition
    params: Mapping[str, jax.Array]
    rest: Mapping[str, jax.Array]

    def module(self) -> nnx.Module:
        """Returns the model with these arrays."""
        return self.model.merge(self.params, self.rest)


Evaluate = Callable[[Snapshot], Mapping[str, float]]
"""Function from the model after a step to name -> number; all processes call it at that step."""
