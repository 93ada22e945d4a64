"""An image before its file is opened, on disk and in the arrays of a plan."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS = "rows.jsonl"
"""File of a plan that holds its images, a line each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """An image that may become part of a record, before its file is opened.

    Attributes:
      id: id of the image, unique in the data set.
      study: id of its study; images of one study become one record.
      patient: id of its patient.
      split: index into `schema.SPLITS`.
      rows: rows of the table that stand for it, usually one.
      patient_given: whether its row names the patient; otherwise the patient that another image of
        its study names takes the place of `patient`.
      split_given: whether its row names the split; otherwise the split that another image of its
        patient names takes the place of `split`.
      data: values that the preparer needs again when it makes the record; any JSON value.
    """

    id: str
    study: str
    patient: str
    split: int
    rows: int = 1
    patient_given: bool = True
    split_given: bool = True
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(kw_only=True)
class PlannedArrays:
    """All images of a plan, in the order of their rows.

    Attributes:
      offsets: int64[N], where each stands in the file of the plan.
      codes: int8[N], index of its split in `schema.SPLITS`.
      ids: S32[N], digest of its id.
      studies: S32[N], digest of its study.
      patients: S32[N], digest of the comparable form of its patient's id.
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
