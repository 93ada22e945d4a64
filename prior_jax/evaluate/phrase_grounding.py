"""Phrase grounding: whether the map of a phrase lies on the boxes that belong to it.

mIoU, contrast to noise and the pointing game, each as a mean over the phrases of a class and then
over classes, as in BioViL (arXiv:2204.09817, sec. 4.3). BioViL released no code of a metric. MaCo
(arXiv:2309.05904) did, in eval/common.py and eval/metric.py; what is wrong there is a switch of
`GroundingRule`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from prior_jax import near_names
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import metrics

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""BioViL's thresholds of a map of cosines; MaCo's of a map that is scaled to -1 to 1."""

Overlap = Literal["clip", "add"]
Ties = Literal["share", "any"]
Unseen = Literal["left_out", "missed"]

# Values this close to the maximum count as equal to it, as a share of the range of the map.
_TIE = 5e-7


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroundingRule:
    """How maps and boxes are compared.

    Attributes:
      thresholds: thresholds above which a pixel of the map is predicted, float, -1 to 1; of the
        map's range, or of its values, see `similarity_map.phrase_map`.
      overlap: value of pixels in several boxes of a phrase: "clip" makes it 1; "add" counts boxes,
        so that contrast leaves such pixels out and Dice counts them twice, as MaCo's release does
        (quirk C21).
      ties: a map whose maximum is at several pixels: "share" scores the share of them inside, so
        that a constant map scores as a random pixel; "any" scores 1 if one of them is inside, as
        MaCo's release does (quirk C24).
      unseen: a phrase whose boxes lie where the crop removed pixels: "left_out" of every mean;
        "missed" loses the pointing game and has no IoU, so that the mean over all phrases has none
        either, as in MaCo's release (quirk C22).
      digits: digits that a table is rounded to; None keeps all. MaCo's release has 3.
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    overlap: Overlap = "clip"
    ties: Ties = "share"
    unseen: Unseen = "left_out"
    digits: int | None = None

    def __post_init__(self):
        """Refuses unknown choices."""
        for field, choices in (("overlap", Overlap), ("ties", Ties), ("unseen", Unseen)):
            if getattr(self, field) not in get_args(choices):
                must_be = "one of " + ", ".join(map(repr, get_args(choices)))
                raise ConfigError.of_value(field, getattr(self, field), must_be)
        if not self.thresholds or not all(-1 <= t < 1 for t in self.thresholds):
            raise ConfigError.of_value(
                "thresholds", self.thresholds, "a list of numbers of at least -1 and below 1"
            )


MACO = GroundingRule(overlap="add", ties="any", unseen="missed", digits=3)
"""MaCo's release; its map is the dot product, see `similarity_map.patch_text_cosine`."""


def boxes_to_mask(
    boxes: Sequence[Sequence[int]], *, shape: tuple[int, int], overlap: Overlap = "clip"
) -> np.ndarray:
    """Draws the boxes of a phrase.

    Args:
      boxes: left, top, width and height of each box, in whole pixels; what lies outside the image
        is cut off.
      shape: size (H, W) of the image.
      overlap: value of pixels in several boxes, see `GroundingRule`.

    Returns:
      Number of boxes at each pixel, int64[H, W]; at most 1 with "clip".
    """
    mask = np.zeros(shape, np.int64)
    for left, top, width, height in boxes:
        rows = slice(max(top, 0), max(top + height, 0))
        mask[rows, max(left, 0) : max(left + width, 0)] += 1
    return np.minimum(mask, 1) if overlap == "clip" else mask


