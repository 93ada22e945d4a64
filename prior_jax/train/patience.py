"""What validations decide: a lower learning rate, and the early end of a stage.

Both wait for a metric to improve. What they have seen is a few numbers on the host, which every
checkpoint holds: a resumed run waits on as if it had never stopped.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from prior_jax.errors import ConfigError
from prior_jax.train.stages import PlateauConfig, Stage

MODES = ("min", "max")
# torch's `eps`: a reduction of the learning rate by no more than this is not made.
_LEAST_CHANGE = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """When a stage ends before its steps are done; the section `config.early_stopping`.

    The stage ends, not the run: the next one, if there is any, starts at the step that it would
    have started at, so that its rates, batches and noise do not depend on when the one before
    ended. The steps between are not done.

    Attributes:
      metric: name of a value that validation gives.
      patience: that many validations in a row without improvement end the stage; each stage
        starts to count anew. GLoRIA has 10 (release, configs/chexpert_pretrain_config.yaml).
      mode: "min" if lower values are better, else "max".
      min_delta: a value improves the best if it is better by more than this; GLoRIA has 0.
    """

    metric: str
    patience: int
    mode: str
    min_delta: float

    def __post_init__(self):
        """Refuses values that would end every stage at once, or none."""
        bounds = {
            "patience": (self.patience >= 1, "at least 1"),
            "mode": (self.mode in MODES, f"one of {MODES}"),
            "min_delta": (0 <= self.min_delta < math.inf, "a number >= 0"),
        }
        for name, (holds, accepted) in bounds.items():
            if not holds:
                raise ConfigError(
                    f"config.early_stopping.{name}",
                    received=getattr(self, name),
                    accepted=accepted,
                )

    def improves(self, value: float, best: float) -> bool:
        """Whether `value` is better than `best` by enough."""
        gain = best - value if self.mode == "min" else value - best
        return gain > self.min_delta


@dataclasses.dataclass(frozen=True)
class Wait:
    """How long a metric has not improved.

    Attributes:
      best: its best value so far, or None before the first that is finite.
      bad: validations since.
    """

    best: float | None = None
    bad: int = 0

    def after(self, value: float, *, improves: Callable[[float, float], bool]) -> "Wait":
        """The wait after one more validation; what is not finite never improves."""
        better = math.isfinite(value) and (self.best is None or improves(value, self.best))
        return Wait(value, 0) if better else Wait(self.best, self.bad + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """What the validations of the current stage have led to.

    Attributes:
      factor: of the stage's learning rate, 1 until a plateau lowers it.
      plateau: the wait of `PlateauConfig`.
      stopping: the wait of `EarlyStoppingConfig`.
      ended: whether the stage has been ended early.
    """

    factor: float = 1.0
    plateau: Wait = Wait()
    stopping: Wait = Wait()
    ended: bool = False

    def after(
        self,
        evaluation: Mapping[str, float],
        *,
        stage: Stage,
        stopping: EarlyStoppingConfig | None,
    ) -> "Patience":
        """What one more validation leads to.

        Args:
          evaluation: name -> number.
          stage: the current one.
          stopping: the run's, or None to train every stage to its end.

        Returns:
          The new state.

        Raises:
          ConfigError: if the evaluation lacks a metric that is waited for.
        """
        new = self
        if stage.watched is not None:
            field = f"config.stages.{stage.name}.plateau.metric"
            value = metric_of(evaluation, stage.watched.metric, field=field)
            new = new._plateaued(stage.watched, value=value, peak=stage.learning_rate)
        if stopping is not None:
            value = metric_of(evaluation, stopping.metric, field="config.early_stopping.metric")
            wait = self.stopping.after(value, improves=stopping.improves)
            new = dataclasses.replace(new, stopping=wait, ended=wait.bad >= stopping.patience)
        return new

    def _plateaued(self, config: PlateauConfig, *, value: float, peak: float) -> "Patience":
        wait, factor = self.plateau.after(value, improves=config.improves), self.factor
        if wait.bad > config.patience:
            wait = dataclasses.replace(wait, bad=0)
            lower = max(factor * config.factor, config.min_learning_rate / peak)
            if (factor - lower) * peak > _LEAST_CHANGE:
                factor = lower
        return dataclasses.replace(self, factor=factor, plateau=wait)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Patience":
        """The state that `as_json` gave."""
        waits = {name: Wait(**values[name]) for name in ("plateau", "stopping")}
        return cls(factor=values["factor"], ended=values["ended"], **waits)


def metric_of(evaluation: Mapping[str, float], name: str, *, field: str) -> float:
    """One of an evaluation's numbers.

    Args:
      evaluation: name -> number.
      name: the one that a setting asks for.
      field: dotted name of the setting, for the error.

    Returns:
      The number.

    Raises:
      ConfigError: if there is none of this name, listing those there are.
    """
    if name not in evaluation:
        raise ConfigError(
            field, received=name, accepted=f"one of the evaluation's {sorted(evaluation)}"
        )
    return evaluation[name]
