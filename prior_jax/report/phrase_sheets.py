"""Draws the phrases of a grounding task over their images, for the page."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from prior_jax.evaluate import pictures
from prior_jax.evaluate.pictures import PhrasePicture
from prior_jax.report import images, outlines

_CROSS = (255, 60, 170)
_CROSS_ARM = 7
# Share of the light that is left where the model saw nothing.
_DIMMED = 0.35
_NAMES = {
    "miou": "mIoU",
    "cnr": "signed CNR",
    "cnr_signed": "signed CNR",
    "pointing": "pointing",
    "attention_ratio": "attention ratio",
}
_KINDS = {"best": "Best", "median": "Median", "worst": "Worst"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhraseSheet:
    """One phrase over its image.

    Attributes:
      heading: kind and rank of the phrase.
      plain: `data:` URI of the image with the outline of the true region.
      mapped: `data:` URI of the image with the map, the outline and a cross at the maximum.
      plain_alt: alternative text of the first.
      mapped_alt: alternative text of the second.
      text: the phrase.
      values: metrics of the phrase in one line.
      origin: class and study.
    """

    heading: str
    plain: str
    mapped: str
    plain_alt: str
    mapped_alt: str
    text: str
    values: str
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """The phrases of one task.

    Attributes:
      lead: sentence that says what is shown, and by which metric it was chosen.
      rows: best, median and worst phrases; one row of all three if there is one of each.
    """

    lead: str
    rows: Sequence[Sequence[PhraseSheet]]


def gallery(shown: Sequence[PhrasePicture], *, each: int = pictures.EACH) -> Gallery | None:
    """Draws the phrases of a task.

    Args:
      shown: pictures of the task, from `pictures.load`.
      each: largest number of phrases of each kind.

    Returns:
      The drawn phrases; None if there are none.
    """
    if not shown:
        return None
    rows = [[one for one in shown if one.choice.kind == kind][:each] for kind in pictures.KINDS]
    by = _NAMES[next(iter(shown[0].values))]
    seen = all(not np.isnan(one.heat).any() for row in rows for one in row)
    count = shown[0].choice.count
    lead = (
        f"The best, the median and the worst by {by}, of {count:,} phrases. "
        "White is the outline of the true region; the cross is where the map is greatest. Each map "
        "is stretched to its own range."
    )
    if not seen:
        lead += " The model did not see what is dark."
    if max(map(len, rows)) == 1:  # one of each kind: side by side
        rows = [[one for row in rows for one in row]]
    return Gallery(lead=lead, rows=[[sheet_of(one) for one in row] for row in rows if row])


def sheet_of(one: PhrasePicture) -> PhraseSheet:
    """Draws one phrase, and says in words what is seen."""
    choice = one.choice
    plain, mapped = drawn(one)
    return PhraseSheet(
        heading=f"{_KINDS[choice.kind]}, rank {choice.rank:,} of {choice.count:,}",
        plain=images.data_uri(plain),
        mapped=images.data_uri(mapped),
        plain_alt=f"Radiograph of {one.title}. {_region(one)}",
        mapped_alt=f"Map of “{one.text}” over {one.title}. {_greatest(one)}",
        text=one.text,
        values=", ".join(
            f"{_NAMES.get(name, name)} {_number(name, value)}" for name, value in one.values.items()
        ),
        origin=f"{one.label}, {one.title}",
    )


def _number(name: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    # A phrase hits or misses, unless the map is greatest at several pixels.
    tied = name == "pointing" and 0 < value < 1
    return f"{value:.3g}{' (share of the greatest pixels)' if tied else ''}"


def drawn(one: PhrasePicture) -> tuple[np.ndarray, np.ndarray]:
    """Draws a phrase.

    Args:
      one: picture of the phrase, of H x W pixels.

    Returns:
      The image with the outline of the region, and the same under the map of the phrase with a
      cross at its maximum: uint8[k H, k W, 3] each, where k is 1 unless the image is small. The
      edge of the region runs in the middle of the white line, which is 2 pixels wide.
    """
    height, width = one.image.shape
    factor = outlines.factor_of(height, width)
    size = width * factor, height * factor
    grey = images.grey(one.image, limits=images.window(one.image))
    grey = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))
    truth, unseen = (outlines.enlarged(x, factor) for x in (one.truth, np.isnan(one.heat)))
    heat = Image.fromarray(np.nan_to_num(one.heat)).resize(size, Image.Resampling.BILINEAR)
    plain = np.repeat(grey[..., None], 3, axis=-1)
    mapped = images.overlay(grey, np.asarray(heat))
    for picture in (plain, mapped):
        picture[unseen] = np.rint(picture[unseen] * _DIMMED)
        outlines.paint(picture, *outlines.outline(truth), colour=outlines.TRUTH)
    place = greatest(one)
    if place is not None:
        row, column = (int((p + 0.5) * factor) for p in place)
        outlines.paint(mapped, *_cross(row, column, shape=grey.shape), colour=_CROSS)
    return plain, mapped


def greatest(one: PhrasePicture) -> tuple[int, int] | None:
    """Returns row and column of the maximum of a map; None if it is constant or was not seen."""
    heat = np.nan_to_num(one.heat, nan=-1.0)
    seen = one.heat[~np.isnan(one.heat)]
    if not seen.size or np.ptp(seen) == 0:
        return None
    # The middle of the pixels that share the maximum, or the one of them that is nearest to it.
    places = np.argwhere(heat == heat.max())
    distance = np.abs(places - places.mean(axis=0)).sum(axis=1)
    row, column = places[distance.argmin()].tolist()
    return row, column


def _cross(row: int, column: int, *, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a cross and those of its halo, bool[H, W] each."""
    down = np.abs(np.arange(shape[0]) - row)[:, None]
    across = np.abs(np.arange(shape[1]) - column)
    line = ((down <= 1) & (across <= _CROSS_ARM)) | ((across <= 1) & (down <= _CROSS_ARM))
    wide = np.asarray(ndimage.binary_dilation(line, np.ones((3, 3), bool)), bool)
    return line, wide & ~line


def _region(one: PhrasePicture) -> str:
    rows, columns = np.nonzero(one.truth)
    if not rows.size:
        return "No true region is left at this size."
    height, width = one.truth.shape
    return (
        f"The true region reaches from {100 * columns.min() / width:.0f} % to "
        f"{100 * (columns.max() + 1) / width:.0f} % of the width and from "
        f"{100 * rows.min() / height:.0f} % to {100 * (rows.max() + 1) / height:.0f} % of the "
        "height."
    )


def _greatest(one: PhrasePicture) -> str:
    place = greatest(one)
    if place is None:
        return "The map is the same everywhere."
    row, column = place
    height, width = one.truth.shape
    where = "inside" if one.truth[row, column] else "outside"
    return (
        f"It is greatest at {100 * column / width:.0f} % of the width and "
        f"{100 * row / height:.0f} % of the height, {where} the true region."
    )
