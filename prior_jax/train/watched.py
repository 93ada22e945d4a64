"""Numbers that a run's decisions wait for, and at which steps they are computed.

A validation computes the loss terms, every `config.validate_every` steps; an evaluation measures
zero-shot classification, retrieval and nearest neighbours, every `config.evaluate_every` steps. The
names of the latter's numbers begin with `EVALUATED`, so that a name tells when its number is there.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prior_jax.errors import ConfigError

EVALUATED = "evaluate_"
VALIDATE, EVALUATE = "validate_every", "evaluate_every"
_WORDS = {VALIDATE: ("validated", "validations"), EVALUATE: ("evaluated", "evaluations")}


def interval_of(metric: str) -> str:
    """Returns the setting that says how often a number is computed, `VALIDATE` or `EVALUATE`."""
    return EVALUATE if metric.startswith(EVALUATED) else VALIDATE


def computed(found: Mapping[str, float], metric: str) -> bool:
    """Returns whether the numbers of a step are of the kind, validation or evaluation, of one."""
    return interval_of(metric) in {interval_of(name) for name in found}


def waits(stages: Sequence[Any], stopping: Any) -> dict[str, str]:
    """Returns the metric of each setting that a stage's rate or end waits for.

    Args:
      stages: stages of the run.
      stopping: early stopping, or None.
    """
    found = {
        f"config.stages.{stage.name}.plateau.metric": stage.watched.metric
        for stage in stages
        if stage.watched is not None
    }
    if stopping is not None:
        found["config.early_stopping.metric"] = stopping.metric
    return found


def check_computed(waited: Mapping[str, str], *, every: Mapping[str, int]) -> None:
    """Refuses to wait for a number that is never computed.

    Args:
      waited: setting -> metric, from `waits`.
      every: steps between validations and between evaluations, by setting; 0 for never.

    Raises:
      ConfigError: naming the interval, and what waits for it.
    """
    for setting, steps in every.items():
        fields = [f.removesuffix(".metric") for f, m in waited.items() if interval_of(m) == setting]
        if fields and not steps:
            done, numbers = _WORDS[setting]
            raise ConfigError(
                f"The value is {steps} and the model is never {done}, but {' and '.join(fields)} "
                f"need the numbers of {numbers}.",
                f"Set --config.{setting} to a number of steps, or remove what needs {numbers}.",
                where=f"config.{setting}",
            )


def check_names(asked: Mapping[str, str], *, known: Mapping[str, Collection[str]]) -> None:
    """Refuses a name of a number that no validation and no evaluation of the run computes.

    Args:
      asked: setting -> name of the number that it asks for.
      known: names of the numbers of validations and of evaluations, by setting of their interval.

    Raises:
      ConfigError: naming the setting, and the names that there are.
    """
    for field, metric in asked.items():
        names = known[interval_of(metric)]
        if metric not in names:
            _, numbers = _WORDS[interval_of(metric)]
            raise ConfigError(
                f"The {numbers} of this run do not all return a number called {metric!r}.",
                f"Choose one of {', '.join(sorted(name for n in known.values() for name in n))}.",
                where=field,
            )
