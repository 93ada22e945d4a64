"""Draws true and predicted masks and boxes over their images, for the page."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from prior_jax.evaluate import box_choice, box_file, mask_file, pictures
from prior_jax.evaluate.box_choice import OVERLAP
from prior_jax.evaluate.box_file import KeptBoxes, ShownImage
from prior_jax.evaluate.mask_file import KeptMasks, ShownMasks
from prior_jax.evaluate.pictures import Choice
from prior_jax.report import images, outlines

_KINDS = {"best": "Best", "median": "Median", "worst": "Worst"}
_TRUTH = outlines.TRUTH
# Bright ones of Okabe and Ito's colours; classes are told apart by their numbers, not by colour.
_COLOURS = ((86, 180, 233), (240, 228, 66), (230, 159, 0), (0, 158, 115), (204, 121, 167))
_TINT = 0.35
_DASH = 5
"""Length in pixels of the dashes of a true outline under a prediction, and of the gaps."""
_FONT_SIZE = 15
_FEW = 3
"""Number of regions that an alternative text describes one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """A mask or a box on an image.

    Attributes:
      inside: pixels of the drawn picture that it covers, bool[H, W].
      number: index of its class, from 0.
      tag: text that is drawn beside it: number of the class, from 1, and score.
    """

    inside: np.ndarray
    number: int
    tag: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionSheet:
    """The truth of one image beside the prediction.

    Attributes:
      heading: kind and rank of the image.
      truth: `data:` URI of the image with the true regions.
      predicted: `data:` URI of the image with the predicted and, dashed, the true regions.
      truth_alt: alternative text of the first.
      predicted_alt: alternative text of the second.
      values: score of the image in one line.
      origin: id of the study.
    """

    heading: str
    truth: str
    predicted: str
    truth_alt: str
    predicted_alt: str
    values: str
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionGallery:
    """The images of one task.

    Attributes:
      lead: sentences that say what is shown, and by which number the images were chosen.
      key: number and name of each class, as they are drawn; () for a single class.
      rows: title of each row, "" for images with a true region, and its images.
    """

    lead: str
    key: Sequence[tuple[int, str]]
    rows: Sequence[tuple[str, Sequence[RegionSheet]]]


def load(workdir: pathlib.Path, task: str, *, each: int = pictures.EACH) -> RegionGallery | None:
    """Draws what `eval/<task>.masks.npz` or `eval/<task>.boxes.npz` keeps.

    Args:
      workdir: folder of the results.
      task: name of the results.
      each: largest number of images of each kind.

    Returns:
      The images; None if neither file is there, or none of their images was chosen.

    Raises:
      DataError: if a file is damaged; the error names it.
    """
    masks = workdir / "eval" / f"{task}{mask_file.SUFFIX}"
    boxes = workdir / "eval" / f"{task}{box_file.SUFFIX}"
    if masks.is_file():
        return gallery_of_masks(mask_file.load(masks), each=each)
    if boxes.is_file():
        return gallery_of_boxes(box_file.load(boxes), each=each)
    return None


def gallery_of_masks(kept: KeptMasks, *, each: int = pictures.EACH) -> RegionGallery | None:
    """Draws the masks of a segmentation model; None if no image was chosen."""
    lead = (
        "The best, the median and the worst images by the Dice coefficient of the pixels of all "
        "classes of an image, among those that have a true mask; of those without one, the best "
        "has the fewest predicted pixels. On the left is the truth; on the right the prediction, "
        "tinted, and the truth again as a broken white line."
    )
    sheets = [(bool(one.truth.any()), one.choice, _masks(one, kept)) for one in kept.shown]
    return _gallery(lead, kept.classes, sheets, what="mask", each=each)


def gallery_of_boxes(kept: KeptBoxes, *, each: int = pictures.EACH) -> RegionGallery | None:
    """Draws the boxes of a detector; None if no image was chosen."""
    counts = box_choice.counts_of(kept.images, threshold=kept.threshold)
    lead = (
        "The best, the median and the worst images by F1, among those that have a true box: a box "
        f"is right if it overlaps a true one of its class by at least {OVERLAP:g} (IoU). Of those "
        "without a true box the best has the fewest predicted ones. Shown and counted are boxes "
        f"with a score of at least {kept.threshold:.3g}, the threshold with the best F1 of all "
        "these images together. On the left is the truth; on the right are the predicted boxes "
        "with their scores where there is room, and the truth again as a broken white line."
    )
    sheets = [
        (len(kept.images[one.choice.index].truth) > 0, one.choice, _boxes(one, kept, counts))
        for one in kept.shown
    ]
    return _gallery(lead, kept.classes, sheets, what="box", each=each)


