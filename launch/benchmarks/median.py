"""The median of repeated measurements, with an interval from the order of the measurements."""

import dataclasses
import statistics
from collections.abc import Sequence

from scipy import stats

COVERAGE = 0.95
"""Least probability with which an interval shall hold the true median, where samples suffice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Median:
    """A median and its interval.

    Attributes:
      value: median of the samples.
      low: lower end of the interval, one of the samples.
      high: upper end of the interval, one of the samples.
      coverage: probability with which an interval made in this way holds the true median; 0 for a
        single sample. It is below `COVERAGE` where there are fewer than six samples.
    """

    value: float
    low: float
    high: float
    coverage: float


def median_of(samples: Sequence[float]) -> Median:
    """Returns the median of independent samples and its shortest sufficient interval.

    The interval reaches from the k-th smallest to the k-th largest sample. Whatever the
    distribution, the number of samples below its median is binomial, which gives the coverage.

    Args:
      samples: one or more numbers.

    Raises:
      ValueError: if there is no sample.
    """
    ordered, count = sorted(samples), len(samples)
    if not ordered:
        raise ValueError("a median needs at least one sample")
    chosen = 1
    while chosen < (count + 1) // 2 and _coverage(chosen + 1, count) >= COVERAGE:
        chosen += 1
    return Median(
        value=statistics.median(ordered),
        low=ordered[chosen - 1],
        high=ordered[count - chosen],
        coverage=_coverage(chosen, count),
    )


def _coverage(chosen: int, count: int) -> float:
    """Returns the coverage of the interval between the k-th smallest and the k-th largest."""
    outside = 2 * float(stats.binom.cdf(chosen - 1, count, 0.5))
    return max(1.0 - outside, 0.0)
