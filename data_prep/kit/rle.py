"""Decodes the run-length masks of the SIIM-ACR pneumothorax data.

A mask is written as pairs "offset length" in column order, from the top left corner down; an
offset counts from the end of the previous run, not from the start of the image.

Source: the competition's data page; GLoRIA's release, gloria/datasets/image_dataset.py (rle2mask).
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from prior_jax.errors import DataError

NO_MASK = "-1"


def decode(
    rle: str,
    *,
    height: int,
    width: int,
    mode: Literal["paper", "release"] = "paper",
    name: str = "",
) -> np.ndarray:
    """Decodes one run-length mask.

    Args:
      rle: "offset length offset length ..."; "-1" for an empty mask.
      height: height of the image in pixels.
      width: width of the image in pixels.
      mode: "release" clips runs that leave the image, "paper" refuses them.
      name: name of the image, for errors; "" if whoever catches them knows it.

    Returns:
      bool[height, width].

    Raises:
      DataError: if the text is no such list, or if a run leaves the image; the message names the
        image.
    """
    mask = np.zeros(height * width, bool)
    if rle.strip() == NO_MASK:
        return mask.reshape(height, width)
    words = rle.split()
    said = f"The mask of image {name}" if name else "The mask"
    # Longer words are no pixels, and Python does not read numbers of thousands of digits.
    if not words or len(words) % 2 or not all(w.isdecimal() and len(w) < 99 for w in words):
        raise DataError(
            f"{said} is {rle[:60]!r}, which is not a run-length mask.",
            'Write it as "offset length offset length ...", or as "-1" for no mask.',
        )
    numbers = list(map(int, words))
    ends = list(itertools.accumulate(numbers))[1::2]  # integers of any size, which do not overflow
    if mode == "paper" and ends[-1] > mask.size:
        raise DataError(
            f"{said} has a run up to pixel {ends[-1]}, but the image has {mask.size} pixels.",
            'Give the height and width of the image that was annotated, or use mode="release", '
            "which clips such runs.",
        )
    for end, length in zip(ends, numbers[1::2], strict=True):
        mask[end - length : end] = True
    return mask.reshape(width, height).T


def union(
    rles: Sequence[str], *, height: int, width: int, mode: Literal["paper", "release"], name: str
) -> np.ndarray:
    """Decodes an image's masks into one; arguments, result and errors are as for `decode`."""
    masks = (decode(rle, height=height, width=width, mode=mode, name=name) for rle in rles)
    return np.logical_or.reduce([np.zeros((height, width), bool), *masks])


def encode(mask: np.ndarray) -> str:
    """Returns the run-length text of a mask, bool[H, W], as `decode` reads it; "-1" if empty."""
    flat = np.concatenate([[False], np.asarray(mask, bool).T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    begins, ends = edges[::2], edges[1::2]
    if not len(begins):
        return NO_MASK
    offsets = begins - np.concatenate([[0], ends[:-1]])
    return " ".join(map(str, np.stack([offsets, ends - begins], axis=1).ravel().tolist()))
