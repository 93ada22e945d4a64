"""Metrics over repetitions: seeds of a training, or draws of a test set."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prior_jax.evaluate import bootstrap, compare, region_columns
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.classification_rows import answer_rows

LEAST_SEEDS = 3
"""Least number of seeds with an interval: Student's t with one degree of freedom, 12.7 at 95 %,
makes the interval of two seeds wider than the range of most metrics."""

_UNIT = (
    *("auroc", "average_precision", "accuracy", "balanced_accuracy", "f1", "precision", "recall"),
    *("calibration_error", "brier", "hit_at", "miou"),
    *("pointing", "random", "middle", "lung_centre"),
    *region_columns.BOUNDED,
)
_SIGNED = ("kappa", "gain")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedInterval:
    """A metric over repetitions.

    Attributes:
      mean: mean; NaN without a value.
      sd: sample standard deviation, with n - 1; NaN with fewer than two values.
      low: lower end of the t interval of the mean, cut at the metric's range; NaN with fewer than
        `LEAST_SEEDS` values.
      high: upper end of that interval, likewise.
      count: number of values; repetitions in which the metric is undefined are left out.
    """

    mean: float
    sd: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, float | int | None]:
        """Returns the fields, with NaN as None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in dataclasses.asdict(self).items()
        }


def range_of(metric: str) -> tuple[float, float]:
    """Returns the least and the greatest value that a metric can have.

    Args:
      metric: name of the metric, such as "macro_auroc" or "f1_edema".

    Returns:
      The ends; infinite for a metric that is not known here, whose interval is not cut.
    """
    if metric == "brier":  # of exclusive classes, the sum over the classes
        return 0.0, 2.0
    base = metric.removeprefix("macro_")
    for names, least in ((_SIGNED, -1.0), (_UNIT, 0.0)):
        if any(base == name or base.startswith(f"{name}_") for name in names):
            return least, 1.0
    return -math.inf, math.inf


def _cut(found: Interval, metric: str) -> Interval:
    """Cuts an interval at the range of its metric, outside of which no truth can be.

    The share of intervals that hold the truth stays the same, as the metric's truth is in the
    range; only what is impossible is removed.

    Source: Newcombe, Statistics in Medicine 17 (1998) 857: intervals of a proportion that
    overshoot 0 or 1 are truncated there.
    """
    least, most = range_of(metric)
    return Interval(
        value=found.value,
        low=max(found.low, least) if not math.isnan(found.low) else math.nan,
        high=min(found.high, most) if not math.isnan(found.high) else math.nan,
    )


def _too_few(mean: float) -> Interval:
    return Interval(value=mean, low=math.nan, high=math.nan)


def mean_over_seeds(values: Sequence[float], *, metric: str, confidence: float) -> Interval:
    """Computes the mean of a metric over seeds with its t interval, on the same test records.

    Args:
      values: value of each seed, in the metric's units.
      metric: name of the metric, at whose range the interval is cut (`range_of`).
      confidence: coverage of the interval, 0 to 1 exclusive.

    Returns:
      The mean, NaN without a value, and its interval, whose ends are NaN with fewer than
      `LEAST_SEEDS` values.

    Source: `compare.mean_over_seeds`.
    """
    mean = compare.mean_over_seeds(values, confidence=confidence)
    return _too_few(mean.value) if len(values) < LEAST_SEEDS else _cut(mean, metric)


def seed_intervals(
    runs: Sequence[Mapping[str, float]], *, confidence: float
) -> dict[str, SeedInterval]:
    """Computes mean, standard deviation and t interval of each metric over seeds.

    The interval is that of the mean over seeds on the same test records. That of another test set
    is `bootstrap.intervals`'; the two are not added.

    Args:
      runs: metrics of each seed by name; a metric that is NaN or absent in a seed is left out of
        that seed.
      confidence: coverage of the interval, 0 to 1 exclusive.

    Returns:
      Intervals of `mean_over_seeds` by metric name, in the order in which the names first occur.
    """
    found = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        given = [float(run.get(name, math.nan)) for run in runs]
        values = [value for value in given if not math.isnan(value)]
        mean = mean_over_seeds(values, metric=name, confidence=confidence)
        found[name] = SeedInterval(
            mean=mean.value,
            sd=float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
            low=mean.low,
            high=mean.high,
            count=len(values),
        )
    return found