def _gallery(
    lead: str,
    classes: Sequence[str],
    sheets: Sequence[tuple[bool, Choice, RegionSheet]],
    *,
    what: str,
    each: int,
) -> RegionGallery | None:
    """Arranges the sheets in rows: those with a true region by kind, then those without one."""
    rows: list[tuple[str, Sequence[RegionSheet]]] = []
    for kind in pictures.KINDS:
        found = [sheet for true, choice, sheet in sheets if true and choice.kind == kind]
        rows += [("", found[:each])] if found else []
    if each == 1 and rows:  # one of each kind: side by side
        rows = [("", [sheet for _, row in rows for sheet in row])]
    empty = [sheet for true, _, sheet in sheets if not true]
    rows += [(f"Images without a true {what}", empty)] if empty else []
    if not rows:
        return None
    if len(classes) > 1:
        lead += " The number beside a region is that of its class."
    key = list(enumerate(classes, start=1)) if len(classes) > 1 else []
    return RegionGallery(lead=lead, key=key, rows=rows)


def _masks(one: ShownMasks, kept: KeptMasks) -> RegionSheet:
    factor = outlines.factor_of(*one.image.shape)

    def regions(masks: np.ndarray) -> list[Region]:
        return [
            Region(
                inside=outlines.enlarged(masks[..., index], factor),
                number=index,
                tag=str(index + 1) if len(kept.classes) > 1 else "",
            )
            for index in range(len(kept.classes))
            if masks[..., index].any()
        ]

    dice = kept.dice_of_image[one.choice.index]
    share = 100 * one.predicted.any(axis=2).mean()
    values = f"Dice {dice:.3g}" if one.truth.any() else f"{share:.3g} % of the pixels predicted"
    return _sheet(
        one.image,
        one.choice,
        (regions(one.truth), regions(one.predicted)),
        classes=kept.classes,
        what=("mask", "masks"),
        values=values,
        study=kept.ids[one.choice.index],
    )


def _boxes(one: ShownImage, kept: KeptBoxes, counts: box_choice.BoxCounts) -> RegionSheet:
    index, factor = one.choice.index, outlines.factor_of(*one.image.shape)
    found = box_choice.above(kept.images[index], kept.threshold)
    several = len(kept.classes) > 1
    shape = tuple(side * factor for side in one.image.shape)

    def region(box: np.ndarray, number: int, score: float | None) -> Region:
        parts = [str(number + 1)] if several else []
        parts += [] if score is None else [f"{score:.2f}"]
        inside = box_inside(np.asarray(box, np.float64) * factor, shape)
        return Region(inside=inside, number=int(number), tag=": ".join(parts))

    truth = [region(*pair, None) for pair in zip(found.truth, found.truth_classes, strict=True)]
    predicted = [region(*row) for row in zip(found.boxes, found.classes, found.scores, strict=True)]
    right, missed, false = (
        int(part[index]) for part in (counts.found, counts.missed, counts.false)
    )
    values = f"{false} false"
    if truth:
        values = f"F1 {counts.f1[index]:.3g}: {right} found, {missed} missed, {false} false"
    return _sheet(
        one.image,
        one.choice,
        (truth, predicted),
        classes=kept.classes,
        what=("box", "boxes"),
        values=values,
        study=kept.ids[index],
    )


