"""Reliability curves of a classifier for the report, with intervals over patients."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax import near_names
from prior_jax.evaluate import bootstrap
from prior_jax.evaluate import classification_metrics as at_decision
from prior_jax.evaluate.classification_rows import Predicted

Bin = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """The reliability curve of each class, and that of all answers together.

    Attributes:
      by_class: slug of the class -> `{"low", "high", "records", "confidence", "frequency",
        "frequency_low", "frequency_high"}` of each bin that has a record: its edges, the number of
        its records, their mean probability, the share of them that is positive, and the interval of
        that share, None where no resample has a record in the bin.
      pooled: the same of the answers for all classes; a record is in it once for each class.
    """

    by_class: Mapping[str, Sequence[Bin]]
    pooled: Sequence[Bin]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cells:
    """The sums over the classes of a curve, of each record in each bin, float64[N, bins]."""

    records: np.ndarray
    positive: np.ndarray
    probability: np.ndarray


def curves(
    predicted: Predicted,
    *,
    patients: np.ndarray,
    bins: int,
    resampling: bootstrap.BootstrapConfig,
) -> Curves:
    """Computes the points of the reliability curves.

    Args:
      predicted: probabilities and truth of the N records.
      patients: patient of each record, [N]; the bootstrap resamples patients.
      bins: number of bins of equal width.
      resampling: settings of the bootstrap intervals.

    Source: DeGroot and Fienberg, The Statistician 32 (1983) 12.
    """
    cells = {
        near_names.slug(name): _cells(predicted, [index], bins=bins)
        for index, name in enumerate(predicted.classes)
    }
    every = _cells(predicted, list(range(len(predicted.classes))), bins=bins)

    def shares(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        for number, one in enumerate((every, *cells.values())):
            counts, positive = weights @ one.records, weights @ one.positive
            share = np.divide(positive, counts, out=np.full_like(counts, np.nan), where=counts > 0)
            found |= {f"{number}_{place}": column for place, column in enumerate(share.T)}
        return found

    found = bootstrap.intervals(shares, groups=patients, config=resampling)
    pooled, *by_class = (
        _points(one, found, number) for number, one in enumerate((every, *cells.values()))
    )
    return Curves(by_class=dict(zip(cells, by_class, strict=True)), pooled=pooled)


def _cells(predicted: Predicted, columns: Sequence[int], *, bins: int) -> _Cells:
    probability = np.asarray(predicted.probability, np.float64)[:, columns]
    counted = np.asarray(predicted.counted, bool)[:, columns]
    positive = np.asarray(predicted.positive, bool)[:, columns]
    shape = len(probability), bins
    found = _Cells(records=np.zeros(shape), positive=np.zeros(shape), probability=np.zeros(shape))
    rows, places = np.nonzero(counted)
    member = at_decision.bin_of(probability[counted], bins=bins)
    np.add.at(found.records, (rows, member), 1.0)
    np.add.at(found.positive, (rows, member), positive[rows, places].astype(np.float64))
    np.add.at(found.probability, (rows, member), probability[rows, places])
    return found


def _points(cells: _Cells, found: Mapping[str, bootstrap.Interval], number: int) -> list[Bin]:
    counts, sums = cells.records.sum(axis=0), cells.probability.sum(axis=0)
    edges = np.linspace(0.0, 1.0, len(counts) + 1)
    points = []
    for place in np.flatnonzero(counts).tolist():
        share = found[f"{number}_{place}"].to_json()
        points.append(
            {
                "low": float(edges[place]),
                "high": float(edges[place + 1]),
                "records": round(float(counts[place])),
                "confidence": float(sums[place] / counts[place]),
                "frequency": share["value"],
                "frequency_low": share["low"],
                "frequency_high": share["high"],
            }
        )
    return points
