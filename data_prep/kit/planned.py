"""The images that a preparation has found in the tables, before it opens their files.

Sets can have more images than fit in memory as objects. So each image is written to a file as a
line of JSON, and only its study, patient and split are kept in memory, in arrays.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS = "rows.jsonl"
"""Name of a plan's file of images, with one line for each image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """An image that may become part of a record, before its file is opened.

    Attributes:
      id: id of the image, unique in the data set.
      study: id of its study; images of one study become one record.
      patient: id of its patient; if the row names none, any id that no other study has, such as
        that of the study.
      split: index into `schema.SPLITS`.
      rows: number of rows of the table for the image, usually one.
      patient_given: whether the image's row names the patient; if not, the patient that another
        image of the study names replaces `patient`.
      split_given: whether the image's row names the split; if not, the split that another image of
        the patient names replaces `split`.
      line: line of the table on which the image's row begins, for messages; 0 if there is none.
      excluded: reason and detail for which the image is left out on purpose, such as its view; None
        for an image that is kept. What its row says of patients and splits is compared all the
        same.
      data: values that the preparer needs again when it makes the record; any JSON values.
    """

    id: str
    study: str
    patient: str
    split: int
    rows: int = 1
    patient_given: bool = True
    split_given: bool = True
    line: int = 0
    excluded: tuple[str, str] | None = None
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(kw_only=True)
class PlannedArrays:
    """All images of a plan, in the order of their rows.

    Attributes:
      offsets: int64[N], offset of each image in the file of the plan.
      codes: int8[N], index of the image's split in `schema.SPLITS`.
      ids: S32[N], digest of the image's id.
      studies: S32[N], digest of the study's id.
      patients: S32[N], digest of the comparable form of the patient's id.
    """

    offsets: np.ndarray
    codes: np.ndarray
    ids: np.ndarray
    studies: np.ndarray
    patients: np.ndarray


def read_image(directory: pathlib.Path, offset: int) -> PlannedImage:
    """Reads one image of a plan."""
    with open(directory / ROWS, "rb") as file:
        file.seek(offset)
        return PlannedImage(**json.loads(file.readline()))
