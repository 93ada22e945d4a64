"""FROC: sensitivity at given numbers of false positives per image, as Object-CXR scores it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from prior_jax.evaluate.detection import ImageBoxes

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per image of the Object-CXR challenge."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
    """Predictions of N images, from the highest score on.

    Attributes:
      image: index of the image of each prediction, int64[P].
      false: 1 for a prediction whose centre lies in no true box, float64[P].
      new: number of true boxes that it is the first to hit, float64[P].
      truth: number of true boxes of each image, float64[N].
    """

    image: np.ndarray
    false: np.ndarray
    new: np.ndarray
    truth: np.ndarray


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
    found = sensitivities(ranked(images), weights=weights, rates=rates, release=release)
    return found.mean(axis=1)


def sensitivities(
    predictions: Ranked,
    *,
    weights: np.ndarray,
    rates: Sequence[float] = RATES,
    release: bool = False,
) -> np.ndarray:
    """Returns the sensitivity at each rate, float64[R, len(rates)]; see `froc`."""
    rule = _released if release else _at_rates
    found = np.full((len(weights), len(rates)), np.nan)
    for row, weight in enumerate(np.asarray(weights, np.float64)):
        positives, total = float(weight @ predictions.truth), float(weight.sum())
        if positives <= 0 or total <= 0:
            continue
        by_box = weight[predictions.image]
        sensitivity = np.cumsum(by_box * predictions.new) / positives
        per_image = np.cumsum(by_box * predictions.false) / total
        found[row] = rule(sensitivity, per_image, rates)
    return found


def ranked(images: Sequence[ImageBoxes]) -> Ranked:
    """Finds out what each prediction hits; equal scores come in the order of the images."""
    # What a prediction is first to hit is told by the predictions of its own image.
    rows = [_of_image(one, index) for index, one in enumerate(images)]
    empty = np.zeros(0)
    scores, image, false, new = (
        np.concatenate([empty, *(row[part] for row in rows)]) for part in range(4)
    )
    order = np.argsort(-scores, kind="stable")
    return Ranked(
        image=image[order].astype(np.int64),
        false=false[order],
        new=new[order],
        truth=np.asarray([len(one.truth) for one in images], np.float64),
    )


def _of_image(one: ImageBoxes, index: int) -> tuple[np.ndarray, ...]:
    """Returns score, image, and the fields `false` and `new` of the predictions of an image."""
    scores = np.asarray(one.scores, np.float64)
    order = np.argsort(-scores, kind="stable")
    boxes = np.asarray(one.boxes, np.float64).reshape(-1, 4)[order]
    truth = np.asarray(one.truth, np.float64).reshape(-1, 4)
    inside = _inside((boxes[:, :2] + boxes[:, 2:]) / 2, truth)
    new = np.zeros(len(boxes))
    if len(boxes):
        np.add.at(new, inside.argmax(axis=0)[inside.any(axis=0)], 1)
    false = np.asarray(~inside.any(axis=1), np.float64)
    return scores[order], np.full(len(boxes), float(index)), false, new


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


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns whether each point, float[P, 2], lies in each box, float[T, 4]: bool[P, T]."""
    low, high = boxes[None, :, :2], boxes[None, :, 2:]
    return np.all((low <= points[:, None]) & (points[:, None] <= high), axis=2)
