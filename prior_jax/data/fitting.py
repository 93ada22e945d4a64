"""How an image of any shape becomes the square that a model takes."""

from typing import Literal

import numpy as np
from PIL import Image

from prior_jax.data import regions

Fit = Literal["stretch", "pad", "pad_evenly"]
Window = tuple[slice, slice]
"""Rows and columns of a part of an image."""

WHOLE: Window = (slice(None), slice(None))


def margins(shape: tuple[int, int], fit: Fit) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the black rows above and below an image, and the columns left and right of it.

    "stretch" has none. "pad" makes the image a square; of an odd gap the larger part is below or on
    the right. "pad_evenly" leaves the odd pixel out, so that the result is not quite a square, and
    a resize to one stretches it (quirk L12).

    Args:
      shape: height and width of the image in pixels.
      fit: the rule.

    Source: LoVT, release, src/models/image/scan_transforms.py, PadToSquare.
    """
    if fit == "stretch":
        return (0, 0), (0, 0)
    above, left = ((max(shape) - side) // 2 for side in shape)
    if fit == "pad_evenly":
        return (above, above), (left, left)
    height, width = shape
    return (above, max(shape) - height - above), (left, max(shape) - width - left)


def placed_margins(image: Image.Image, *, fit: Fit) -> tuple[Image.Image, regions.Transform]:
    """Adds the black margins that a rule asks for, and says where the pixels have gone.

    Args:
      image: image of mode "L" or "RGB".
      fit: the rule, see `margins`.
    """
    before = image.height, image.width
    (above, below), (left, right) = margins(before, fit)
    after = before[0] + above + below, before[1] + left + right
    place = regions.placed(top=above, left=left, before=before, after=after)
    if after == before:
        return image, place
    padded = Image.new(image.mode, (after[1], after[0]))
    padded.paste(image, (left, above))
    return padded, place


def resize(image: Image.Image, *, size: int, fit: Fit = "stretch") -> Image.Image:
    """Brings an image to a square, bilinear and antialiased.

    Args:
      image: image of mode "L" or "RGB".
      size: side of the square in pixels.
      fit: the rule, see `margins`.

    Source: release, configs/image_transformation.yaml (torchvision Resize on PIL images).
    """
    return placed_resize(image, size=size, fit=fit)[0]


def placed_resize(
    image: Image.Image, *, size: int, fit: Fit = "stretch"
) -> tuple[Image.Image, regions.Transform]:
    """Resizes as `resize` does, and says where the pixels have gone."""
    image, place = placed_margins(image, fit=fit)
    change = regions.resized(before=place.after, after=(size, size))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return image, place.then(change)


def resize_transform(shape: tuple[int, int], *, size: int, fit: Fit) -> regions.Transform:
    """Returns where `placed_resize` moves the pixels of an image.

    Args:
      shape: height and width of the image in pixels.
      size: side of the square in pixels.
      fit: the rule, see `margins`.
    """
    (above, below), (left, right) = margins(shape, fit)
    after = shape[0] + above + below, shape[1] + left + right
    place = regions.placed(top=above, left=left, before=shape, after=after)
    return place.then(regions.resized(before=after, after=(size, size)))


def seen_window(shape: tuple[int, int], *, size: int, fit: Fit) -> Window:
    """Returns the part of the square that shows the image: pixels of which at least half does.

    Args:
      shape: height and width of the image in pixels.
      size: side of the square in pixels.
      fit: the rule, see `margins`.
    """
    place = np.asarray(resize_transform(shape, size=size, fit=fit).matrix)
    start = place @ (0.0, 0.0, 1.0)
    end = place @ (float(shape[1]), float(shape[0]), 1.0)
    (left, right), (top, below) = (
        (min(round(float(a)), size - 1), max(round(float(b)), round(float(a)) + 1))
        for a, b in zip(start, end, strict=True)
    )
    return slice(top, below), slice(left, right)
