"""Decisions that follow from validations: a lower learning rate, and the early end of a stage.

Both wait for a metric to improve. Their state is a few numbers on the host, which every checkpoint
holds: a resumed run continues to wait as if it had never stopped.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from prior_jax.errors import ConfigError, check_choice, check_field, check_least
from prior_jax.train.stages import PlateauConfig, Stage
from prior_jax.train.watched import computed

MODES = ("min", "max")
# torch's `eps`: the learning rate is not reduced if the reduction is at most this.
_LEAST_CHANGE = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """Condition for ending a stage before its last step; the section `config.early_stopping`.

    The stage ends, not the run: the next stage, if there is one, starts at its scheduled step, so
    that its rates, batches and noise do not depend on when the previous stage ended. The steps in
    between are skipped.

    Attributes:
      metric: name of the watched number in the results of validations, or of evaluations if it
        begins with "evaluate_".
      patience: number of validations (or evaluations) in a row without improvement that end the
        stage; the count starts anew in each stage. GLoRIA has 10 (release,
        configs/chexpert_pretrain_config.yaml).
      mode: "min" if lower values are better, else "max".
      min_delta: margin: a value improves the best only if it is better by more than this; GLoRIA
        has 0.
    """

    metric: str
    patience: int
    mode: str
    min_delta: float

    def __post_init__(self):
        """Refuses values with which every stage would end at once, or no stage could end early."""
        check_least(self, patience=1)
        check_choice(self, "mode", MODES)
        holds = 0 <= self.min_delta < math.inf
        check_field(self, "min_delta", holds, "a finite number, 0 or above")

    def improves(self, value: float, best: float) -> bool:
        """Returns whether `value` is better than `best` by more than the margin."""
        gain = best - value if self.mode == "min" else value - best
        return gain > self.min_delta


@dataclasses.dataclass(frozen=True)
class Wait:
    """Number of validations since a metric last improved.

    Attributes:
      best: best value of the metric so far, or None before the first finite value.
      bad: number of validations since then.
    """

    best: float | None = None
    bad: int = 0

    def after(self, value: float, *, improves: Callable[[float, float], bool]) -> "Wait":
        """Returns the wait after one more validation; only finite values can improve the metric."""
        better = math.isfinite(value) and (self.best is None or improves(value, self.best))
        return Wait(value, 0) if better else Wait(self.best, self.bad + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """State of the current stage that its validations have changed.

    Attributes:
      factor: factor on the stage's learning rate, 1 until a plateau lowers it.
      plateau: wait of `PlateauConfig`.
      stopping: wait of `EarlyStoppingConfig`.
      ended: whether the stage has been ended early.
      validations: number of validations of the stage; of evaluations where the plateau's metric is
        one of theirs.
    """

    factor: float = 1.0
    plateau: Wait = Wait()
    stopping: Wait = Wait()
    ended: bool = False
    validations: int = 0

    def after(
        self,
        evaluation: Mapping[str, float],
        *,
        stage: Stage,
        stopping: EarlyStoppingConfig | None,
    ) -> "Patience":
        """Returns the state after one more validation or evaluation, or both.

        A wait for a number of the kind that was not computed at this step stays as it is.

        Args:
          evaluation: name -> number.
          stage: the current stage.
          stopping: early stopping of the run, or None to train every stage to its end.

        Returns:
          The new state.

        Raises:
          ConfigError: if the evaluation lacks a metric that is waited for.
        """
        new, watched = self, stage.watched
        if computed(evaluation, "" if watched is None else watched.metric):
            new = dataclasses.replace(self, validations=self.validations + 1)
        counted = new.validations > self.validations
        if watched is not None and counted and new.validations % watched.every == 0:
            field = f"config.stages.{stage.name}.plateau.metric"
            value = metric_of(evaluation, watched.metric, field=field)
            new = new._plateaued(watched, value=value, peak=stage.learning_rate)
        if stopping is not None and computed(evaluation, stopping.metric):
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
        """Returns plain values, for the checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Patience":
        """Returns the state from the values that `as_json` returned."""
        waits = {name: Wait(**values[name]) for name in ("plateau", "stopping")}
        counted = values.get("validations", 0)  # absent in checkpoints of earlier versions
        return cls(factor=values["factor"], ended=values["ended"], validations=counted, **waits)


def metric_of(evaluation: Mapping[str, float], name: str, *, field: str) -> float:
    """Returns one of an evaluation's numbers.

    Args:
      evaluation: name -> number.
      name: name of the requested number.
      field: dotted name of the setting that requests it, for the error.

    Returns:
      The number.

    Raises:
      ConfigError: if there is no number of this name, listing the existing names.
    """
    if name not in evaluation:
        raise ConfigError(
            f"The evaluation returns no number called {name!r}.",
            f"Choose one of {sorted(evaluation)}.",
            where=field,
        )
    return evaluation[name]
