"""How well scores rank the records of each class: what zero-shot and the probe both report."""

from collections.abc import Sequence

import numpy as np

from prior_jax.evaluate import metrics, prompts

METRICS = ("auroc", "average_precision")


def ranking(
    scores: np.ndarray,
    positive: np.ndarray,
    counted: np.ndarray,
    *,
    classes: Sequence[str],
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """AUROC and average precision of every class and their means.

    Args:
      scores: float[N, C], finite; higher = more likely.
      positive: bool[N, C].
      counted: bool[N, C], False leaves a record out of a class.
      classes: C names.
      weights: float[R, N], >= 0.

    Returns:
      `macro_auroc`, `auroc_<class>`, `macro_average_precision`, `average_precision_<class>`:
      float64[R] each, NaN where the metric does not exist; such a class is left out of the means.
    """
    found = {}
    for name, metric in (("auroc", metrics.auroc), ("average_precision", _average_precision)):
        each = {
            f"{name}_{prompts.slug(label)}": metric(
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
    """Why a metric of `ranking` does not exist, by its name; empty if all do.

    Args:
      positive: bool[N, C].
      counted: bool[N, C].
      classes: C names.
    """
    found = {}
    for index, label in enumerate(classes):
        rows = positive[counted[:, index], index]
        if rows.all() or not rows.any():
            lacking = "no negative" if rows.any() else "no positive" if rows.size else "no record"
            for name in METRICS:
                found[f"{name}_{prompts.slug(label)}"] = f"{lacking} of {label} is counted"
    if len(found) == len(METRICS) * len(classes):
        for name in METRICS:
            found[f"macro_{name}"] = "no class has both positives and negatives"
    return found


def _average_precision(scores, positive, *, weights):
    """Only where the AUROC exists too, so that both macro averages are over the same classes."""
    found = metrics.average_precision(scores, positive, weights=weights)
    negatives = weights[:, ~positive].sum(axis=1)
    return np.where(negatives > 0, found, np.nan)
