"""Compares trained runs: means over seeds, and differences by seed and by patient."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special  # scipy.stats imports for longer than jax and flax together

from prior_jax.evaluate import bootstrap
from prior_jax.evaluate.bootstrap import Interval

Verdict = Literal["higher", "leans higher", "not told apart", "leans lower", "lower"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of two means over the same seeds.

    Attributes:
      seeds: mean of the differences by seed, with its t interval.
      p: two-sided p of the paired t test; NaN with fewer than two seeds.
      patients: mean of the same differences, with its percentile interval over resampled patients;
        None where the two were not measured on the same records.
    """

    seeds: Interval
    p: float
    patients: Interval | None


def mean_over_seeds(values: Sequence[float], *, confidence: float) -> Interval:
    """Computes the mean with its t interval.

    Args:
      values: one finite value per seed.
      confidence: coverage of the interval, 0 to 1 exclusive.

    Returns:
      The mean; NaN without a value. The ends of the interval are NaN with fewer than two values,
      since the spread over seeds is then unknown.

    Source: Student, Biometrika 6 (1908) 1: mean +- t(n - 1) * s / sqrt(n).
    """
    sample = np.asarray(values, np.float64)
    count = len(sample)
    mean = float(sample.mean()) if count else math.nan
    if count < 2:
        return Interval(value=mean, low=math.nan, high=math.nan)
    reach = float(special.stdtrit(count - 1, (1 + confidence) / 2))
    reach *= float(sample.std(ddof=1)) / math.sqrt(count)
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def paired_p(differences: Sequence[float]) -> float:
    """Computes the two-sided p of the paired t test that the mean difference is 0.

    Args:
      differences: one finite difference per seed.

    Returns:
      The p value: NaN with fewer than two differences; 1 if all are 0, and 0 if all are the same
      other number.
    """
    sample = np.asarray(differences, np.float64)
    if len(sample) < 2:
        return math.nan
    spread = float(sample.std(ddof=1)) / math.sqrt(len(sample))
    if spread == 0:
        return float(sample[0] == 0)
    return float(2 * special.stdtr(len(sample) - 1, -abs(sample.mean()) / spread))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusts p values for multiple comparisons by Holm's step-down method.

    Args:
      ps: p values of a family of tests; NaN do not count as tests.

    Returns:
      Adjusted values in the same order, at most 1; NaN stay NaN.

    Source: Holm, Scand. J. Statist. 6 (1979) 65.
    """
    tests = [index for index, p in enumerate(ps) if not math.isnan(p)]
    adjusted, greatest = [math.nan] * len(ps), 0.0
    for rank, index in enumerate(sorted(tests, key=lambda index: ps[index])):
        greatest = max(greatest, min(1.0, (len(tests) - rank) * ps[index]))
        adjusted[index] = greatest
    return adjusted


def difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    our_draws: Sequence[np.ndarray] | None,
    their_draws: Sequence[np.ndarray] | None,
    confidence: float,
) -> Difference:
    """Compares two sequences of values, paired by seed.

    Args:
      ours: one finite value per seed.
      theirs: values of the same seeds, in the same order.
      our_draws: bootstrap draws of each seed, float64[R], made from the same patients and
        resampling seed as `their_draws`; None without draws.
      their_draws: bootstrap draws of each seed, as `our_draws`.
      confidence: coverage of both intervals.

    Returns:
      The difference `ours` - `theirs`. The interval over patients keeps the seeds fixed, and the
      interval over seeds keeps the patients fixed.

    Raises:
      ValueError: if the numbers of seeds or draws differ.
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"there are {len(ours)} and {len(theirs)} seeds, but both need the same seeds"
        )
    steps = [a - b for a, b in zip(ours, theirs, strict=True)]
    patients = None
    if our_draws and their_draws:
        mean = np.mean(np.subtract(our_draws, their_draws), axis=0)
        patients = bootstrap.from_draws(float(np.mean(steps)), mean, confidence=confidence)
    return Difference(
        seeds=mean_over_seeds(steps, confidence=confidence), p=paired_p(steps), patients=patients
    )


def verdict(found: Difference, *, adjusted_p: float, confidence: float) -> Verdict:
    """Summarises a difference in one word.

    Args:
      found: difference to summarise.
      adjusted_p: p value of the difference, adjusted for the number of comparisons.
      confidence: confidence level, 1 - the level of the tests.

    Returns:
      "higher" or "lower" if both the seeds (adjusted p below 1 - confidence) and the patients
      (interval without 0) show it; "leans" if one of the two does and the other does not disagree;
      "not told apart" if neither does, or if the patients' interval lies on the other side of 0
      than the difference.
    """
    sign = math.copysign(1.0, found.seeds.value)
    by_seeds = adjusted_p < 1 - confidence  # False for NaN
    ends = () if found.patients is None else (found.patients.low, found.patients.high)
    by_patients = bool(ends) and min(sign * end for end in ends) > 0
    contradicted = bool(ends) and max(sign * end for end in ends) < 0
    if contradicted or not (by_seeds or by_patients):
        return "not told apart"
    if by_seeds and by_patients:
        return "higher" if sign > 0 else "lower"
    return "leans higher" if sign > 0 else "leans lower"
