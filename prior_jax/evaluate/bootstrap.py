"""Percentile bootstrap intervals that resample patients, not images."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from prior_jax.errors import check_field, check_least

# Number of resamples computed together, which bounds the temporary arrays.
_CHUNK = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """Settings of the bootstrap intervals.

    Attributes:
      resamples: number of resamples; 1000 gives the 2.5th percentile from 25 draws.
      confidence: coverage of the interval, 0 to 1 exclusive; 0.95.
      seed: seed of the resampling, >= 0.
    """

    resamples: int
    confidence: float
    seed: int

    def __post_init__(self):
        """Refuses values that define no interval."""
        check_least(self, resamples=1, seed=0)
        check_field(self, "confidence", 0.0 < self.confidence < 1.0, "above 0 and below 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric with its bootstrap interval.

    Attributes:
      value: metric on the original records; NaN where the metric is undefined.
      low: lower end of the interval; NaN where the metric is undefined on every resample, or all
        records that it counts are of one group.
      high: upper end of the interval; NaN as for `low`.
      draws: metric of each resample, float64[resamples], NaN where it is undefined; None where the
        draws were not kept. The draws of two models on the same records and seed are paired.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, float | None]:
        """Returns `{"value", "low", "high"}`, with NaN as None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {
            name: None if math.isnan(number) else float(number) for name, number in numbers.items()
        }


def resample_weights(groups: np.ndarray, *, config: BootstrapConfig) -> np.ndarray:
    """Counts how often each record occurs in each resample.

    Whole groups are drawn with replacement, as many as there are: two images of one patient are not
    two independent observations.

    Args:
      groups: group of each row, int[N] or str[N]: its patient (or record).
      config: bootstrap settings with the number of resamples and the seed.

    Returns:
      Counts, float32[resamples, N]. The same groups and seed give the same counts.
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
    """Computes metrics on the original records, each with its percentile bootstrap interval.

    A resample in which a metric is undefined (no positive of its class was drawn) is left out of
    that metric's percentiles. One group alone gives no interval: every resample would be the same,
    and an interval without width would look certain. The same holds for a metric that is defined
    exactly where one group was drawn, and then always the same, as the recall of a class that one
    patient has. A metric that is the same on all resamples keeps its interval.

    Args:
      statistics: function that computes the metrics: float[R, N] weights -> {name: float[R]}, with
        the same names at each call.
      groups: group of each record that is resampled as a whole, int[N] or str[N]: its patient.
      config: bootstrap settings.

    Returns:
      Intervals by metric name, {name: Interval}, in the order of `statistics`.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
    """
    weights = resample_weights(groups, config=config)
    alone = len(np.unique(np.asarray(groups))) == 1
    plain = statistics(np.ones((1, weights.shape[1]), np.float32))
    parts = [
        statistics(weights[start : start + _CHUNK]) for start in range(0, len(weights), _CHUNK)
    ]
    found = {}
    for name, value in plain.items():
        draws = np.concatenate([part[name] for part in parts]).astype(np.float64)
        if alone or _depends_on_one_group(draws, weights):
            draws = np.full_like(draws, np.nan)
        found[name] = from_draws(float(value[0]), draws, confidence=config.confidence)
    return found


def _depends_on_one_group(draws: np.ndarray, weights: np.ndarray) -> bool:
    """Returns whether one group alone decides if a draw has a value, and all values are the same.

    Args:
      draws: metric of each resample, float64[R], NaN where it is undefined.
      weights: number of times that each record occurs in each resample, float[R, N].
    """
    defined = ~np.isnan(draws)
    if defined.all() or not defined.any() or not np.allclose(draws[defined], draws[defined][0]):
        return False
    return bool(((weights > 0) == defined[:, None]).all(axis=0).any())


def from_draws(value: float, draws: np.ndarray, *, confidence: float) -> Interval:
    """Computes the percentile interval of a metric from its resamples.

    Args:
      value: metric on the original records.
      draws: metric of each resample, float64[resamples]; NaN are left out of the percentiles.
      confidence: coverage of the interval, 0 to 1 exclusive.
    """
    edge = 50.0 * (1.0 - confidence)
    defined = draws[~np.isnan(draws)]
    low, high = np.percentile(defined, [edge, 100.0 - edge]) if defined.size else (np.nan, np.nan)
    return Interval(value=value, low=float(low), high=float(high), draws=draws)
