"""The CheXpert table: labels, the 5x200 selection, splits.

Source: CheXpert, arXiv:1901.07031; GLoRIA's release, gloria/datasets/preprocess_datasets.py and
image_dataset.py (CheXpertImageDataset), gloria/constants.py.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from prior_jax.errors import DataError

Draws = np.random.Generator | np.random.RandomState

# The five of the competition, and what "uncertain" counts as (arXiv:1901.07031, sec. 5).
UNCERTAIN = {
    "Atelectasis": 1.0,
    "Cardiomegaly": 0.0,
    "Consolidation": 0.0,
    "Edema": 1.0,
    "Pleural Effusion": 1.0,
}
NO_FINDING = "No Finding"
_UNCERTAIN_VALUE = -1.0
_PATIENT = re.compile(r"(?:^|/)(patient\d+)/study\d+/")


def mapped_labels(labels: np.ndarray, *, names: Sequence[str]) -> np.ndarray:
    """Turns blanks into 0 and "uncertain" into what it counts as for the five tasks.

    Args:
      labels: float[N, C], 1, 0, -1 for uncertain, NaN for blank.
      names: C labels; other columns than the five keep their -1 (quirk G43).

    Returns:
      float64[N, C].
    """
    mapped = np.where(np.isnan(labels), 0.0, labels).astype(np.float64)
    for name, value in UNCERTAIN.items():
        column = mapped[:, _column(names, name)]
        column[column == _UNCERTAIN_VALUE] = value
    return mapped


def candidates_5x200(
    labels: np.ndarray,
    *,
    names: Sequence[str],
    frontal: np.ndarray,
    mode: Literal["paper", "release"],
) -> dict[str, np.ndarray]:
    """Finds the frontal images with exactly one finding, one of the five tasks.

    Args:
      labels: float[N, C], as in the table; blank counts as 0, uncertain excludes an image.
      names: C labels.
      frontal: bool[N].
      mode: "paper" also leaves out images said to have no finding; "release" does not look
        there (quirk G49).

    Returns:
      Task -> int64 rows, ascending.
    """
    filled = np.where(np.isnan(labels), 0.0, labels)
    tested = [index for index, name in enumerate(names) if mode == "paper" or name != NO_FINDING]
    found = {}
    for task in UNCERTAIN:
        wanted = np.zeros(len(names))
        wanted[_column(names, task)] = 1.0
        matches = (filled[:, tested] == wanted[tested]).all(axis=1)
        found[task] = np.flatnonzero(matches & np.asarray(frontal, bool))
    return found


def draw_5x200(
    labels: np.ndarray,
    *,
    names: Sequence[str],
    frontal: np.ndarray,
    rng: Draws,
    mode: Literal["paper", "release"],
    count: int = 200,
) -> np.ndarray:
    """Draws the images of CheXpert 5x200 (GLoRIA, ICCV 2021, sec. 4.1).

    The authors' own list follows from their table and `numpy.random.RandomState(6)`; MGCA and
    others drew other images.

    Args:
      labels: as of `candidates_5x200`.
      names: C labels.
      frontal: bool[N].
      rng: of the draw.
      mode: as of `candidates_5x200`.
      count: images a task.

    Returns:
      int64[5 * count] rows, task by task.

    Raises:
      DataError: naming the task, if it has fewer candidates.
    """
    found = candidates_5x200(labels, names=names, frontal=frontal, mode=mode)
    drawn = []
    for task, rows in found.items():
        if len(rows) < count:
            raise DataError(
                f"images with {task} alone", received=len(rows), accepted=f"{count} or more"
            )
        drawn.append(rows[rng.choice(len(rows), size=count, replace=False)])
    return np.concatenate(drawn)


def training_rows(
    frontal: np.ndarray, *, fraction: float, rng: Draws, mode: Literal["paper", "release"]
) -> np.ndarray:
    """Draws a fraction of the frontal images of a split, for training with few labels.

    Args:
      frontal: bool[N].
      fraction: 0 to 1, of the images.
      rng: of the draw.
      mode: "release" draws from all images and then drops lateral ones (quirk G43); "paper"
        draws from the frontal ones.

    Returns:
      int64 rows in the order drawn.
    """
    rows = np.arange(len(frontal)) if mode == "release" else np.flatnonzero(frontal)
    drawn = rows[rng.choice(len(rows), size=round(fraction * len(rows)), replace=False)]
    return drawn[np.asarray(frontal, bool)[drawn]]


def patient_of(path: str) -> str:
    """Returns the patient of a path of the table, e.g. "patient00001".

    Raises:
      DataError: for another kind of path.
    """
    found = _PATIENT.search(path)
    if found is None:
        raise DataError("Path", received=path, accepted=".../patient00001/study1/...")
    return found[1]


def split_by_patient(
    patients: Sequence[str], *, test: np.ndarray, count: int, rng: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Parts training from validation, no patient in two of training, validation and test.

    Args:
      patients: [N], whom each row belongs to.
      test: int rows set apart, e.g. the 5x200; other rows of their patients are left out.
      count: least number of rows to validate on.
      rng: of the draw.

    Returns:
      int64 rows for training and for validation, ascending.

    Raises:
      DataError: if fewer rows are left than `count`.
    """
    owner = np.asarray(patients)
    left = np.flatnonzero(~np.isin(owner, owner[test]))
    names, of_row, sizes = np.unique(owner[left], return_inverse=True, return_counts=True)
    if len(left) < count:
        raise DataError("rows left to validate on", received=len(left), accepted=f">= {count}")
    order = rng.permutation(len(names))
    taken = int(np.searchsorted(np.cumsum(sizes[order]), count)) + 1 if count else 0
    validate = np.isin(of_row, order[:taken])
    return left[~validate], left[validate]


def split_as_released(
    rows: int, *, test: np.ndarray, count: int, rng: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Parts training from validation as the release does, and mixes them up (quirk G48).

    Validation rows are drawn by their place among the rows left, and rows of the same *numbers in
    the whole table* are dropped from training: most of validation is trained on.

    Args:
      rows: N of the table.
      test: int rows set apart, the 5x200.
      count: rows to validate on (release: 5,000).
      rng: of the draw; the release goes on with that of the 5x200.

    Returns:
      int64 rows for training, ascending, and for validation, in the order drawn.
    """
    left = np.setdiff1d(np.arange(rows), test)
    places = rng.choice(len(left), size=count, replace=False)
    return np.setdiff1d(left, places), left[places]


def _column(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise DataError("labels", received=list(names), accepted=f"labels with {name!r}")
    return list(names).index(name)
