"""Agreement of predicted masks with the true ones, in numpy.

Three published "Dice" of the same task are three different numbers: LoVT counts the pixels of all
images together (`pixel_dice`), GLoRIA and MGCA take the mean over images (`image_dice`), and BenchX
the mean over lesion and background (`with_background`). All are made of the counts of each image.
"""

import dataclasses

import numpy as np

from prior_jax.evaluate.metrics import mean_of_defined


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskCounts:
    """Pixels of the masks of one class, in each of N images.

    Attributes:
      both: pixels in the predicted and in the true mask, int64[N].
      predicted: pixels in the predicted mask, int64[N].
      truth: pixels in the true mask, int64[N].
      pixels: all pixels, int64[N].
    """

    both: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    pixels: np.ndarray


def mask_counts(
    probability: np.ndarray, truth: np.ndarray, *, threshold: float = 0.5, inclusive: bool = False
) -> MaskCounts:
    """Counts the pixels of each image.

    Args:
      probability: probability of each pixel's mask, float[N, ...], in [0, 1].
      truth: true masks, [N, ...], in [0, 1]; above 0.5 is inside.
      threshold: probability above which a pixel is inside.
      inclusive: whether a pixel at the threshold is inside too; LoVT True, the others False.

    Raises:
      ValueError: if the shapes differ or a value is not a number from 0 to 1.
    """
    probability, truth = np.asarray(probability), np.asarray(truth)
    _check(probability, truth)
    axes = tuple(range(1, truth.ndim))
    predicted = probability >= threshold if inclusive else probability > threshold
    inside = truth > 0.5
    return MaskCounts(
        both=(predicted & inside).sum(axis=axes, dtype=np.int64),
        predicted=predicted.sum(axis=axes, dtype=np.int64),
        truth=inside.sum(axis=axes, dtype=np.int64),
        pixels=np.full(len(truth), truth[0].size if len(truth) else 0, np.int64),
    )


def joined(parts: list[MaskCounts]) -> MaskCounts:
    """Returns the counts of several batches as those of one set of images."""
    fields = [field.name for field in dataclasses.fields(MaskCounts)]
    return MaskCounts(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields}
    )


def pixel_scores(counts: MaskCounts, *, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Computes scores of the pixels of all images together.

    Args:
      counts: counts of N images.
      weights: R weightings of the images, float[R, N], >= 0.

    Returns:
      "dice", "iou", "precision" and "recall", float64[R] each; NaN where there is nothing to
      divide by. LoVT's release has 0 there, and its "IoU" is the recall (quirk L31).

    Source: LoVT's release, src/models/downstream/downstream_evaluation.py.
    """
    both, predicted, truth, _ = _weighted(counts, weights)
    return {
        "dice": _ratio(2 * both, predicted + truth),
        "iou": _ratio(both, predicted + truth - both),
        "precision": _ratio(both, predicted),
        "recall": _ratio(both, truth),
    }


def image_dice(counts: MaskCounts, *, weights: np.ndarray) -> np.ndarray:
    """Computes the mean over images of each image's Dice coefficient, float64[R].

    An image without a true mask counts 1 for an empty prediction and 0 otherwise.

    Args:
      counts: counts of N images.
      weights: R weightings of the images, float[R, N], >= 0.
    """
    weights = np.asarray(weights, np.float64)
    return _ratio(weights @ _dice(counts), weights.sum(axis=1))


def with_background(counts: MaskCounts, *, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Computes means over the lesion and the background, from all pixels together.

    Args:
      counts: counts of N images, of the lesion.
      weights: R weightings of the images, float[R, N], >= 0.

    Returns:
      "mdice" and "miou", float64[R]; a class without a pixel, predicted or true, is left out.

    Source: mmsegmentation 1.2.2, evaluation/metrics/iou_metric.py, IoUMetric, which BenchX reports
      in percent.
    """
    both, predicted, truth, pixels = _weighted(counts, weights)
    outside = pixels - predicted - truth + both
    classes = ((both, predicted, truth), (outside, pixels - predicted, pixels - truth))
    dice = np.stack([_ratio(2 * hit, one + other) for hit, one, other in classes])
    overlap = np.stack([_ratio(hit, one + other - hit) for hit, one, other in classes])
    return {"mdice": _mean_of_defined_columns(dice), "miou": _mean_of_defined_columns(overlap)}


def _mean_of_defined_columns(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each column without its NaN; NaN for a column of NaN alone."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))


def _weighted(counts: MaskCounts, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    weights = np.asarray(weights, np.float64)
    parts = (counts.both, counts.predicted, counts.truth, counts.pixels)
    return tuple(weights @ part for part in parts)


def _dice(counts: MaskCounts) -> np.ndarray:
    """Returns the Dice coefficient of each image, float64[N]; 1 for two empty masks."""
    either = counts.predicted + counts.truth
    return np.where(either > 0, 2 * counts.both / np.maximum(either, 1), 1.0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    below = np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _check(probability: np.ndarray, truth: np.ndarray) -> None:
    if probability.shape != truth.shape or probability.ndim < 2:
        raise ValueError(
            f"probability {probability.shape} and truth {truth.shape} must both have the shape "
            "[N, ...]"
        )
    if np.isnan(probability).any():
        raise ValueError(f"{int(np.isnan(probability).sum())} probabilities are not numbers")
    for name, values in (("probability", probability), ("truth", truth)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"{name} must lie from 0 to 1, and goes from {values.min()} to {values.max()}: "
                "give probabilities rather than logits, and masks of 0 and 1, not of 0 and 255"
            )


def mask_dice(probability: np.ndarray, truth: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """Computes the Dice coefficient of each image.

    Without a true mask, it is 1 for an empty prediction and 0 otherwise.

    Args:
      probability: probability of each pixel's mask, float[N, ...], in [0, 1].
      truth: true masks, [N, ...], in [0, 1]; above 0.5 is inside (masks are soft where they were
        shrunk).
      threshold: threshold above which a probability is inside.

    Returns:
      Dice coefficients, float64[N], 0 to 1.

    Raises:
      ValueError: if the shapes differ or a value is not a number from 0 to 1.

    Source: GLoRIA's release, gloria/lightning/segmentation_model.py, `get_dice`; the rule for
      empty masks is that of the SIIM-ACR pneumothorax challenge.
    """
    return _dice(mask_counts(probability, truth, threshold=threshold))


def mean_dice(values: np.ndarray, *, release_batch: int | None = None) -> float:
    """Averages `mask_dice` over images.

    Args:
      values: Dice coefficients, float[N].
      release_batch: batch size of the release's averaging; None weights every image equally. The
        release averages over the images of each batch and then over batches, so that the images of
        a smaller last batch count more (quirk G64).

    Returns:
      Mean, 0 to 1; NaN without an image.

    Raises:
      ValueError: if `values` is not a list of numbers or the batch is not positive.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or (release_batch is not None and release_batch < 1):
        raise ValueError(
            f"values {values.shape} must have the shape [N], and release_batch {release_batch} "
            "must be None or at least 1"
        )
    if release_batch is not None:
        starts = range(0, len(values), release_batch)
        values = np.asarray([values[start : start + release_batch].mean() for start in starts])
    return float(mean_of_defined(values))
