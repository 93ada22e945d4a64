"""Segmentation at validation: the Dice coefficient of each published counting."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.evaluate import segmentation
from prior_jax.evaluate.metrics import mean_of_defined
from prior_jax.objectives.base import Segments
from prior_jax.objectives.segmentation import masks_of
from prior_jax.types import Batch

DICE = "validation_dice"
"""Mean over the classes of the Dice coefficient of the pixels of all images (LoVT)."""
IMAGE_DICE = "validation_image_dice"
"""The same of the mean over images of each image's coefficient (GLoRIA, MGCA)."""
BACKGROUND_DICE = "validation_mdice"
"""The same of the mean of the coefficients of lesion and background (BenchX)."""
NAMES = (DICE, IMAGE_DICE, BACKGROUND_DICE)
"""Names of the numbers of a validation, for `config.checkpoint.best_metric`."""

Counted = tuple[jax.Array, ...]


def scored(objective: Segments, model: object, batch: Batch) -> Counted:
    """Counts the pixels of the images of a batch at a probability of one half; call it under jit.

    Returns:
      Pixels in the predicted and the true mask, in the predicted and in the true one, int32[B, K]
      each; all pixels, int32[B]; the weights of the rows, float32[B].
    """
    odds = objective.segment(model, batch.image)
    pixels = jnp.full(batch.weight.shape, odds.shape[1] * odds.shape[2], jnp.int32)
    return *counts(odds > 0, masks_of(batch)), pixels, batch.weight


def counts(predicted: jax.Array, truth: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Counts the pixels of masks, bool[B, H, W, K], in both, the first and the second.

    Returns:
      int32[B, K] each.
    """

    def pixels(mask: jax.Array) -> jax.Array:
        return jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)

    return pixels(predicted & truth), pixels(predicted), pixels(truth)


def dice_of(parts: Sequence[tuple[np.ndarray, ...]]) -> dict[str, float]:
    """Computes the numbers of `NAMES` that are defined.

    Args:
      parts: what `scored` returns for the batches of one pass, on the host.

    Returns:
      Without a true mask there is none: every empty prediction would be right.
    """
    *counted, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    real = weight > 0
    *columns, pixels = (part[real].astype(np.int64) for part in counted)
    if not columns[2].any():
        return {}
    weights = np.ones((1, int(real.sum())))
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for one in zip(*(part.T for part in columns), strict=True):
        each = segmentation.MaskCounts(both=one[0], predicted=one[1], truth=one[2], pixels=pixels)
        found[DICE].append(segmentation.pixel_scores(each, weights=weights)["dice"][0])
        found[IMAGE_DICE].append(segmentation.image_dice(each, weights=weights)[0])
        found[BACKGROUND_DICE].append(
            segmentation.with_background(each, weights=weights)["mdice"][0]
        )
    return {name: float(mean_of_defined(np.asarray(values))) for name, values in found.items()}
