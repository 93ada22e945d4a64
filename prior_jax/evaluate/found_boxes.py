"""The boxes that a detector finds on the images of a split, beside the true ones."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.detection import ImageBoxes
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import not_finite, to_host
from prior_jax.objectives.base import Detects
from prior_jax.types import Batch, Boxes, Detections


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """True and predicted boxes of N images, in pixels of the model's images.

    Attributes:
      images: boxes of each image.
      record: index of each image's record in its split, int32[N].
      size: height and width of the images in pixels.
    """

    images: tuple[ImageBoxes, ...]
    record: np.ndarray
    size: tuple[int, int]


def detect(encoder: Encoder, objective: Detects, batches: Iterable[Batch]) -> Found:
    """Finds boxes on every image of a split.

    Args:
      encoder: encoder of the model.
      objective: objective of the model.
      batches: batches of one pass over the split, with boxes; rows of weight 0 are dropped.

    Raises:
      DataError: if no batch holds a real row, or a score is not finite.
      ConfigError: if an image has more boxes than there is room for.
    """
    run = encoder.compiled(objective.detect)
    images: list[ImageBoxes] = []
    records, size = [], (0, 0)
    for batch in batches:
        _, height, width, _ = batch.image.shape
        size = height, width
        rows = to_host((run(batch.image), truth_of(batch), batch.weight, batch.record))
        images += image_boxes(*rows[:3])
        records.append(rows[3][rows[2] > 0])
    if not images:
        raise DataError(
            "The split contains no record, so that there is nothing to detect.",
            "Choose a split that has records with --task.split, or all of its images.",
        )
    return Found(images=tuple(images), record=np.concatenate(records), size=size)


def truth_of(batch: Batch) -> Boxes:
    """Returns the true boxes of a batch.

    Raises:
      ConfigError: if none are read.
    """
    if batch.boxes is None:
        raise ConfigError(
            "The batch has no boxes, with which predicted ones are compared.",
            "Read them with the section config.data.regions.",
            where="config.data.regions",
        )
    return batch.boxes


def image_boxes(found: Detections, truth: Boxes, weight: np.ndarray) -> list[ImageBoxes]:
    """Returns the boxes of each real row of a batch, without padding.

    Args:
      found: predicted boxes, on the host.
      truth: true boxes, on the host.
      weight: float32[B], 0 for a row that only fills the batch.

    Raises:
      DataError: if a score or a box is not finite.
      ConfigError: if an image has more boxes than there is room for.
    """
    rows: list[ImageBoxes] = []
    for row in np.flatnonzero(np.asarray(weight) > 0):
        room, count = found.real.shape[1], int(found.found[row])
        if count > room:
            raise ConfigError(
                f"The model finds {count} boxes on an image, and there is room for {room}.",
                "Raise it, set it to None, or raise config.model.post.conf_threshold.",
                where="config.model.post.most_boxes",
            )
        real, true = np.asarray(found.real[row]), np.asarray(truth.real[row])
        one = ImageBoxes(
            truth=np.asarray(truth.corners)[row, true],
            truth_classes=np.asarray(truth.classes)[row, true],
            boxes=np.asarray(found.corners)[row, real],
            scores=np.asarray(found.scores)[row, real],
            classes=np.asarray(found.classes)[row, real],
        )
        if not (np.isfinite(one.scores).all() and np.isfinite(one.boxes).all()):
            raise not_finite("The predicted boxes")
        rows.append(one)
    return rows


def of_classes(images: Sequence[ImageBoxes], chosen: Sequence[int]) -> tuple[ImageBoxes, ...]:
    """Returns the boxes of some of the classes, which are numbered anew in the order given."""
    return tuple(_of_classes(one, list(chosen)) for one in images)


def _of_classes(one: ImageBoxes, chosen: list[int]) -> ImageBoxes:
    number: dict[Any, int] = {name: index for index, name in enumerate(chosen)}
    true = np.isin(one.truth_classes, chosen)
    kept = np.isin(one.classes, chosen)

    def renamed(names: np.ndarray) -> np.ndarray:
        return np.asarray([number[int(name)] for name in names], np.int64)

    return ImageBoxes(
        truth=one.truth[true],
        truth_classes=renamed(one.truth_classes[true]),
        boxes=one.boxes[kept],
        scores=one.scores[kept],
        classes=renamed(one.classes[kept]),
    )
