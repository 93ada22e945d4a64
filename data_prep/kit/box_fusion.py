"""Fuses the boxes that several readers have drawn around one finding.

Source: weighted boxes fusion, arXiv:1910.13302, section 3; the numbers agree with the package
ensemble-boxes. Readers have no scores of their own: each box weighs the same, unless told.
"""

from collections.abc import Sequence

import numpy as np

from prior_jax.data import schema
from prior_jax.errors import DataError

IOU = 0.5
"""Overlap above which two boxes are of one finding; BenchX's, preprocess_vindr.py."""


def fused(
    boxes: Sequence[schema.Box], *, scores: Sequence[float] | None = None, iou: float = IOU
) -> list[schema.Box]:
    """Fuses boxes of one label.

    Boxes are taken one by one, those of the highest score first and of equal scores the last first.
    Each joins the fused box that it overlaps most, if by more than `iou`, and otherwise begins one;
    a fused box is the mean of its boxes, weighted by their scores.

    Args:
      boxes: x1, y1, x2, y2 of each box.
      scores: weight of each box, above 0; None for equal ones.
      iou: intersection over union above which two boxes are fused.

    Returns:
      The fused boxes, in the order in which they began.

    Raises:
      DataError: if a box has no area, so that its overlap with another is not defined.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    for box in corners.tolist():
        if not (box[0] < box[2] and box[1] < box[3]):  # never so of NaN
            raise DataError(
                f"The box {box} has no area.",
                "Leave it out before boxes are fused, or correct it: a box is x1, y1, x2, y2 with "
                "x1 below x2 and y1 below y2.",
            )
    weights = np.ones(len(corners)) if scores is None else np.asarray(scores, np.float64)
    clusters: list[list[int]] = []
    centres = np.zeros((0, 4))
    for place in np.argsort(weights, kind="stable")[::-1].tolist():
        overlaps = _overlaps(centres, corners[place])
        best = int(np.argmax(overlaps)) if len(overlaps) else -1
        if best < 0 or overlaps[best] <= iou:
            clusters.append([place])
            centres = np.concatenate([centres, corners[place][None]])
            continue
        clusters[best].append(place)
        own = clusters[best]
        centres[best] = np.average(corners[own], axis=0, weights=weights[own])
    return [(a, b, c, d) for a, b, c, d in centres.tolist()]


def _overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns float64[N], the intersection over union of N boxes with another."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / (areas + np.prod(box[2:] - box[:2]) - shared)
