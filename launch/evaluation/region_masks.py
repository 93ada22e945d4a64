"""The masks of findings from the boxes and masks that a set's own records hold."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from launch.evaluation.subject import Opened
from prior_jax.data import fitting, regions
from prior_jax.data.image import ImageConfig
from prior_jax.data.schema import Record

LUNGS: Mapping[str, tuple[float, float]] = {"right": (0.46, 0.27), "left": (0.47, 0.72)}
"""Usual centres of the patient's lungs as (row, column), in shares of an image's height and width.

They are for sets that hold no masks of lungs: the mean centres of the lung boxes of 175 frontal
radiographs of the COVID-19 Image Data Collection (arXiv:2006.11988; 115 PA, 60 AP), with standard
deviations of 0.06 in rows and 0.04 in columns.
"""


def left_out(opened: Opened, *, split: str) -> str:
    """Says how many regions lie on images that are not measured.

    Args:
      opened: split to read.
      split: name of the split.

    Returns:
      Sentence without its full stop; "" if all regions are on the first images of their studies.
    """
    count = sum(opened.later_regions)
    if not count:
        return ""
    one = count == 1
    lie = f"region of split {split!r} lies" if one else f"regions of split {split!r} lie"
    return (
        f"{count} {lie} on {'another image' if one else 'other images'} than the first of a study, "
        f"which alone is measured, and {'is' if one else 'are'} left out"
    )


def stored_shape(record: Record) -> tuple[int, int]:
    """Returns height and width in pixels of the first image of a record, as it is stored."""
    with Image.open(io.BytesIO(record.images[0])) as image:
        return image.height, image.width


def seen_windows(opened: Opened, *, image: ImageConfig) -> dict[int, fitting.Window]:
    """Returns the part of the model's image that shows the stored image, by record.

    Args:
      opened: split to read.
      image: settings of the model's images.

    Returns:
      Record -> rows and columns; {} where the image fills the square.
    """
    if image.fit == "stretch":
        return {}
    return {
        index: fitting.seen_window(
            stored_shape(opened.record(index)), size=image.size, fit=image.fit
        )
        for index in range(len(opened.split))
    }


def region_masks(opened: Opened, *, image: ImageConfig) -> dict[str, dict[int, np.ndarray]]:
    """Reads the regions of a split, moved as its images are resized for the model.

    Args:
      opened: split to read.
      image: settings of the model's images.

    Returns:
      Label -> record -> mask, see `masks_of`.
    """
    found: dict[str, dict[int, np.ndarray]] = {}
    for index in range(len(opened.split)):
        for label, mask in masks_of(opened.record(index), image=image).items():
            found.setdefault(label, {})[index] = mask
    return found


def masks_of(record: Record, *, image: ImageConfig) -> dict[str, np.ndarray]:
    """Returns the regions of a record, moved as its image is resized for the model.

    Args:
      record: the record.
      image: settings of the model's images.

    Returns:
      Label -> bool[size, size], the union of the label's regions on the first image of the record.
      A label without a pixel on that image is left out.
    """
    found: dict[str, np.ndarray] = {}
    if 0 not in record.region_images:
        return found
    height, width = stored_shape(record)
    change = fitting.resize_transform((height, width), size=image.size, fit=image.fit)
    for place, image_index in enumerate(record.region_images):
        if image_index:
            continue
        content, label = record.region_masks[place], record.region_labels[place]
        mask = (
            regions.decoded_mask(content, name=f"mask of {record.study_id}")
            if content
            else regions.mask_of_box(
                np.asarray(record.region_boxes[place]), height=height, width=width
            )
        )
        moved = regions.kept_mask(mask, change)
        if moved.any():
            found[label] = moved | found.get(label, False)
    return found
