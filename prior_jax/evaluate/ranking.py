"""Ranking metrics of each class, reported by zero-shot classification and by the probe."""

from collections.abc import Sequence

import numpy as np

from prior_jax import near_names
from prior_jax.evaluate import metrics

METRICS = ("auroc", "average_precision")


def ranking(
    scores: np.ndarray,
    positive: np.ndarray,
    counted: np.ndarray,
    *,
    classes: Sequence[str],
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Computes AUROC and average precision of every class and their means.

    Args:
      scores: scores, float[N, C], finite; higher = more likely.
      positive: whether each record is positive for each class, bool[N, C].
      counted: whether each record counts for each class, bool[N, C]; False leaves it out.
      classes: names of the C classes.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      `macro_auroc`, `auroc_<class>`, `macro_average_precision`, `average_precision_<class>`:
      float64[R] each, NaN where the metric is undefined; such a class is left out of the means.

    Raises:
      ConfigError: if two classes have one name in the metrics.
    """
    near_names.check_classes(classes, where="task.classes")
    found = {}
    for name, metric in (("auroc", metrics.auroc), ("average_precision", _average_precision)):
        each = {
            f"{name}_{near_names.slug(label)}": metric(
                scores[counted[:, index], index],
                positive[counted[:, index], index],
                weights=weights[:, counted[:, index]],
            )
            for index, label in enumerate(classes)
        }
        found[f"macro_{name}"] = metrics.mean_of_defined(np.stack(list(each.values()), axis=-1))
        found |= each
    return found


def reasons(positive: np.ndarray, counted: np.ndarray, *, classes: Sequence[str]) -> dict[str, str]:
    """Returns why metrics of `ranking` are undefined, by metric name; empty if all are defined.

    Args:
      positive: whether each record is positive for each class, bool[N, C].
      counted: whether each record counts for each class, bool[N, C].
      classes: names of the C classes.
    """
    found = {}
    for index, label in enumerate(classes):
        rows = positive[counted[:, index], index]
        if rows.all() or not rows.any():
            lacking = "no negative" if rows.any() else "no positive" if rows.size else "no record"
            for name in METRICS:
                found[f"{name}_{near_names.slug(label)}"] = f"{lacking} of {label} is counted"
    if len(found) == len(METRICS) * len(classes):
        for name in METRICS:
            found[f"macro_{name}"] = "no class has both positives and negatives"
    return found


def _average_precision(scores, positive, *, weights):
    """Computes average precision only where the AUROC is defined too.

    Both macro averages are therefore over the same classes.
    """
    found = metrics.average_precision(scores, positive, weights=weights)
    negatives = weights[:, ~positive].sum(axis=1)
    return np.where(negatives > 0, found, np.nan)
