"""The columns of a table of detection: each published number by a name of its own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prior_jax.evaluate import froc
from prior_jax.evaluate.detection import (
    COCO,
    LOVT,
    MGCA,
    STRICT,
    Counting,
    ImageBoxes,
    average_precision,
    matched,
)
from prior_jax.near_names import check_classes, slug

COUNTINGS: Mapping[str, Counting] = {
    "coco_ap": COCO,
    "map": STRICT,
    "lovt_map": LOVT,
    "lovt_pos_map": dataclasses.replace(LOVT, images="with_truth"),
    "mgca_map": MGCA,
}
"""Counting of each column that is a mean over overlaps and classes."""

SINGLE = {"coco_ap": (0.5, 0.75), "lovt_map": (0.5, 0.75), "lovt_pos_map": (0.5, 0.75)}
"""Overlaps of the columns that are counted at one overlap alone, such as `coco_ap50`."""

BY_CLASS = ("coco_ap50", "map")
"""Columns that several classes have for each class as well."""

FROC, RELEASED_FROC = "froc", "lovt_froc"

Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]


def statistics_of(
    images: Sequence[ImageBoxes], *, classes: Sequence[str], sensitivity: bool
) -> Statistics:
    """Pairs predicted boxes with true ones, once, for any weighting of the images.

    Args:
      images: boxes of N images.
      classes: names of the K classes.
      sensitivity: whether FROC is counted too.

    Returns:
      A function of weightings of the images, float[R, N], that gives each column, float[R], NaN
      where it is undefined.

    Raises:
      ConfigError: if two classes have one name in the columns.
    """
    check_classes(classes, where="task.classes")
    pairs = {
        name: matched(images, classes=len(classes), counting=counting)
        for name, counting in COUNTINGS.items()
    }
    ranked = froc.ranked(images) if sensitivity else None

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name, counting in COUNTINGS.items():
            table = np.stack(
                [average_precision(m, weights=weights, counting=counting) for m in pairs[name]],
                axis=2,
            )
            found |= _columns(name, table, counting, classes)
        if ranked is not None:
            found |= _sensitivities(ranked, weights)
        return found

    return statistics


def reasons(found: Mapping[str, float], images: Sequence[ImageBoxes]) -> dict[str, str]:
    """Returns why columns have no value."""
    boxed = any(len(one.truth) for one in images)
    return {
        name: ("no image has a box of the class" if boxed else "no image has a box")
        for name, value in found.items()
        if np.isnan(value)
    } | {
        name: "no image has both a box and a prediction"
        for name, value in found.items()
        if np.isnan(value) and boxed and name == "mgca_map"
    }


def _columns(
    name: str, table: np.ndarray, counting: Counting, classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns the columns of one counting from its precisions, float[R, O, K]."""
    found = {name: _mean(table)}
    for overlap in SINGLE.get(name, ()):
        place = int(np.argmin(np.abs(np.asarray(counting.overlaps) - overlap)))
        found[f"{name}{round(100 * overlap)}"] = _mean(table[:, place : place + 1])
    if len(classes) == 1:
        return found
    for index, label in enumerate(classes):
        one = table[:, :, index : index + 1]
        if name == "coco_ap":
            found[f"coco_ap50_{slug(label)}"] = _mean(one[:, :1])
        elif name in BY_CLASS:
            found[f"{name}_{slug(label)}"] = _mean(one)
    return found


def _mean(table: np.ndarray) -> np.ndarray:
    """Returns the mean of the defined numbers of float[R, O, K], NaN where there are none."""
    flat = table.reshape(len(table), -1)
    defined = ~np.isnan(flat)
    total, count = np.where(defined, flat, 0).sum(axis=1), defined.sum(axis=1)
    return np.divide(total, count, out=np.full(len(table), np.nan), where=count > 0)


def _sensitivities(ranked: froc.Ranked, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns FROC, the sensitivity at each of its rates, and FROC as LoVT's release counts it."""
    table = froc.sensitivities(ranked, weights=weights)
    released = froc.sensitivities(ranked, weights=weights, release=True)
    found = {FROC: table.mean(axis=1), RELEASED_FROC: released.mean(axis=1)}
    for place, rate in enumerate(froc.RATES):
        found[f"{FROC}_at_{rate:g}".replace(".", "_")] = table[:, place]
    return found
