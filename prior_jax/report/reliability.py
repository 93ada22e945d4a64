"""Converts the reliability curves of a results file to charts and tables of numbers."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax import near_names
from prior_jax.report import charts

Bin = Mapping[str, Any]
HEADINGS = ("Predicted", "Mean predicted", "Observed", "Interval", "Records")
"""Headings of the numbers of a curve."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveSheet:
    """One reliability curve.

    Attributes:
      chart: chart of the curve; its title is the class.
      note: calibration error with its interval, and the number of records.
      rows: numbers of each bin, as text, in the order of `HEADINGS`.
    """

    chart: charts.Chart
    note: str
    rows: Sequence[tuple[str, ...]]


def curves_of(content: Mapping[str, Any]) -> list[CurveSheet]:
    """Draws the curve of each class of a results file, behind that of all classes together.

    Args:
      content: content of the file, from `evaluate.results.read_results`.

    Returns:
      The curves; none for a task without probabilities. A single class has no curve of all.
    """
    settings, metrics = content["settings"], content["metrics"]
    names = {near_names.slug(name): name for name in settings.get("classes", ())}
    by_class: Mapping[str, Sequence[Bin]] = settings.get("reliability", {})
    sheets = [
        _sheet(names.get(slug, slug), bins, metrics.get(f"calibration_error_{slug}"))
        for slug, bins in by_class.items()
        if bins
    ]
    pooled = settings.get("pooled_reliability", ())
    if pooled and len(sheets) > 1:
        sheets.insert(0, _sheet("All classes together", pooled, None))
    return sheets


def pooled_of(content: Mapping[str, Any], *, title: str) -> CurveSheet | None:
    """Draws one curve of a results file: that of all classes together.

    Args:
      content: content of the file.
      title: heading of the chart.

    Returns:
      The curve; None for a task without probabilities.
    """
    pooled = content["settings"].get("pooled_reliability", ())
    return _sheet(title, pooled, None) if pooled else None


def _sheet(title: str, bins: Sequence[Bin], error: Mapping[str, Any] | None) -> CurveSheet:
    points = charts.ReliabilityPoints(
        edges=np.array([(one["low"], one["high"]) for one in bins], np.float64),
        predicted=_column(bins, "confidence"),
        observed=_column(bins, "frequency"),
        low=_column(bins, "frequency_low"),
        high=_column(bins, "frequency_high"),
        records=_column(bins, "records"),
    )
    total = int(points.records.sum())
    distance = np.abs(points.predicted - points.observed)
    value = float((points.records * distance).sum() / total)
    interval = ""
    if error is not None and error.get("low") is not None:
        interval = f" [{error['low']:.3f}, {error['high']:.3f}]"
    note = f"calibration error {value:.3f}{interval}, {total:,} answers"
    return CurveSheet(
        chart=charts.reliability_chart(title, points, alt=_alt(title, points, note)),
        note=note,
        rows=[_row(one) for one in bins],
    )


def _column(bins: Sequence[Bin], name: str) -> np.ndarray:
    """Returns a number of each bin; files of older versions have no intervals."""
    return np.array([math.nan if one.get(name) is None else one[name] for one in bins], np.float64)


def _alt(title: str, points: charts.ReliabilityPoints, note: str) -> str:
    """Describes a curve: the error, the fullest bin, and the bin farthest from the diagonal."""
    full = int(points.records.argmax())
    far = int(np.abs(points.predicted - points.observed).argmax())
    return (
        f"Reliability of {title}: {note}. Most answers, {points.records[full]:,.0f}, have a mean "
        f"probability of {points.predicted[full]:.2f}, and {points.observed[full]:.2f} of them are "
        f"positive. Farthest from the diagonal: probability {points.predicted[far]:.2f}, observed "
        f"{points.observed[far]:.2f}, {points.records[far]:,.0f} answers."
    )


def _row(one: Bin) -> tuple[str, ...]:
    low, high = one.get("frequency_low"), one.get("frequency_high")
    return (
        f"{one['low']:.2f} to {one['high']:.2f}",
        f"{one['confidence']:.3f}",
        f"{one['frequency']:.3f}",
        "–" if low is None or high is None else f"[{low:.3f}, {high:.3f}]",
        f"{one['records']:,}",
    )
