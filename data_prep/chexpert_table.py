"""The labels, the 5x200 selection and the splits of the CheXpert table.

Source: CheXpert, arXiv:1901.07031; GLoRIA's release, gloria/datasets/preprocess_datasets.py and
image_dataset.py (CheXpertImageDataset), gloria/constants.py.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from prior_jax.errors import DataError

Draws = np.random.Generator | np.random.RandomState

# The five tasks of the competition, and the value of "uncertain" (arXiv:1901.07031, sec. 5).
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
    """Maps blanks to 0, and "uncertain" to its value for each of the five tasks.

    Args:
      labels: float[N, C], 1, 0, -1 for uncertain, NaN for blank.
      names: names of the C labels; columns other than the five keep their -1 (quirk G43).

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
    """Finds the frontal images with exactly one finding, which is one of the five tasks.

    Args:
      labels: float[N, C], as in the table; blank counts as 0, uncertain excludes an image.
      names: names of the C labels.
      frontal: bool[N], whether the image is frontal.
      mode: "paper" also leaves out images that are labelled as having no finding; "release" does
        not check that label (quirk G49).

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

    The authors' table and `numpy.random.RandomState(6)` give the authors' own list; MGCA and
    others drew other images.

    Args:
      labels: labels, as for `candidates_5x200`.
      names: names of the C labels.
      frontal: bool[N], whether the image is frontal.
      rng: random generator of the draw.
      mode: mode, as for `candidates_5x200`.
      count: number of images for each task.

    Returns:
      int64[5 * count] rows, task by task.

    Raises:
      DataError: if a task, which the message names, has fewer candidates.
    """
    found = candidates_5x200(labels, names=names, frontal=frontal, mode=mode)
    drawn = []
    for task, rows in found.items():
        require_candidates(task, len(rows), count=count)
        drawn.append(rows[rng.choice(len(rows), size=count, replace=False)])
    return np.concatenate(drawn)


def require_candidates(task: str, found: int, *, count: int) -> None:
    """Raises a DataError that names the task if fewer images are found than are to be drawn."""
    if found < count:
        raise DataError(
            f"The table has {found} images with {task} alone, but {count} are to be drawn.",
            "Give the whole table, or lower `count`.",
        )


def training_rows(
    frontal: np.ndarray, *, fraction: float, rng: Draws, mode: Literal["paper", "release"]
) -> np.ndarray:
    """Draws a fraction of the frontal images of a split, for training with few labels.

    Args:
      frontal: bool[N], whether the image is frontal.
      fraction: share of the images, 0 to 1.
      rng: random generator of the draw.
      mode: "release" draws from all images and then drops lateral ones (quirk G43); "paper"
        draws from the frontal ones.

    Returns:
      int64 rows in the order drawn.
    """
    rows = np.arange(len(frontal)) if mode == "release" else np.flatnonzero(frontal)
    drawn = rows[rng.choice(len(rows), size=round(fraction * len(rows)), replace=False)]
    return drawn[np.asarray(frontal, bool)[drawn]]


def patient_of(path: str) -> str:
    """Returns the patient in a path of the table, e.g. "patient00001".

    Raises:
      DataError: if the path has another form.
    """
    found = _PATIENT.search(path)
    if found is None:
        raise DataError(
            f"The path {path!r} names no patient.",
            "Give paths such as train/patient00001/study1/view1_frontal.jpg.",
            where="Path",
        )
    return found[1]


def split_by_patient(
    patients: Sequence[str], *, test: np.ndarray, count: int, rng: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows into training and validation; no patient is in two of training, validation, test.

    Args:
      patients: patient of each row, [N]; rows that are not kept are left out by the caller, so that
        they do not count.
      test: int rows held out for the test, e.g. the 5x200; other rows of their patients are left
        out.
      count: least number of validation rows.
      rng: random generator of the draw.

    Returns:
      int64 rows for training and for validation, each ascending.

    Raises:
      DataError: if fewer rows are left than `count`.
    """
    owner = np.asarray(patients)
    left = np.flatnonzero(~np.isin(owner, owner[test]))
    names, of_row, sizes = np.unique(owner[left], return_inverse=True, return_counts=True)
    if len(left) < count:
        raise DataError(
            f"Only {len(left)} rows are left to validate on, but {count} are needed.",
            "Lower `count`, or give more rows.",
        )
    order = rng.permutation(len(names))
    taken = int(np.searchsorted(np.cumsum(sizes[order]), count)) + 1 if count else 0
    validate = np.isin(of_row, order[:taken])
    return left[~validate], left[validate]


def split_as_released(
    rows: int, *, test: np.ndarray, count: int, rng: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows into training and validation as the release does, with its overlap (quirk G48).

    Validation rows are drawn by their position among the rows that are left, but the release drops
    the rows at the same *positions of the whole table* from training, so that most validation rows
    are trained on.

    Args:
      rows: number N of rows of the table.
      test: int rows held out for the test, the 5x200.
      count: number of validation rows (release: 5,000).
      rng: random generator of the draw; the release continues with that of the 5x200.

    Returns:
      int64 rows for training, ascending, and for validation, in the order drawn.
    """
    left = np.setdiff1d(np.arange(rows), test)
    places = rng.choice(len(left), size=count, replace=False)
    return np.setdiff1d(left, places), left[places]


def _column(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise DataError(
            f"The labels {list(names)} do not contain {name!r}.",
            "Give the labels of the CheXpert table.",
        )
    return list(names).index(name)
