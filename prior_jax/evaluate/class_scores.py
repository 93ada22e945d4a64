"""Classifiers at validation: the area under the ROC curve of each class, and their mean."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.evaluate.metrics import auroc, mean_of_defined
from prior_jax.objectives.base import Classifies
from prior_jax.types import Batch

AUROC = "validation_macro_auroc"
"""Name of the mean area in the results of a validation, for `config.checkpoint.best_metric`."""

Scored = tuple[jax.Array, jax.Array, jax.Array]


def scored(objective: Classifies, model: object, batch: Batch) -> Scored:
    """Scores the images of a batch; call it under jit.

    Returns:
      Log-odds float32[B, K], targets float32[B, K], and float32[B, K], 1 for a known target of a
      real row.
    """
    target, known = objective.targets(batch.labels)
    odds = objective.classify(model, batch.image).astype(jnp.float32)
    return odds, target, known * batch.weight[:, None]


def area_of(parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Returns the mean area under the ROC curve over the classes, by its name.

    Args:
      parts: scores, targets and masks of the batches of one pass, on the host.

    Returns:
      `AUROC` -> mean over the classes that have a positive and a negative; empty where none has.

    Source: GLoRIA, MGCA and BenchX stop or report by the macro AUROC. A class without a positive
    or a negative is left out, where scikit-learn refuses it.
    """
    odds, target, known = (np.concatenate(part) for part in zip(*parts, strict=True))
    areas = [
        auroc(
            np.nan_to_num(odds[:, k]),
            target[:, k] > 0.5,
            weights=known[None, :, k],
        )[0]
        for k in range(odds.shape[1])
    ]
    mean = float(mean_of_defined(np.array(areas)))
    return {} if np.isnan(mean) else {AUROC: mean}
