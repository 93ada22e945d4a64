"""FROC: sensitivity at given numbers of false positives per image, as Object-CXR scores it."""

from collections.abc import Sequence

import numpy as np

from prior_jax.evaluate.detection import ImageBoxes

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per image of the Object-CXR challenge."""


def froc(
    images: Sequence[ImageBoxes],
    *,
    weights: np.ndarray,
    rates: Sequence[float] = RATES,
    release: bool = False,
) -> np.ndarray:
    """Computes the mean sensitivity over rates of false positives per image.

    A prediction hits every true box that its centre lies in, of whatever class. One that hits none
    is a false positive. The sensitivity of a rate is that of the predictions, from the highest
    score on, up to the one with which the false positives reach the rate; a rate that is never
    reached has the sensitivity of all predictions.

    Args:
      images: boxes of the N images.
      weights: R weightings of the images, float[R, N], >= 0.
      rates: false positives per image, ascending.
      release: whether to count as LoVT's release does: each prediction can reach one rate at most,
        and rates that are never reached repeat the last one that was (quirk L30).

    Returns:
      float64[R], 0 to 1; NaN where no true box has weight.

    Source: the challenge's froc.py; LoVT's release, src/metrics/detection_metrics.py, FrocMetric.
    """
    image, false, new = _predictions(images)
    counts = np.asarray([len(one.truth) for one in images], np.float64)
    found = []
    for weight in np.asarray(weights, np.float64):
        positives, total = float(weight @ counts), float(weight.sum())
        if positives <= 0 or total <= 0:
            found.append(np.nan)
            continue
        by_box = weight[image]
        sensitivity = np.cumsum(by_box * new) / positives
        per_image = np.cumsum(by_box * false) / total
        rule = _released if release else _at_rates
        found.append(float(np.mean(rule(sensitivity, per_image, rates))))
    return np.asarray(found)


def _at_rates(sensitivity: np.ndarray, per_image: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    if not len(sensitivity):
        return np.zeros(len(rates))
    place = np.searchsorted(per_image, rates, side="left")
    return sensitivity[np.minimum(place, len(sensitivity) - 1)]


def _released(
    sensitivity: np.ndarray, per_image: np.ndarray, rates: Sequence[float]
) -> list[float]:
    reached: list[float] = []
    for value, rate in zip(sensitivity, per_image, strict=True):
        if len(reached) < len(rates) and rate >= rates[len(reached)]:
            reached.append(float(value))
    last = reached[-1] if reached else (float(sensitivity[-1]) if len(sensitivity) else 0.0)
    return reached + [last] * (len(rates) - len(reached))


def _predictions(images: Sequence[ImageBoxes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns image, whether false, and number of newly hit boxes of each prediction, by score."""
    rows = [
        (float(score), index, place)
        for index, one in enumerate(images)
        for place, score in enumerate(one.scores)
    ]
    order = sorted(range(len(rows)), key=lambda row: -rows[row][0])  # stable
    hit = [np.zeros(len(one.truth), bool) for one in images]
    image, false, new = (np.zeros(len(rows)) for _ in range(3))
    for position, row in enumerate(order):
        _, index, place = rows[row]
        box = np.asarray(images[index].boxes, np.float64)[place]
        inside = _inside((box[:2] + box[2:]) / 2, np.asarray(images[index].truth, np.float64))
        image[position] = index
        false[position] = not inside.any()
        new[position] = int((inside & ~hit[index]).sum())
        hit[index] |= inside
    return image.astype(np.int64), false, new


def _inside(point: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.reshape(-1, 4)
    return np.all((boxes[:, :2] <= point) & (point <= boxes[:, 2:]), axis=1)
