"""Run-length masks of the SIIM-ACR pneumothorax data.

A mask is written as pairs "offset length" in column order, from the top left corner down; an
offset counts from the end of the run before, not from the start of the image.

Source: the competition's data page; GLoRIA's release, gloria/datasets/image_dataset.py (rle2mask).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from prior_jax.errors import DataError

NO_MASK = "-1"


def decode(
    rle: str, *, height: int, width: int, mode: Literal["paper", "release"] = "paper", name: str
) -> np.ndarray:
    """Draws one run-length mask.

    Args:
      rle: "offset length offset length ..."; "-1" for an empty mask.
      height: of the image, pixels.
      width: of the image, pixels.
      mode: "release" cuts off what lies outside the image, "paper" refuses it.
      name: of the image, for errors.

    Returns:
      bool[height, width].

    Raises:
      DataError: naming the image, if the text is no such list or leaves the image.
    """
    mask = np.zeros(height * width, bool)
    if rle.strip() == NO_MASK:
        return mask.reshape(height, width)
    numbers = rle.split()
    if not numbers or len(numbers) % 2 or not all(number.isdecimal() for number in numbers):
        raise DataError(f"{name}: mask", received=rle[:60], accepted='"offset length ..." or "-1"')
    runs = np.array(numbers, np.int64).reshape(-1, 2)
    ends = runs.sum(axis=1).cumsum()
    if mode == "paper" and ends[-1] > mask.size:
        raise DataError(
            f"{name}: mask", received=f"a run up to {ends[-1]}", accepted=f"{mask.size} pixels"
        )
    for end, (_, length) in zip(ends, runs, strict=True):
        mask[end - length : end] = True
    return mask.reshape(width, height).T


def union(
    rles: Sequence[str], *, height: int, width: int, mode: Literal["paper", "release"], name: str
) -> np.ndarray:
    """Draws an image's masks into one; arguments, result and errors as of `decode`."""
    masks = (decode(rle, height=height, width=width, mode=mode, name=name) for rle in rles)
    return np.logical_or.reduce([np.zeros((height, width), bool), *masks])
