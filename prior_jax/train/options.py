"""How a run is run, and what is hung into its loop."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.processes.watchdog import WatchdogConfig
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.metrics import LogConfig
from prior_jax.train.patience import EarlyStoppingConfig
from prior_jax.train.state import ModelDefinition


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a run is run.

    Attributes:
      seed: seed of the parameters and of every step's noise; 0 to 2**32 - 1.
      validate_every: steps between calls of the evaluation hook, or 0 for never; the last
        step of the run is evaluated as well.
      early_stopping: when a stage ends before its steps are done, or None for never.
      log: what is logged, and where.
      checkpoint: when to save and what to keep.
      watchdog: how long a stage may last.
      identity: name -> JSON value, settings that must be the same when the run is resumed
        (stages, seed and early stopping are compared in any case), e.g. the model's and the
        data's.
    """

    seed: int
    validate_every: int
    early_stopping: EarlyStoppingConfig | None
    log: LogConfig
    checkpoint: CheckpointConfig
    watchdog: WatchdogConfig
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Refuses values that no run could follow."""
        if not 0 <= self.seed < 2**32:
            raise ConfigError("config.seed", received=self.seed, accepted="0 to 2**32 - 1")
        if self.validate_every < 0:
            raise ConfigError(
                "config.validate_every",
                received=self.validate_every,
                accepted="a number of steps, or 0 for never",
            )
        if self.early_stopping is not None and not self.validate_every:
            raise ConfigError(
                "config.validate_every", received=0, accepted=">= 1 with config.early_stopping"
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
      evaluate: gives name -> number, the same in every process, which join the step's line in
        metrics.jsonl; called every `validate_every` steps and after the last.
      stage_end: called after each stage, before its checkpoint is saved: after a crash it may
        be called again for the same stage.
    """

    evaluate: Callable[[Snapshot], Mapping[str, float]] | None = None
    stage_end: Callable[[Snapshot], None] | None = None
