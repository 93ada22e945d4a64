"""The model's images as grey pictures, for the report."""

from collections.abc import Sequence

import numpy as np

from launch.evaluation.subject import Opened
from prior_jax.evaluate.features import fitting


def grey_of(image: np.ndarray, data: Opened) -> np.ndarray:
    """Returns the first channel of a normalised image, float[H, W, C], in grey, uint8[H, W]."""
    mean, std = data.split.statistics()
    grey = np.rint(255 * (np.asarray(image)[..., 0] * std[0] + mean[0]))
    return np.clip(grey, 0, 255).astype(np.uint8)


def grey_images(data: Opened, records: Sequence[int], *, batch_size: int) -> dict[int, np.ndarray]:
    """Reads the images of some records of a split once more.

    Args:
      data: split to read.
      records: indices of the records, ascending.
      batch_size: number of images that are read at once.

    Returns:
      Record -> grey image, uint8[H, W].
    """
    if not records:
        return {}
    found: dict[int, np.ndarray] = {}
    size = fitting(batch_size, len(records))
    chosen = np.asarray(records)
    with data.split.eval_batches(batch_size=size, require_text=False, records=chosen) as batches:
        for _, batch in batches:
            for image, record, weight in zip(batch.image, batch.record, batch.weight, strict=True):
                if weight > 0:
                    found[int(record)] = grey_of(np.asarray(image), data)
    return found
