"""COCO's average precision as the package faster-coco-eval counts it."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from prior_jax.errors import ConfigError
from prior_jax.evaluate.detection import ImageBoxes

COLUMNS = ("coco_ap", "coco_ap50", "coco_ap75")
"""The columns that the package counts, in the order of its table."""


def check_installed() -> Any:
    """Returns the package, or refuses to go on without it.

    Raises:
      ConfigError: with the command that installs it.
    """
    try:
        return importlib.import_module("faster_coco_eval")
    except ImportError as error:
        raise ConfigError(
            "The package faster-coco-eval is not installed.",
            "Run pip install -e '.[coco]', or set --task.detector.coco=own.",
            where="task.detector.coco",
        ) from error


def precision_of(images: Sequence[ImageBoxes], *, classes: int) -> dict[str, float]:
    """Counts the boxes of all images.

    Args:
      images: boxes of N images.
      classes: number of classes.

    Returns:
      Each of `COLUMNS`, 0 to 1; NaN where no image has a box.

    Raises:
      ConfigError: if the package is not installed.
    """
    library = check_installed()
    if not any(len(one.truth) for one in images):
        return dict.fromkeys(COLUMNS, float("nan"))
    truth = library.COCO(_truth(images, classes=classes))
    answers = _answers(images)
    if not answers:
        return dict.fromkeys(COLUMNS, 0.0)
    run = library.COCOeval_faster(truth, truth.loadRes(answers), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return dict(zip(COLUMNS, (float(value) for value in run.stats[:3]), strict=True))


def _truth(images: Sequence[ImageBoxes], *, classes: int) -> dict[str, list[dict[str, object]]]:
    """Returns the true boxes in COCO's form, whose numbers begin with 1."""
    boxes: list[dict[str, object]] = []
    for index, one in enumerate(images):
        crowd = np.zeros(len(one.truth), bool) if one.crowd is None else one.crowd
        for corners, name, many in zip(one.truth, one.truth_classes, crowd, strict=True):
            box = _box(corners)
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": index + 1,
                    "category_id": int(name) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(many),
                }
            )
    return {
        "images": [{"id": index + 1} for index in range(len(images))],
        "annotations": boxes,
        "categories": [{"id": index + 1, "name": str(index)} for index in range(classes)],
    }


def _answers(images: Sequence[ImageBoxes]) -> list[dict[str, object]]:
    return [
        {
            "image_id": index + 1,
            "category_id": int(name) + 1,
            "bbox": _box(corners),
            "score": float(score),
        }
        for index, one in enumerate(images)
        for corners, name, score in zip(one.boxes, one.classes, one.scores, strict=True)
    ]


def _box(corners: np.ndarray) -> list[float]:
    """Returns x, y, width and height."""
    x1, y1, x2, y2 = (float(edge) for edge in corners)
    return [x1, y1, x2 - x1, y2 - y1]