def box_inside(box: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns the pixels that a box covers, bool[H, W]; at least one, however small the box is.

    Args:
      box: x1, y1, x2, y2 in pixels of the picture, float[4].
      shape: height and width of the picture.
    """
    inside = np.zeros(tuple(shape), bool)
    spans = []
    for low, high, size in ((box[1], box[3], shape[0]), (box[0], box[2], shape[1])):
        first = int(np.clip(np.rint(low), 0, size - 1))
        spans.append(slice(first, int(np.clip(np.rint(high), first + 1, size))))
    inside[tuple(spans)] = True
    return inside


def _sheet(
    image: np.ndarray,
    choice: Choice,
    regions: tuple[list[Region], list[Region]],
    *,
    classes: Sequence[str],
    what: tuple[str, str],
    values: str,
    study: str,
) -> RegionSheet:
    truth, predicted = regions
    left, right = drawn(image, truth, predicted, tinted=what[0] == "mask")
    true, found = (_described(each, classes, what=what) for each in regions)
    return RegionSheet(
        heading=f"{_KINDS[choice.kind]}, rank {choice.rank:,} of {choice.count:,}",
        truth=images.data_uri(left),
        predicted=images.data_uri(right),
        truth_alt=f"Radiograph of {study} with the truth: {true}",
        predicted_alt=f"Radiograph of {study} with the prediction: {found} {values}.",
        values=values,
        origin=study,
    )


def drawn(
    image: np.ndarray, truth: Sequence[Region], predicted: Sequence[Region], *, tinted: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the truth and the prediction.

    Args:
      image: grey image, uint8[H, W].
      truth: true regions, bool[k H, k W] each, where k is `outlines.factor_of`.
      predicted: predicted regions, likewise.
      tinted: whether the inside of the predicted regions is tinted.

    Returns:
      The image with the true regions, and the image with the predicted ones in the colour of their
      class and the true ones as a broken white line: uint8[k H, k W, 3] each.
    """
    factor = outlines.factor_of(*image.shape)
    size = image.shape[1] * factor, image.shape[0] * factor
    grey = images.grey(image, limits=images.window(image))
    grey = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))
    left, right = (np.repeat(grey[..., None], 3, axis=-1) for _ in range(2))
    for one in truth:
        outlines.paint(left, *outlines.outline(one.inside), colour=_TRUTH)
        line, halo = outlines.outline(one.inside)
        dashes = _dashes(line.shape)
        outlines.paint(right, line & dashes, halo & dashes, colour=_TRUTH)
    for one in predicted:
        colour = np.asarray(_COLOURS[one.number % len(_COLOURS)], np.float64)
        if tinted:
            mixed = (1 - _TINT) * right[one.inside] + _TINT * colour
            right[one.inside] = np.rint(mixed).astype(np.uint8)
    for one in predicted:
        colour = _COLOURS[one.number % len(_COLOURS)]
        outlines.paint(right, *outlines.outline(one.inside), colour=colour)
    return _tagged(left, truth), _tagged(right, predicted)


def _dashes(shape: Sequence[int]) -> np.ndarray:
    """Returns the pixels of diagonal stripes, bool[H, W], which cut any line into dashes."""
    rows, columns = np.indices(tuple(shape))
    return (rows + columns) // _DASH % 2 == 0


def _tagged(picture: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """Writes the tag of each region over the corner of its largest part, white on black.

    A tag that would cover one before it is left out; boxes come from the highest score on.
    """
    page, taken = Image.fromarray(picture), np.zeros(picture.shape[:2], bool)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=_FONT_SIZE)
    for one in regions:
        if not one.tag:
            continue
        rows, columns = np.nonzero(_largest_part(one.inside))
        left, top, right, bottom = draw.textbbox((0, 0), one.tag, font=font)
        width, height = right - left + 4, bottom - top + 4
        # Above the region if there is room, and inside the picture.
        x = int(np.clip(columns.min() - 1, 0, max(page.width - width, 0)))
        y = int(np.clip(rows.min() - height - 2, 0, max(page.height - height, 0)))
        place = slice(y, y + height + 1), slice(x, x + width + 1)
        if taken[place].any():
            continue
        taken[place] = True
        draw.rectangle((x, y, x + width, y + height), fill=outlines.HALO)
        draw.text((x + 2 - left, y + 2 - top), one.tag, fill=_TRUTH, font=font)
    return np.asarray(page)


def _largest_part(inside: np.ndarray) -> np.ndarray:
    """Returns the largest connected part of a region, bool[H, W]."""
    parts, _ = ndimage.label(inside)  # type: ignore[misc]
    sizes = np.bincount(np.asarray(parts).ravel())
    sizes[0] = 0
    return np.asarray(parts) == sizes.argmax()


def _described(regions: Sequence[Region], classes: Sequence[str], *, what: tuple[str, str]) -> str:
    """Says in words where regions are."""
    if not regions:
        return f"no {what[0]}."
    told = [f"{classes[one.number]} {_extent(one.inside)}" for one in regions[:_FEW]]
    more = len(regions) - len(told)
    rest = f"; and {more} more" if more else ""
    return f"{len(regions)} {what[len(regions) > 1]}: {'; '.join(told)}{rest}."


def _extent(inside: np.ndarray) -> str:
    rows, columns = np.nonzero(inside)
    height, width = inside.shape
    across = f"{100 * columns.min() / width:.0f} to {100 * (columns.max() + 1) / width:.0f} %"
    down = f"{100 * rows.min() / height:.0f} to {100 * (rows.max() + 1) / height:.0f} %"
    return f"at {across} of the width and {down} of the height"
