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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a run.

    Attributes:
      seed: seed of the parameters and of every step's noise; 0 to 2**32 - 1.
      validate_every: steps between calls of the evaluation hook, or 0 for never; the last
        step of the run is evaluated as well.
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

    def __post_init__(self):
        """Refuses values out of range, and early stopping without validation."""
        check_field(self, "seed", 0 <= self.seed < 2**32, "an integer from 0 to 2**32 - 1")
        must_be = "a number of steps, or 0 for no validation"
        check_field(self, "validate_every", self.validate_every >= 0, must_be)
        if self.early_stopping is not None and not self.validate_every:
            raise ConfigError(
                "Early stopping needs the results of validations, and the value 0 turns them off.",
                "Set it to a number of steps, or early_stopping to None.",
                where="validate_every",
            )


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
