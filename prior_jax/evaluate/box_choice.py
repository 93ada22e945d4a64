"""Which images of a detector the report shows: the best, the median and the worst by F1."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from prior_jax.evaluate.detection import STRICT, ImageBoxes, matched
from prior_jax.evaluate.pictures import Choice, choose

OVERLAP = 0.5
"""Intersection over union from which a predicted box finds a true one."""

_COUNTING = dataclasses.replace(STRICT, overlaps=(OVERLAP,), most=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxCounts:
    """Numbers of the boxes of N images.

    Attributes:
      found: number of true boxes that a predicted box of the same class finds, int64[N].
      missed: number of the other true boxes, int64[N].
      false: number of predicted boxes that find none, int64[N].
    """

    found: np.ndarray
    missed: np.ndarray
    false: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """Returns the F1 score of each image, float64[N]; NaN for one without a true box."""
        truth = self.found + self.missed
        score = 2 * self.found / np.maximum(2 * self.found + self.missed + self.false, 1)
        return np.where(truth > 0, score, np.nan)


def above(one: ImageBoxes, threshold: float) -> ImageBoxes:
    """Returns the boxes of an image, of the predicted ones those with at least such a score."""
    kept = np.asarray(one.scores) >= threshold
    return dataclasses.replace(
        one, boxes=one.boxes[kept], scores=one.scores[kept], classes=one.classes[kept]
    )


def counts_of(images: Sequence[ImageBoxes], *, threshold: float) -> BoxCounts:
    """Counts the boxes of each image.

    Args:
      images: boxes of N images.
      threshold: least score of the predicted boxes that are counted.
    """
    kept = [above(one, threshold) for one in images]
    found, predicted = np.zeros((2, len(kept)), np.int64)
    for pairs in matched(kept, classes=_classes(kept), counting=_COUNTING):
        np.add.at(found, pairs.image, pairs.hit[0].astype(np.int64))
        np.add.at(predicted, pairs.image, 1)
    truth = np.asarray([len(one.truth) for one in kept], np.int64)
    return BoxCounts(found=found, missed=truth - found, false=predicted - found)


def threshold_of(images: Sequence[ImageBoxes]) -> float:
    """Returns the score with the best F1 of the boxes of all images and classes together.

    A predicted box is right if it overlaps a true one of its class by at least `OVERLAP`, which no
    box with a higher score has taken. Of several scores with that F1 the highest is returned, and 1
    if no predicted box is right. The threshold is chosen on the images that it is used on, to show
    the detector at its best; no column of the results depends on it.

    Args:
      images: boxes of N images.
    """
    pairs = matched(images, classes=_classes(images), counting=_COUNTING)
    hits = np.concatenate([one.hit[0] for one in pairs])
    # Of each class the scores fall, in the order of the hits.
    scores = np.concatenate([_sorted_scores(images, name) for name in range(len(pairs))])
    if not hits.any():
        return 1.0
    order = np.argsort(-scores, kind="stable")
    right, scores = np.cumsum(hits[order]), scores[order]
    truth = sum(len(one.truth) for one in images)
    score = 2 * right / (np.arange(1, len(scores) + 1) + truth)
    # Boxes of one score are above a threshold together.
    last = np.append(scores[1:] < scores[:-1], True)
    return float(scores[np.argmax(np.where(last, score, -1.0))])


def choose_images(images: Sequence[ImageBoxes], *, threshold: float) -> list[Choice]:
    """Chooses the images that are shown.

    Args:
      images: boxes of N images.
      threshold: least score of the predicted boxes that are counted.

    Returns:
      The best, the median and the worst of the images that have a true box, by F1 and then by the
      number of true boxes; after them, one of each kind, the images without one, of which the best
      has the fewest false boxes.
    """
    counts = counts_of(images, threshold=threshold)
    truth = counts.found + counts.missed
    without = np.where(truth > 0, np.nan, -counts.false.astype(np.float64))
    return [*choose(counts.f1, truth), *choose(without, without, each=1)]


def _classes(images: Sequence[ImageBoxes]) -> int:
    """Returns the number of classes that some box is of, at least 1."""
    every = [np.asarray(x) for one in images for x in (one.truth_classes, one.classes)]
    return 1 + int(max((x.max() for x in every if x.size), default=0))


def _sorted_scores(images: Sequence[ImageBoxes], name: int) -> np.ndarray:
    """Returns the scores of the predicted boxes of a class, the highest first, float64[P]."""
    found = [np.asarray(one.scores, np.float64)[np.asarray(one.classes) == name] for one in images]
    return -np.sort(-np.concatenate([*found, np.zeros(0)]))