def box_in_padded_square(
    box: Sequence[float], *, width: int, height: int, side: int
) -> tuple[int, int, int, int]:
    """Moves a box with its image, which is padded to a square in the middle and resized.

    Args:
      box: left, top, width and height in the image, in pixels.
      width: width of the image, in pixels.
      height: height of the image, in pixels.
      side: side of the square, in pixels.

    Returns:
      Left, top, width and height in the square, each rounded down. MaCo's release moves the boxes
      of every image so, but squashes the image itself (quirk C23): use it with padded images alone.

    Source: MaCo's release, eval/box_transfer.py, `box_transfer`.
    """
    scale = side / float(max(width, height))
    margin = [(side - int(float(length) * scale)) // 2 for length in (width, height)]
    margin[0 if width >= height else 1] = 0
    left, top, wide, high = (np.floor(value * scale) for value in box)
    return int(left + margin[0]), int(top + margin[1]), int(wide), int(high)


def overlaps(
    pixels: np.ndarray, mask: np.ndarray, *, thresholds: Sequence[float]
) -> dict[str, np.ndarray]:
    """Compares the pixels above each threshold with the boxes.

    Args:
      pixels: map of the phrase, float[H, W], NaN where the model saw nothing.
      mask: number of boxes at each pixel, int[H, W] or bool[H, W].
      thresholds: T thresholds; a pixel above one is predicted.

    Returns:
      `iou`, `dice`, `recall` and `precision`, float64[T]; NaN where no visible pixel is in a box,
      precision also where none is predicted.
    """
    seen = ~np.isnan(pixels)
    truth, heat = np.asarray(mask, np.float64)[seen], pixels[seen]
    found = {name: np.full(len(thresholds), np.nan) for name in ("iou", "dice", "recall")}
    found["precision"] = np.full(len(thresholds), np.nan)
    inside = truth > 0
    if not inside.any():
        return found
    for index, threshold in enumerate(thresholds):
        given = heat > threshold
        both = float((given & inside).sum())
        found["iou"][index] = both / (given | inside).sum()
        found["dice"][index] = 2 * both / (truth.sum() + given.sum())
        found["recall"][index] = both / truth.sum()
        if given.any():
            found["precision"][index] = both / given.sum()
    return found


def contrast_to_noise(pixels: np.ndarray, mask: np.ndarray) -> float:
    """Computes the difference of the means inside and outside, in units of their spread, signed.

    BioViL's is the absolute value, with which a map that avoids the finding scores as well as one
    that lies on it; MaCo's code keeps the sign (quirk C22). `phrase_values` gives both.

    Args:
      pixels: map, float[H, W], NaN where the model saw nothing.
      mask: number of boxes at each pixel, int[H, W]; pixels in several boxes count neither way.

    Returns:
      Ratio; 0 for a constant map, NaN where all visible pixels are inside, or all outside.
    """
    seen, mask = ~np.isnan(pixels), np.asarray(mask, np.int64)
    inside, outside = pixels[seen & (mask == 1)], pixels[seen & (mask == 0)]
    if not inside.size or not outside.size:
        return float("nan")
    spread = np.sqrt(inside.var() + outside.var())
    return float((inside.mean() - outside.mean()) / spread) if spread > 0 else 0.0


def pointing(pixels: np.ndarray, mask: np.ndarray, *, ties: Ties) -> float:
    """Computes whether the maximum of a map lies in a box.

    Args:
      pixels: map, float[H, W], NaN where the model saw nothing.
      mask: number of boxes at each pixel, int[H, W] or bool[H, W].
      ties: see `GroundingRule`.

    Returns:
      1.0, 0.0 or a share; NaN if the model saw nothing.
    """
    seen = ~np.isnan(pixels)
    if not seen.any():
        return float("nan")
    heat, inside = pixels[seen], np.asarray(mask)[seen] > 0
    # Pixels between two patches may differ from the maximum by rounding alone.
    near = heat.max() - _TIE * np.ptp(heat)
    greatest = inside[heat >= near] if ties == "share" else inside[heat == heat.max()]
    return float(greatest.mean() if ties == "share" else greatest.any())


def phrase_values(pixels: np.ndarray, mask: np.ndarray, *, rule: GroundingRule) -> dict[str, float]:
    """Computes the metrics of one phrase.

    Args:
      pixels: map of the phrase from `similarity_map.phrase_map`, float[H, W].
      mask: boxes of the phrase from `boxes_to_mask`, or a mask of the finding, [H, W].
      rule: thresholds and switches.

    Returns:
      `miou`, `mdice`, `mrecall`, `mprecision` (means over the thresholds), `iou_at_<threshold>` and
      so on for each, `cnr` (absolute), `cnr_signed` and `pointing`. All are NaN for a phrase whose
      boxes the model did not see.

    Raises:
      DataError: if the mask has another size than the map, or no box.
    """
    mask = np.asarray(mask, np.int64)
    if mask.shape != pixels.shape:
        raise DataError(
            f"The mask is {mask.shape} pixels and the map of the phrase is {pixels.shape}.",
            "Give both the size of the original image.",
        )
    if not mask.any():
        raise DataError(
            "The phrase has no box inside the image.", "Leave phrases without a box out."
        )
    if rule.overlap == "clip":
        mask = np.minimum(mask, 1)
    each = overlaps(pixels, mask, thresholds=rule.thresholds)
    found = {f"m{name}": _mean(values) for name, values in each.items()}
    for name, values in each.items():
        for threshold, value in zip(rule.thresholds, values, strict=True):
            found[f"{name}_at_{threshold:g}"] = float(value)
    signed = contrast_to_noise(pixels, mask)
    point = pointing(pixels, mask, ties=rule.ties)
    if rule.unseen == "left_out" and not mask[~np.isnan(pixels)].any():
        point = float("nan")
    return {**found, "cnr": abs(signed), "cnr_signed": signed, "pointing": point}


def class_rows(
    values: Mapping[str, np.ndarray],
    categories: Sequence[str],
    *,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Averages the values of phrases over each class and then over classes.

    Args:
      values: value of each phrase by metric, float[N], from `phrase_values`; NaN is left out.
      categories: class of each phrase, [N].
      weights: R weightings of the phrases, float[R, N], >= 0.

    Returns:
      `macro_<metric>` and `<metric>_<class>`, float64[R] each; classes are in alphabetical order.

    Raises:
      ConfigError: if two classes have one name in the metrics.
    """
    names = np.asarray(categories, dtype=object).astype(str)
    near_names.check_classes(np.unique(names).tolist(), where="task.classes")
    found: dict[str, np.ndarray] = {}
    for metric, column in values.items():
        each = {}
        for name in np.unique(names):
            rows = names == name
            each[f"{metric}_{near_names.slug(str(name))}"] = metrics.weighted_mean(
                np.asarray(column)[rows], weights=weights[:, rows]
            )
        found[f"macro_{metric}"] = metrics.mean_of_defined(np.stack(list(each.values()), axis=-1))
        found |= each
    return found


def table(
    phrases: Sequence[Mapping[str, float]], categories: Sequence[str], *, rule: GroundingRule
) -> dict[str, np.ndarray]:
    """Lists the means at each threshold and then over the thresholds, in the form of MaCo's table.

    Args:
      phrases: values of each phrase from `phrase_values`.
      categories: class of each phrase.
      rule: the rule of the values; `digits` rounds the table, and `unseen` tells whether a phrase
        without a value leaves the mean over phrases without one.

    Returns:
      float64[T + 1] by column: `iou`, `dice`, `recall`, `precision`, `cnr` and `pointing` as means
      over phrases, `<column>_cat` as means over classes, and `<column>_<class>`. `cnr` is signed
      in it.
    """
    steps = [f"{threshold:g}" for threshold in rule.thresholds]
    columns: dict[str, list[np.ndarray]] = {
        name: [np.array([phrase[f"{name}_at_{step}"] for phrase in phrases]) for step in steps]
        for name in ("iou", "dice", "recall", "precision")
    }
    for name, key in (("cnr", "cnr_signed"), ("pointing", "pointing")):
        columns[name] = [np.array([phrase[key] for phrase in phrases])] * len(steps)
    once = np.ones((1, len(phrases)))
    found: dict[str, list[float]] = {}
    for name, at_steps in columns.items():
        for values in at_steps:
            overall = _mean(values) if rule.unseen == "left_out" else float(np.mean(values))
            found.setdefault(name, []).append(overall)
            for key, mean in class_rows({name: values}, categories, weights=once).items():
                key = f"{name}_cat" if key.startswith("macro_") else key
                found.setdefault(key, []).append(float(mean[0]))
    rounded = {name: np.array([*values, np.mean(values)]) for name, values in found.items()}
    if rule.digits is not None:
        rounded = {name: values.round(rule.digits) for name, values in rounded.items()}
    return rounded


def _mean(values: np.ndarray) -> float:
    return float(metrics.mean_of_defined(values))
