"""Detectors at validation: mean average precision in each counting, and FROC."""

from collections.abc import Sequence

import jax
import numpy as np

from prior_jax.evaluate import detection_columns, found_boxes, froc
from prior_jax.evaluate.detection import average_precision, matched
from prior_jax.objectives.base import Detects
from prior_jax.types import Batch, Boxes, Detections

COUNTINGS = {
    f"validation_{name}": detection_columns.COUNTINGS[name]
    for name in ("map", "lovt_map", "mgca_map")
}
"""Counting of each mean average precision of a validation, by its name."""

FROC = "validation_froc"

NAMES = (*COUNTINGS, FROC)
"""Names of the numbers of a validation, for `config.checkpoint.best_metric`."""

Scored = tuple[Detections, Boxes, jax.Array]


def scored(objective: Detects, model: object, batch: Batch) -> Scored:
    """Finds the boxes on the images of a batch; call it under jit."""
    return objective.detect(model, batch.image), found_boxes.truth_of(batch), batch.weight


def precision_of(
    parts: Sequence[tuple[Detections, Boxes, np.ndarray]], *, classes: int
) -> dict[str, float]:
    """Counts the boxes of one pass.

    Args:
      parts: predicted boxes, true boxes and weights of the batches, on the host.
      classes: number of classes.

    Returns:
      The numbers of `NAMES` that are defined: without a true box there is none.

    Source: LoVT stops by its mean average precision, and on Object-CXR by FROC; MGCA by its own.
    """
    images = [one for part in parts for one in found_boxes.image_boxes(*part)]
    if not any(len(one.truth) for one in images):
        return {}
    weights = np.ones((1, len(images)))
    found = {FROC: float(froc.froc(images, weights=weights)[0])}
    for name, counting in COUNTINGS.items():
        pairs = matched(images, classes=classes, counting=counting)
        table = [average_precision(one, weights=weights, counting=counting)[0] for one in pairs]
        found[name] = _mean(table)
    return found


def _mean(table: Sequence[np.ndarray]) -> float:
    """Returns the mean over the classes that have a box; 0 where no image is counted.

    The latter are MGCA's numbers of a model that finds nothing (quirk M22).
    """
    values = np.concatenate(table)
    return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
