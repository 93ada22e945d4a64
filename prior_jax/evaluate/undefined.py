"""Says which metrics have no value and why, and over how many classes a mean is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax import near_names
from prior_jax.evaluate.bootstrap import Interval

_AT_THRESHOLD = ("f1", "accuracy", "balanced_accuracy")
_ZERO_WHERE_UNDEFINED = ("precision", "recall")
"""Metrics whose mean over classes counts 0 for a class that is there, `classification_metrics`."""
MANY = 3
"""Number of metrics with one reason from which they are named in one sentence."""


def without_value(metrics: Mapping[str, Interval]) -> list[str]:
    """Returns the names of the metrics that have no value on the original records."""
    return [name for name, metric in metrics.items() if np.isnan(metric.value)]


def classification_reasons(
    names: Sequence[str],
    *,
    classes: Sequence[str],
    positive: np.ndarray,
    counted: np.ndarray,
    thresholds: np.ndarray | None,
    validated: bool,
) -> dict[str, str]:
    """Returns why metrics of a classifier are undefined.

    Args:
      names: names of the undefined metrics.
      classes: names of the C classes.
      positive: whether each record is positive for each class, bool[N, C].
      counted: whether each record counts for each class, bool[N, C].
      thresholds: threshold of each class, float[C], NaN for none; None without thresholds.
      validated: whether there is a validation split to choose thresholds by.
    """
    place = {
        f"{kind}_{near_names.slug(label)}": (kind, index)
        # The longest name last: "f1_lung_opacity" is of Lung Opacity, not of Opacity.
        for index, label in sorted(enumerate(classes), key=lambda one: len(near_names.slug(one[1])))
        for kind in {name.removesuffix(f"_{near_names.slug(label)}") for name in names}
    }
    found = {}
    for name in names:
        kind, index = place.get(name, (name.removeprefix("macro_"), None))
        rows = None if index is None else positive[counted[:, index], index]
        if thresholds is not None and kind in _AT_THRESHOLD and not validated:
            found[name] = "the set has no split validate to choose a threshold by"
        elif rows is None:
            found[name] = "no class has a value"
        elif not rows.size:
            found[name] = "no record of the class is counted"
        elif thresholds is not None and kind in _AT_THRESHOLD and np.isnan(thresholds[index]):
            found[name] = "validate has no positive of the class to choose a threshold by"
        elif kind == "precision":
            found[name] = "the class is never predicted"
        else:
            found[name] = f"no {'negative' if rows.any() else 'positive'} of the class is counted"
    return found


def sentences(undefined: Mapping[str, str]) -> list[str]:
    """Returns one sentence for each reason, which names all metrics that have it.

    Args:
      undefined: undefined metric -> its reason, as in the settings of a results file.
    """
    return [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} undefined: {reason}."
        for reason, names in by_reason(undefined).items()
    ]


def by_reason(undefined: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the names of the metrics of each reason."""
    found: dict[str, list[str]] = {}
    for name, reason in undefined.items():
        found.setdefault(reason, []).append(name)
    return found


def classes_behind(
    name: str, metrics: Mapping[str, Any], classes: Sequence[str]
) -> tuple[int, int] | None:
    """Returns over how many classes a mean is, and over how many it could be.

    Args:
      name: name of a metric.
      metrics: value of each metric by name; None or NaN where it is undefined.
      classes: names of the classes.

    Returns:
      Both numbers; None where all classes have a value, or `name` is no mean of classes. Macro
      precision and recall are over the classes that occur in truth or prediction, those that have
      an F1.
    """
    kind = name.removeprefix("macro_")
    if kind in _ZERO_WHERE_UNDEFINED:
        kind = "f1"
    each = [
        metrics[f"{kind}_{near_names.slug(label)}"]
        for label in classes
        if f"{kind}_{near_names.slug(label)}" in metrics
    ]
    defined = sum(value is not None and not np.isnan(value) for value in each)
    if not name.startswith("macro_") or defined in (0, len(each)):
        return None
    return defined, len(each)
