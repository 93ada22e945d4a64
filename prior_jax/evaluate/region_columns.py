"""What each column of segmentation and detection counts, and whose counting it is."""

import re
from collections.abc import Iterable, Mapping, Sequence

from prior_jax.evaluate.froc import RATES
from prior_jax.near_names import slug

_LOW = "mean over overlaps (IoU) of .40 to .75 and classes"

NAMES: Mapping[str, str] = {
    "pixel_dice": "Dice of all pixels",
    "mean_dice": "Mean Dice of the images",
    "mdice": "mDice with background",
    "iou": "IoU of all pixels",
    "coco_ap": "COCO AP",
    "coco_ap50": "COCO AP at IoU .50",
    "coco_ap75": "COCO AP at IoU .75",
    "map": "mAP at IoU .40 to .75",
    "lovt_map": "LoVT's mAP",
    "lovt_map50": "LoVT's mAP at IoU .50",
    "lovt_map75": "LoVT's mAP at IoU .75",
    "lovt_pos_map": "LoVT's mAP, images with a box",
    "lovt_pos_map50": "LoVT's mAP at IoU .50, images with a box",
    "lovt_pos_map75": "LoVT's mAP at IoU .75, images with a box",
    "mgca_map": "MGCA's mAP",
    "froc": "FROC",
    "lovt_froc": "LoVT's FROC",
    **{
        f"froc_at_{rate:g}".replace(".", "_"): f"Sensitivity at {rate:g} false boxes an image"
        for rate in RATES
    },
}
"""Words of the columns that other tasks do not have."""

MEANINGS: Mapping[str, Mapping[str, str]] = {
    "segmentation": {
        "pixel_dice": "Dice coefficient of the pixels of all images together, as LoVT counts it.",
        "mean_dice": (
            "Mean over the images of the Dice coefficient of each, as GLoRIA and MGCA count it. "
            "Two empty masks count 1: predicting nothing gives the share of images without a mask."
        ),
        "mdice": (
            "Mean of the Dice coefficients of lesion and background, each of all pixels together, "
            "as BenchX counts it. The background alone gives about 0.5."
        ),
        "miou": (
            "The same mean of the intersections over union, as BenchX counts it. The background "
            "alone gives about 0.5."
        ),
        "iou": (
            "Intersection over union of the lesion's pixels of all images together. LoVT's column "
            "of this name is the recall."
        ),
        "precision": "Share of the predicted pixels that lie in a true mask.",
        "recall": "Share of the pixels of true masks that are predicted.",
    },
    "detection": {
        "coco_ap": (
            "Average precision, mean over overlaps (IoU) of .50 to .95 and classes, as COCO and "
            "MaCo count it."
        ),
        "coco_ap50": "The same at an overlap of .50 alone, often called mAP@.5.",
        "coco_ap75": "The same at an overlap of .75 alone.",
        "map": f"Average precision by COCO's rules, {_LOW}, on all images.",
        "lovt_map": (
            f"Average precision, {_LOW}, as LoVT counts it: sides are x2 - x1 + 1 pixels, and an "
            "overlap has to be above the threshold."
        ),
        "lovt_map50": "The same at an overlap of .50 alone.",
        "lovt_map75": "The same at an overlap of .75 alone.",
        "lovt_pos_map": (
            "LoVT's counting on the images that have a true box alone, its columns pos_mAP. False "
            "boxes on other images cost nothing."
        ),
        "lovt_pos_map50": "The same at an overlap of .50 alone.",
        "lovt_pos_map75": "The same at an overlap of .75 alone.",
        "mgca_map": (
            f"Average precision by COCO's rules, {_LOW}, as MGCA counts it: on the images that "
            "have both a true box and a prediction alone. Missed images and false boxes on other "
            "images cost nothing."
        ),
        "froc": (
            "Sensitivity, mean over 1/8, 1/4, 1/2, 1, 2, 4 and 8 false boxes an image, as the "
            "Object-CXR challenge counts it: a box is right if its centre lies in a true one."
        ),
        "lovt_froc": "The same as LoVT's release counts it: each box reaches one rate at most.",
    },
}
"""Task that measures -> column -> what it counts, in the order of the table."""

BOUNDED = tuple(dict.fromkeys([*NAMES, *(name for one in MEANINGS.values() for name in one)]))
"""Columns whose values lie between 0 and 1, as do those of single classes, `<column>_<class>`."""


def kind_of(settings: Mapping[str, object]) -> str | None:
    """Returns "segmentation" or "detection", the task whose columns a results file has, or None."""
    found = {"segmenter": "segmentation", "detector": "detection"}
    return next((kind for name, kind in found.items() if name in settings), None)


def meanings(kind: str | None, columns: Iterable[str]) -> dict[str, str]:
    """Returns the column and the meaning of each of the columns that has one.

    Args:
      kind: kind from `kind_of`.
      columns: names of the metrics of a results file.
    """
    known, present = MEANINGS.get(kind or "", {}), set(columns)
    return {name: text for name, text in known.items() if name in present}


def in_words(column: str, classes: Sequence[str] = ()) -> str | None:
    """Returns the words of a column of all classes or of one of them; None if it is not known.

    Args:
      column: name of a metric, such as "pixel_dice" or "coco_ap50_edema".
      classes: names of the classes, if they are known; otherwise the class is what follows the
        column's name.
    """
    if column in NAMES:
        return NAMES[column]
    for label in classes:
        base = column.removesuffix(f"_{slug(label)}")
        if base != column and base in NAMES:
            return f"{NAMES[base]}: {label}"
    pattern = "|".join(sorted(map(re.escape, NAMES), key=len, reverse=True))
    found = None if classes else re.fullmatch(rf"({pattern})_(.+)", column)
    if found is None:
        return None
    return f"{NAMES[found[1]]}: {found[2].replace('_', ' ')}"
