"""Columns of a manifest that name files of masks: --mask_columns=lung_mask=Lung."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.kit import mask_files, values
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.plan import RowProblem
from prior_jax.data.decode import ImageProblem

Found = tuple[str, str]
"""Label of a mask, and the path of its file as it is written."""


def label_by_column(entries: Sequence[str]) -> dict[str, str]:
    """Returns column -> label of entries such as "lung_mask=Lung".

    An entry that is not of this form, and one of two of one column, is not in it.
    """
    pairs = [[part.strip() for part in entry.split("=", 1)] for entry in entries]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and all(pair)}


def masks_in(cells: Mapping[str, Any], columns: Mapping[str, str]) -> list[Found] | None:
    """Returns the masks of a row; None if it names none.

    Two columns of one label, such as those of the left and the right lung, are two masks.

    Args:
      cells: cells of the row.
      columns: column -> label of the columns of masks.

    Raises:
      CellProblem: if a cell is no text.
      RowProblem: `malformed_masks`, if two columns of one label name one file.
    """
    paths = [
        (label, values.text_of(cells.get(column), field=column))
        for column, label in columns.items()
    ]
    found = [(label, path) for label, path in paths if path]
    for place, (label, path) in enumerate(found):
        if (label, path) in found[:place]:
            detail = f"two columns of {label!r} name {path!r}, and two masks are two findings"
            raise RowProblem("malformed_masks", detail)
    return found or None


def regions_of(masks: Sequence[Found], *, folder: pathlib.Path, image: str) -> list[ImageRegion]:
    """Returns the regions of an image from its masks.

    A mask without a pixel says that the finding is not there, and becomes no region. The image's
    own file is no mask: hardly a pixel of a radiograph is black, so that the finding would be
    everywhere.

    Args:
      masks: label and path of each mask.
      folder: folder that the paths are relative to.
      image: path of the image.
    """
    found = []
    for label, path in masks:
        region = mask_files.region_of(folder / path, label=label)
        if _is_same(folder / path, folder / image):
            region = dataclasses.replace(region, mask=functools.partial(_refuse, label, path))
        found.append(region)
    return found


def _is_same(path: pathlib.Path, other: pathlib.Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # a file that is absent is refused by whoever reads it
        return False


def _refuse(label: str, path: str, height: int, width: int) -> np.ndarray:
    del height, width
    detail = f"the mask of {label} is {path}, the file of the image itself"
    raise ImageProblem(mask_files.UNREADABLE_MASK, detail)
