"""Agreement of predicted masks with the true ones, in numpy."""

import numpy as np

from prior_jax.evaluate.metrics import mean_of_defined


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
      ValueError: if the shapes differ or a probability is not a number.

    Source: GLoRIA's release, gloria/lightning/segmentation_model.py, `get_dice`; the rule for
      empty masks is that of the SIIM-ACR pneumothorax challenge.
    """
    probability, truth = np.asarray(probability), np.asarray(truth)
    if probability.shape != truth.shape or probability.ndim < 2:
        raise ValueError(
            f"probability {probability.shape} and truth {truth.shape} must both have the shape "
            "[N, ...]"
        )
    if np.isnan(probability).any():
        raise ValueError(f"{int(np.isnan(probability).sum())} probabilities are not numbers")
    axes = tuple(range(1, truth.ndim))
    predicted, inside = probability > threshold, truth > 0.5
    both = np.sum(predicted & inside, axis=axes, dtype=np.float64)
    either = np.sum(predicted, axis=axes, dtype=np.float64) + np.sum(inside, axis=axes)
    return np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)


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
