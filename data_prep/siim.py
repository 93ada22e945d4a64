"""The SIIM-ACR pneumothorax table: masks, splits and samples.

Source: the competition's train-rle.csv; GLoRIA's release,
gloria/datasets/preprocess_datasets.py (preprocess_pneumothorax_data) and image_dataset.py
(PneumothoraxImageDataset).
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_prep.kit import values
from data_prep.kit.rle import NO_MASK
from data_prep.kit.row_cells import cells_of, required_id
from data_prep.kit.splits import HELD_OUT, shuffled_splits
from prior_jax.errors import DataError

_MASK = re.compile(r"\d+\s+\d+(?:\s+\d+\s+\d+)*+", re.ASCII)

Draws = np.random.Generator | np.random.RandomState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """One row; an image has one row for each of its masks, or a single row without a mask.

    Attributes:
      image_id: id of the image, which is also the name of its file.
      rle: run-length mask, see rle.py; "-1" for no mask.
    """

    image_id: str
    rle: str

    @property
    def target(self) -> int:
        """Returns 1 with a pneumothorax, else 0."""
        return int(self.rle != NO_MASK)


def annotations(rows: Iterable[Mapping[str, Any]]) -> list[Annotation]:
    """Reads the rows of either stage; the first stage has a space before the column and the "-1".

    The release looks for the space, so that every image of the second stage's table has a
    pneumothorax, and "-1" is read as a mask (quirk G46).

    Raises:
      DataError: if a column or image is missing, in which case the message names the row, or if a
        cell is not a mask or an image has rows with and without a mask, in which case it names the
        image.
    """
    found = []
    masked: dict[str, bool] = {}
    for place, row in enumerate(rows, 1):
        cells = cells_of(row, ("ImageId", "EncodedPixels"), place=place)
        image_id = required_id(cells, "ImageId", place=place)
        rle = _mask(cells["EncodedPixels"], image_id=image_id)
        if masked.setdefault(image_id, rle != NO_MASK) != (rle != NO_MASK):
            raise DataError(
                "The rows of the image have EncodedPixels with -1 and a mask, which contradict "
                "each other.",
                "Leave out the wrong row.",
                where=image_id,
            )
        found.append(Annotation(image_id=image_id, rle=rle))
    return found


def _mask(cell: Any, *, image_id: str) -> str:
    """Returns a mask as text, "-1" for no mask, which a data frame writes as -1.0."""
    text = "" if values.is_missing(cell) else str(cell).strip()
    if text in (NO_MASK, f"{NO_MASK}.0"):
        return NO_MASK
    if not _MASK.fullmatch(text):
        raise DataError(
            f"EncodedPixels is {str(cell)[:60]!r}, which is not a run-length mask.",
            'Write it as "offset length offset length ...", or as "-1" for no mask.',
            where=image_id,
        )
    return text


def drawn_splits(
    found: Sequence[Annotation], *, mode: Literal["paper", "release"]
) -> dict[str, np.ndarray]:
    """Draws the splits: 70 %, 15 % and 15 %.

    Args:
      found: all rows, in the table's order.
      mode: "paper" draws images; "release" draws rows, so that an image with several masks may be
        in several splits, with some of its masks in each (quirk G47).

    Returns:
      Split -> int64 positions in `found`, in the order drawn.
    """
    by_image = [annotation.image_id for annotation in found]
    by_row = [str(position) for position in range(len(found))]
    return shuffled_splits(by_row if mode == "release" else by_image, held_out=HELD_OUT, seed=0)


def balanced_images(found: Sequence[Annotation], *, rng: Draws) -> list[str]:
    """Chooses images of a split to train segmentation on: as many without a mask as with one.

    Args:
      found: rows of the split.
      rng: random generator that draws the images without a mask; the release uses a global
        `numpy.random.RandomState`.

    Returns:
      Ids of the images, each once, those with masks first.

    Raises:
      DataError: if fewer images are without a mask than with one.
    """
    positive = _unique(a.image_id for a in found if a.target)
    negative = _unique(a.image_id for a in found if not a.target)
    if len(negative) < len(positive):
        raise DataError(
            f"There are {len(negative)} images without a mask for {len(positive)} with one.",
            "Give at least as many images without a mask as with one.",
        )
    chosen = set(rng.choice(negative, size=len(positive), replace=False).tolist())
    return positive + [image_id for image_id in negative if image_id in chosen]


def part_of_images(images: Sequence[str], *, fraction: float, rng: Draws) -> list[str]:
    """Draws a fraction of some images, rounded down, and keeps their order."""
    size = int(len(images) * fraction)
    chosen = set(rng.choice(list(images), size=size, replace=False).tolist())
    return [image_id for image_id in images if image_id in chosen]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
