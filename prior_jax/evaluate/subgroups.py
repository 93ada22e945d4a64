"""A metric in each subgroup of the patients, by sex, age or view, and the gap between them.

Every subgroup is measured on the same resamples of patients, so that the gap has an interval of its
own and need not be read off two intervals.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.evaluate import bootstrap
from prior_jax.evaluate.bootstrap import BootstrapConfig, Interval

Statistics = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """The difference between the subgroups in which a metric is highest and lowest.

    Attributes:
      highest: name of the subgroup with the highest value on the original records.
      lowest: name of the subgroup with the lowest value on the original records.
      difference: value of the first minus that of the second. The two are not chosen anew on each
        resample, so that the interval can contain 0. It does not account for the choice among
        several subgroups, which favours large gaps.
    """

    highest: str
    lowest: str
    difference: Interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subgroups:
    """The rows of one attribute.

    Attributes:
      rows: metrics of each subgroup that is large enough, by its name, in alphabetical order.
      gaps: gap of each metric that is defined in two subgroups at least.
      patients: number of patients of each subgroup, those left out among them.
      records: number of records of each subgroup, those left out among them.
      left_out: names of the subgroups that have too few patients.
      unnamed: number of records without a value of the attribute, which are in no subgroup.
    """

    rows: Mapping[str, Mapping[str, Interval]]
    gaps: Mapping[str, Gap]
    patients: Mapping[str, int]
    records: Mapping[str, int]
    left_out: tuple[str, ...]
    unnamed: int

    def to_json(self) -> dict[str, Any]:
        """Returns the rows and gaps in JSON types, with NaN as None."""
        return {
            "rows": {
                name: {
                    "patients": self.patients[name],
                    "records": self.records[name],
                    "metrics": {metric: value.to_json() for metric, value in row.items()},
                }
                for name, row in self.rows.items()
            },
            "gaps": {
                metric: {
                    "highest": gap.highest,
                    "lowest": gap.lowest,
                    "difference": gap.difference.to_json(),
                }
                for metric, gap in self.gaps.items()
            },
            "left_out": {name: self.patients[name] for name in self.left_out},
            "records_without_a_value": self.unnamed,
        }


def subgroup_rows(
    statistics: Statistics,
    *,
    members: Sequence[str] | np.ndarray,
    patients: np.ndarray,
    least_patients: int,
    config: BootstrapConfig,
) -> Subgroups:
    """Measures each subgroup of one attribute on the same resamples of patients.

    Args:
      statistics: function that computes the metrics of all records: float[R, N] weights -> {name:
        float[R]}, as for `bootstrap.intervals`. A subgroup is measured by giving the other records
        no weight.
      members: subgroup of each record, str[N]; "" where it is not known.
      patients: patient of each record, int[N] or str[N].
      least_patients: number of patients below which a subgroup is left out.
      config: settings of the bootstrap.

    Returns:
      The rows.

    Raises:
      ValueError: if the numbers of members and patients differ.
    """
    members, patients = np.asarray(members, dtype=object).astype(str), np.asarray(patients)
    if members.shape != patients.shape:
        raise ValueError(
            f"{members.shape} members and {patients.shape} patients: expected [N] twice"
        )
    names = [str(name) for name in np.unique(members) if name]
    sizes = {name: len(np.unique(patients[members == name])) for name in names}
    kept = [name for name in names if sizes[name] >= least_patients]
    rows = {
        name: bootstrap.intervals(
            _of_group(statistics, members == name), groups=patients, config=config
        )
        for name in kept
    }
    return Subgroups(
        rows=rows,
        gaps=_gaps(rows, confidence=config.confidence),
        patients=sizes,
        records={name: int((members == name).sum()) for name in names},
        left_out=tuple(name for name in names if name not in kept),
        unnamed=int((members == "").sum()),
    )


def age_bands(ages: Sequence[float] | np.ndarray, *, edges: Sequence[int]) -> np.ndarray:
    """Names the age band of each record.

    Args:
      ages: age of each record in years, float[N]; NaN or a negative number where it is not known.
      edges: first year of each band but the youngest, in ascending order, e.g. (40, 60, 80).

    Returns:
      Names, str[N], e.g. "00-39", "40-59", "60-79" and "80+" for these edges; "" where the age is
      not known.

    Raises:
      ValueError: if the edges do not ascend from above 0.
    """
    ages, edges = np.asarray(ages, np.float64), list(edges)
    if not edges or edges != sorted(set(edges)) or edges[0] <= 0:
        raise ValueError(f"edges are {edges}: expected ascending years above 0")
    starts = [0, *edges]
    names = [f"{low:02d}-{high - 1:02d}" for low, high in zip(starts, edges, strict=False)]
    names.append(f"{edges[-1]}+")
    known = ages >= 0
    band = np.searchsorted(edges, np.where(known, ages, 0), side="right")
    return np.where(known, np.asarray(names)[band], "")


def _of_group(statistics: Statistics, member: np.ndarray) -> Statistics:
    return lambda weights: statistics(weights * member.astype(weights.dtype))


def _gaps(rows: Mapping[str, Mapping[str, Interval]], *, confidence: float) -> dict[str, Gap]:
    found = {}
    for metric in next(iter(rows.values()), {}):
        values = {name: row[metric].value for name, row in rows.items()}
        defined = {name: value for name, value in values.items() if not np.isnan(value)}
        if len(defined) < 2:
            continue
        highest, lowest = (
            max(defined, key=defined.__getitem__),
            min(defined, key=defined.__getitem__),
        )
        first, second = rows[highest][metric], rows[lowest][metric]
        draws = np.subtract(first.draws, second.draws)  # type: ignore[arg-type]
        found[metric] = Gap(
            highest=highest,
            lowest=lowest,
            difference=bootstrap.from_draws(
                first.value - second.value, draws, confidence=confidence
            ),
        )
    return found
