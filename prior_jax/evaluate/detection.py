"""Average precision of predicted boxes, in the ways in which papers count it.

Three published "mAP" of the same task are three different numbers. Each way is a `Counting`:

- COCO: overlaps of .50 to .95, 101 recalls, at most 100 boxes an image;
- LOVT: overlaps of .40 to .75, sides of x2 - x1 + 1 pixels, and an overlap has to be above the
  threshold;
- MGCA: overlaps of .40 to .75 by COCO's rules, over the images that have a true box and a
  prediction alone, so that false alarms on other images cost nothing.

`matched` pairs boxes of each image once; `average_precision` then counts any weighting of the
images, such as the resamples of a bootstrap.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from prior_jax.errors import DataError, check_choice, check_field

Images = Literal["all", "with_truth", "with_both"]
Absent = Literal["undefined", "zero"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting:
    """Rules by which predicted boxes are counted.

    Attributes:
      overlaps: thresholds of the intersection over union; the mean AP is over them and the classes.
      recalls: recalls at which the interpolated precision is averaged, ascending.
      extra_pixel: whether a box from x1 to x2 is x2 - x1 + 1 wide (quirk L21).
      above: whether an overlap has to be above its threshold instead of at it or above.
      images: images that are counted: "all", those "with_truth" (LoVT's columns `pos_*`), or those
        "with_both" a true box and a prediction (quirk M22).
      absent: AP of a class without a true box: "undefined", so that means leave it out (COCO), or
        "zero" (quirk L29).
      most: largest number of predictions of a class and an image that are counted, those with the
        highest scores; None for all.
    """

    overlaps: tuple[float, ...]
    recalls: tuple[float, ...]
    extra_pixel: bool
    above: bool
    images: Images
    absent: Absent
    most: int | None

    def __post_init__(self):
        """Refuses rules that count nothing."""
        inside = bool(self.overlaps) and all(0 < one <= 1 for one in self.overlaps)
        check_field(self, "overlaps", inside, "one or more numbers above 0 and at most 1")
        rising = bool(self.recalls) and list(self.recalls) == sorted(set(self.recalls))
        check_field(self, "recalls", rising, "one or more ascending numbers")
        check_choice(self, "images", get_args(Images))
        check_choice(self, "absent", get_args(Absent))
        check_field(self, "most", self.most is None or self.most >= 1, "None or at least 1")


# Largest number of cells of a table of images and hits, 64 MiB.
_BLOCK = 1 << 23
_LINE = tuple(np.linspace(0.0, 1.0, 101).tolist())
_LOW_OVERLAPS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)

COCO = Counting(
    overlaps=tuple(np.linspace(0.5, 0.95, 10).tolist()),
    recalls=_LINE,
    extra_pixel=False,
    above=False,
    images="all",
    absent="undefined",
    most=100,
)
"""pycocotools/cocoeval.py, Params.setDetParams."""
LOVT = Counting(
    overlaps=_LOW_OVERLAPS,
    recalls=tuple(np.arange(0.0, 1.01, 0.01).tolist()),  # not the same floats as a linspace
    extra_pixel=True,
    above=True,
    images="all",
    absent="zero",
    most=None,
)
"""LoVT's release, src/metrics/detection_metrics.py, on the library mean-average-precision."""
MGCA = dataclasses.replace(COCO, overlaps=_LOW_OVERLAPS, images="with_both")
"""MGCA's release, mgca/models/ssl_detector.py, on torchmetrics."""
STRICT = dataclasses.replace(COCO, overlaps=_LOW_OVERLAPS)
"""COCO's rules on all images at the overlaps of LoVT and MGCA: the right way to count them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageBoxes:
    """True and predicted boxes of one image, x1, y1, x2, y2 in pixels.

    Attributes:
      truth: float[T, 4].
      truth_classes: int[T], from 0.
      boxes: predicted boxes, float[P, 4].
      scores: float[P].
      classes: int[P], from 0.
      crowd: whether a true box stands for a crowd, which any number of predictions may meet without
        being counted, bool[T]; None for none.
    """

    truth: np.ndarray
    truth_classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """Predictions of one class over all images, from the highest score on.

    Attributes:
      image: index of the image, int[P].
      hit: whether the prediction finds a true box, at each overlap, bool[O, P].
      counted: whether the prediction is counted at all, bool[O, P]: one that meets a crowd is not.
      truth: number of true boxes of each image, int[N].
    """

    image: np.ndarray
    hit: np.ndarray
    counted: np.ndarray
    truth: np.ndarray


def matched(
    images: Sequence[ImageBoxes], *, classes: int, counting: Counting
) -> tuple[Matches, ...]:
    """Pairs predictions with true boxes, class by class.

    Predictions come from the highest score on, equal scores in their order. Each takes the true
    box with the largest overlap that no other has taken.

    Args:
      images: boxes of the N images.
      classes: number of classes.
      counting: rules.

    Returns:
      The matches of each class.

    Raises:
      DataError: if the arrays of an image do not fit each other or hold a number that is not
        finite.
    """
    for index, one in enumerate(images):
        _check(one, classes=classes, where=f"image {index}")
    used = [_is_counted(one, counting.images) for one in images]
    return tuple(_of_class(images, used, index, counting) for index in range(classes))


def average_precision(matches: Matches, *, weights: np.ndarray, counting: Counting) -> np.ndarray:
    """Computes the interpolated average precision of one class.

    Args:
      matches: matches of the class.
      weights: R weightings of the images, float[R, N], >= 0.
      counting: the rules that the matches were made by.

    Returns:
      float64[R, O] at each overlap, 0 to 1; where no true box has weight, NaN or 0 by
      `counting.absent`.

    Source: pycocotools/cocoeval.py, COCOeval.accumulate.
    """
    weights = np.asarray(weights, np.float64)
    positives = weights @ matches.truth
    found = np.zeros((len(weights), len(counting.overlaps)))
    for place, (hit, counted) in enumerate(zip(matches.hit, matches.counted, strict=True)):
        found[:, place] = _precisions(
            matches.image, hit & counted, counted, weights, positives, counting.recalls
        )
    found[positives <= 0] = np.nan if counting.absent == "undefined" else 0.0
    return found


def _precisions(
    image: np.ndarray,
    hit: np.ndarray,
    counted: np.ndarray,
    weights: np.ndarray,
    positives: np.ndarray,
    recalls: Sequence[float],
) -> np.ndarray:
    """Returns the interpolated average precision of each weighting at one overlap, float64[R].

    Only at a hit does the recall rise, and the interpolated precision is that of a hit.

    Args:
      image: index of the image of each prediction, from the highest score on, int[P].
      hit: whether the prediction finds a true box, bool[P].
      counted: whether it is counted, bool[P].
      weights: weightings of the images, float64[R, N].
      positives: weight of the true boxes of each weighting, float64[R].
      recalls: recalls at which the precision is averaged.
    """
    index = np.flatnonzero(hit)
    hits = np.cumsum(weights[:, image[index]], axis=1)
    taken = _taken(image, index, counted, weights)
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.concatenate([envelope, np.zeros((len(weights), 1))], axis=1)
    recall = hits / np.where(positives > 0, positives, 1.0)[:, None]
    places = np.stack([np.searchsorted(row, recalls, side="left") for row in recall])
    return np.take_along_axis(envelope, places, axis=1).mean(axis=1)


def _taken(
    image: np.ndarray, index: np.ndarray, counted: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Returns the weight of all counted predictions up to and with each hit, float64[R, H].

    Predictions between two hits are first counted by image, so that one product of matrices weights
    them for all R weightings, some hits at a time to bound the memory.
    """
    images, total = weights.shape[1], len(index)
    before = np.zeros(len(image), np.int64)
    before[index] = 1
    segment = np.cumsum(before) - before
    kept = counted & (segment < total)  # behind the last hit precision only falls
    rows, columns = image[kept], segment[kept]
    parts = []
    block = max(1, _BLOCK // max(images, 1))
    for first in range(0, total, block):
        size = min(block, total - first)
        inside = (columns >= first) & (columns < first + size)
        cells = rows[inside] * size + columns[inside] - first
        table = np.bincount(cells, minlength=images * size).reshape(images, size)
        parts.append(weights @ table)
    return np.cumsum(np.concatenate([np.zeros((len(weights), 0)), *parts], axis=1), axis=1)


def _of_class(
    images: Sequence[ImageBoxes], used: Sequence[bool], name: int, counting: Counting
) -> Matches:
    rows, scores, hits, counts = [], [], [], []
    truth = np.zeros(len(images), np.int64)
    for index, one in enumerate(images):
        if not used[index]:
            continue
        mine = np.flatnonzero(np.asarray(one.classes) == name)
        mine = mine[np.argsort(-np.asarray(one.scores, np.float64)[mine], kind="stable")]
        mine = mine[: counting.most]
        theirs = np.asarray(one.truth_classes) == name
        crowd = np.zeros(len(theirs), bool) if one.crowd is None else np.asarray(one.crowd, bool)
        truth[index] = int((theirs & ~crowd).sum())
        hit, counted = _pair(
            np.asarray(one.boxes, np.float64).reshape(-1, 4)[mine],
            np.asarray(one.truth, np.float64).reshape(-1, 4)[theirs],
            crowd[theirs],
            counting,
        )
        rows.append(np.full(len(mine), index))
        scores.append(np.asarray(one.scores, np.float64)[mine])
        hits.append(hit)
        counts.append(counted)
    empty = np.zeros((len(counting.overlaps), 0), bool)
    order = np.argsort(-np.concatenate([*scores, np.zeros(0)]), kind="stable")
    return Matches(
        image=np.concatenate([*rows, np.zeros(0, np.int64)])[order].astype(np.int64),
        hit=np.concatenate([*hits, empty], axis=1)[:, order],
        counted=np.concatenate([*counts, empty], axis=1)[:, order],
        truth=truth,
    )


def _pair(
    boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray, counting: Counting
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether each prediction is a hit, and whether it is counted, bool[O, P] each."""
    hit = np.zeros((len(counting.overlaps), len(boxes)), bool)
    counted = np.ones_like(hit)
    overlaps = overlap_table(boxes, truth, crowd=crowd, extra=float(counting.extra_pixel))
    for place, threshold in enumerate(counting.overlaps):
        # pycocotools compares with at most 1 - 1e-10, so that an overlap of 1 can be reached.
        threshold = threshold if counting.above else min(threshold, 1 - 1e-10)
        free = ~crowd
        close = overlaps > threshold if counting.above else overlaps >= threshold
        for row in np.flatnonzero(close.any(axis=1)):  # the others hit nothing, and are counted
            overlap, near = overlaps[row], close[row]
            choice = _last_largest(overlap, near & free)
            if choice is not None:
                hit[place, row], free[choice] = True, False
            else:
                counted[place, row] = not (near & crowd).any()
    return hit, counted


def _last_largest(values: np.ndarray, allowed: np.ndarray) -> int | None:
    """Returns the index of the largest allowed value; of equal ones the last, as pycocotools."""
    if not allowed.any():
        return None
    found = np.where(allowed, values, -1.0)
    return len(found) - 1 - int(np.argmax(found[::-1]))


def overlap_table(
    boxes: np.ndarray, truth: np.ndarray, *, crowd: np.ndarray | None = None, extra: float = 0.0
) -> np.ndarray:
    """Computes the intersection over union of each prediction with each true box.

    Args:
      boxes: float[P, 4].
      truth: float[T, 4].
      crowd: whether a true box is a crowd, bool[T]: its overlap is the share of the prediction that
        lies in it.
      extra: number of pixels that is added to every side.

    Returns:
      float64[P, T], 0 where both are empty.
    """
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    both = np.prod(np.maximum(high - low + extra, 0), axis=-1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2] + extra, axis=-1)[:, None]
    union = area + np.prod(truth[:, 2:] - truth[:, :2] + extra, axis=-1)[None] - both
    if crowd is not None:
        union = np.where(crowd[None], area, union)
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _is_counted(one: ImageBoxes, images: Images) -> bool:
    if images == "all":
        return True
    return len(one.truth) > 0 and (images == "with_truth" or len(one.boxes) > 0)


def _check(one: ImageBoxes, *, classes: int, where: str) -> None:
    boxes, truth = np.asarray(one.boxes), np.asarray(one.truth)
    for name, found in (("predicted boxes", boxes), ("true boxes", truth)):
        if found.size and (found.ndim != 2 or found.shape[1] != 4):
            raise DataError(
                f"Its {name} have the shape {list(found.shape)}.",
                "Give x1, y1, x2 and y2 of each box, [number of boxes, 4].",
                where=where,
            )
    counts = (len(boxes), len(one.scores), len(one.classes))
    names = np.concatenate([np.asarray(one.classes), np.asarray(one.truth_classes)])
    if len(set(counts)) != 1 or len(truth) != len(one.truth_classes):
        raise DataError(
            f"It has {counts[0]} boxes, {counts[1]} scores and {counts[2]} classes, and "
            f"{len(truth)} true boxes with {len(one.truth_classes)} classes.",
            "Give one score and one class for each box.",
            where=where,
        )
    if not all(np.isfinite(part).all() for part in (boxes, truth, np.asarray(one.scores))):
        raise DataError(
            "A box or a score is not finite.", "Leave such boxes out before counting.", where=where
        )
    if names.size and (names.min() < 0 or names.max() >= classes):
        raise DataError(
            f"Its classes go from {names.min()} to {names.max()}, and there are {classes}.",
            "Number the classes from 0.",
            where=where,
        )
