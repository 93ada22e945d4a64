"""Percentile bootstrap intervals that resample patients, not images."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from prior_jax.errors import ConfigError

# Bounds the temporary arrays: resamples computed together.
_CHUNK = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """How the intervals are made.

    Attributes:
      resamples: how many; 1000 gives the 2.5th percentile from 25 draws.
      confidence: share that the interval should cover, 0 to 1 exclusive; 0.95.
      seed: of the resampling.
    """

    resamples: int
    confidence: float
    seed: int

    def __post_init__(self):
        """Refuses values that make no interval."""
        if self.resamples < 1:
            raise ConfigError(
                "task.bootstrap.resamples", received=self.resamples, accepted="an integer >= 1"
            )
        if not 0.0 < self.confidence < 1.0:
            raise ConfigError(
                "task.bootstrap.confidence",
                received=self.confidence,
                accepted="a number between 0 and 1, both excluded",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric with its interval.

    Attributes:
      value: on the records as they are; NaN where the metric does not exist.
      low: lower end of the interval; NaN where no resample has the metric.
      high: upper end.
      draws: float64[resamples], the metric of each resample, NaN where it does not exist; None
        where they were not kept. Those of two models on the same records and seed are paired.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, float | None]:
        """Returns `{"value", "low", "high"}`, NaN as None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {
            name: None if math.isnan(number) else float(number) for name, number in numbers.items()
        }


def resample_weights(groups: np.ndarray, *, config: BootstrapConfig) -> np.ndarray:
    """How often each record occurs in each resample.

    Whole groups are drawn with replacement, as many as there are: two images of one patient
    are not two independent observations.

    Args:
      groups: int[N] or str[N], the patient (or record) each row belongs to.
      config: resamples and seed.

    Returns:
      float32[resamples, N], counts. The same groups and seed give the same counts.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.zeros((config.resamples, len(names)), np.float32)
    random = np.random.default_rng(config.seed)
    for row in counts:
        drawn = random.integers(len(names), size=len(names)) if len(names) else []
        np.add.at(row, drawn, np.float32(1))
    return counts[:, member.reshape(-1)]


def intervals(
    statistics: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    *,
    groups: np.ndarray,
    config: BootstrapConfig,
) -> dict[str, Interval]:
    """Metrics on the records as they are, each with its percentile bootstrap interval.

    A resample in which a metric does not exist (its class drew no positive) is left out of
    that metric's percentiles.

    Args:
      statistics: float[R, N] weights -> {name: float[R]}, the same names at each call.
      groups: int[N] or str[N], what is resampled: the patient of each record.
      config: how.

    Returns:
      {name: Interval}, in the order of `statistics`.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
    """
    weights = resample_weights(groups, config=config)
    plain = statistics(np.ones((1, weights.shape[1]), np.float32))
    parts = [
        statistics(weights[start : start + _CHUNK]) for start in range(0, len(weights), _CHUNK)
    ]
    found = {}
    for name, value in plain.items():
        draws = np.concatenate([part[name] for part in parts]).astype(np.float64)
        found[name] = from_draws(float(value[0]), draws, confidence=config.confidence)
    return found


def from_draws(value: float, draws: np.ndarray, *, confidence: float) -> Interval:
    """The percentile interval of a metric's resamples.

    Args:
      value: on the records as they are.
      draws: float64[resamples]; NaN are left out of the percentiles.
      confidence: share that the interval should cover, 0 to 1 exclusive.
    """
    edge = 50.0 * (1.0 - confidence)
    defined = draws[~np.isnan(draws)]
    low, high = np.percentile(defined, [edge, 100.0 - edge]) if defined.size else (np.nan, np.nan)
    return Interval(value=value, low=float(low), high=float(high), draws=draws)