def over_patients_and_seeds(
    values: Sequence[float], draws: Sequence[np.ndarray], *, metric: str, confidence: float
) -> Interval:
    """Computes the mean over seeds with its interval over other patients and other seeds.

    The seeds are measured on the same test records, so that the t interval over seeds leaves out
    what another draw of patients would change, and the bootstrap of one seed leaves out what
    another seed would change. At each end the distances of both intervals from the mean are added
    as squares: of the t interval over seeds, and of the percentile interval of the bootstrap draws
    of the mean over seeds. Without a spread over seeds, or over patients, the other interval is
    left as it is. What patients and seeds do together is in both, so that the interval errs on the
    wide side. Resampling seeds like patients would be too narrow: of n = 3 seeds it finds two
    thirds of the variance, and takes a normal quantile for Student's.

    Args:
      values: value of the metric of each seed; NaN where it is undefined, which leaves that seed
        out.
      draws: bootstrap draws of each seed, float64[R], made from the same patients and resampling
        seed; NaN where the metric is undefined, which leaves that resample out.
      metric: name of the metric, at whose range the interval is cut (`range_of`).
      confidence: coverage of the interval, 0 to 1 exclusive.

    Returns:
      The mean with its interval, whose ends are NaN with fewer than `LEAST_SEEDS` values, or
      without a resample in which the metric is defined for all of them.

    Raises:
      ValueError: if the numbers of values and draws differ.

    Source: Zou and Donner, Statistics in Medicine 27 (2008) 1693: limits of a sum by recovering
    the variances from the limits of its parts.
    """
    kept = [(v, d) for v, d in zip(values, draws, strict=True) if not math.isnan(v)]
    seeds = compare.mean_over_seeds([value for value, _ in kept], confidence=confidence)
    if len(kept) < LEAST_SEEDS:
        return _too_few(seeds.value)
    means = np.mean([one for _, one in kept], axis=0)
    patients = bootstrap.from_draws(seeds.value, means, confidence=confidence)
    below, above = (
        math.hypot(end - seeds.value, other - seeds.value)
        for end, other in ((seeds.low, patients.low), (seeds.high, patients.high))
    )
    whole = Interval(value=seeds.value, low=seeds.value - below, high=seeds.value + above)
    return _cut(whole, metric)


def draw_per_class(truth: np.ndarray, *, each: int, seed: int) -> np.ndarray:
    """Draws the same number of records of every class, without replacement.

    Args:
      truth: class of each record, int[N]; -1 for a record that cannot be drawn.
      each: number of records of a class.
      seed: seed of the draw.

    Returns:
      Rows, int64[C * each], ascending.

    Raises:
      ValueError: if a class has fewer records.
    """
    truth, rng = np.asarray(truth), np.random.default_rng(seed)
    drawn = []
    for name in np.unique(truth[truth >= 0]):
        rows = np.flatnonzero(truth == name)
        if len(rows) < each:
            raise ValueError(f"class {name} has {len(rows)} records: expected at least {each}")
        drawn.append(rng.choice(rows, each, replace=False))
    return np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, np.int64)


def over_draws(
    scores: np.ndarray,
    truth: np.ndarray,
    *,
    draws: Sequence[np.ndarray],
    classes: Sequence[str],
    confidence: float,
    within: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, SeedInterval]:
    """Computes the 5x200 metrics on each draw of a test set, and their spread over draws.

    PRIOR reports five draws of 200 images of each of five classes. Draws of one pool share images,
    so that their spread is below that of new test sets: quote the bootstrap's interval beside it.

    Args:
      scores: score of each record and class, float[N, C]; the highest is the answer.
      truth: class of each record, int[N]; read only at the draws' rows.
      draws: rows of each draw, from `draw_per_class` or an id list.
      classes: names of the C classes.
      confidence: coverage of the t interval.
      within: changes the scores of a draw's M records before the answers are read, float[M, C] ->
        float[M, C], such as a standardisation over records; None leaves them as they are.

    Returns:
      `accuracy`, `macro_precision`, `macro_recall`, `macro_f1`, `kappa` and the other metrics of
      `classification_rows.answer_rows`.

    Source: PRIOR, arXiv:2307.12577; QtacierP/PRIOR issue 10 for the five draws.
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    runs = []
    for rows in draws:
        drawn = scores[rows] if within is None else within(scores[rows])
        row = answer_rows(
            drawn.argmax(axis=1),
            truth[rows],
            classes=classes,
            weights=np.ones((1, len(rows))),
        )
        runs.append({name: float(value[0]) for name, value in row.items()})
    return seed_intervals(runs, confidence=confidence)
