"""The splits of CheXpert by GLoRIA and MGCA, as they should be and as they were released.

Source: GLoRIA's release, gloria/datasets/preprocess_datasets.py; MGCA's release,
mgca/preprocess/chexpert.py.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from data_prep import chexpert_table

Paper = Literal["gloria", "mgca"]

VALIDATION_IMAGES = 5_000  # both releases
PER_TASK = 200
GLORIA_SEED = 6  # gloria/gloria.py, which its preparation imports
MGCA_SEED = 0


def draw_5x200(
    labels: np.ndarray,
    *,
    names: Sequence[str],
    frontal: np.ndarray,
    paper: Paper,
    rng: chexpert_table.Draws,
    mode: Literal["paper", "release"],
    count: int = PER_TASK,
) -> np.ndarray:
    """Draws the images of a 5x200: GLoRIA's tasks from one generator, MGCA's each from seed 0.

    Args:
      labels: float[N, C], as in the table, see `chexpert_table.candidates_5x200`.
      names: names of the C labels.
      frontal: bool[N], whether the image is frontal.
      paper: paper whose draw is followed.
      rng: generator of GLoRIA's draw; MGCA's does not use it.
      mode: mode of the candidates.
      count: number of images for each task.

    Returns:
      int64[5 * count] rows, task by task.

    Raises:
      DataError: if a task has fewer candidates.
    """
    if paper == "gloria":
        return chexpert_table.draw_5x200(
            labels, names=names, frontal=frontal, rng=rng, mode=mode, count=count
        )
    found = chexpert_table.candidates_5x200(labels, names=names, frontal=frontal, mode=mode)
    drawn = []
    for task, rows in found.items():
        chexpert_table.require_candidates(task, len(rows), count=count)
        order = np.random.RandomState(MGCA_SEED).permutation(len(rows))
        drawn.append(rows[order[:count]])
    return np.concatenate(drawn)


def released_splits(
    labels: np.ndarray,
    *,
    names: Sequence[str],
    frontal: np.ndarray,
    paper: Paper,
    seed: int = GLORIA_SEED,
    count: int = VALIDATION_IMAGES,
    per_task: int = PER_TASK,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits the training table as the releases do, with their overlap (quirk G48).

    Args:
      labels: float[N, C], as in the table.
      names: names of the C labels.
      frontal: bool[N], whether the image is frontal.
      paper: paper whose split is followed.
      seed: seed of GLoRIA's generator; MGCA's is 0.
      count: number of validation rows.
      per_task: number of images of the 5x200 for each task.

    Returns:
      int64 rows of the 5x200, of training (ascending) and of validation (in the order drawn). Most
      validation rows are in training too, and some rows are in none of the three.
    """
    rng = np.random.RandomState(seed if paper == "gloria" else MGCA_SEED)
    test = draw_5x200(
        labels, names=names, frontal=frontal, paper=paper, rng=rng, mode="release", count=per_task
    )
    train, validate = chexpert_table.split_as_released(len(labels), test=test, count=count, rng=rng)
    return test, train, validate


def parted_splits(
    labels: np.ndarray,
    patients: Sequence[str],
    *,
    names: Sequence[str],
    frontal: np.ndarray,
    paper: Paper,
    seed: int,
    count: int = VALIDATION_IMAGES,
    per_task: int = PER_TASK,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits the training table as the papers mean it: no patient stands in two parts.

    The images of the 5x200 are those that `data_prep.chexpert_5x200` draws by the paper's rule.

    Args:
      labels: float[N, C], as in the table.
      patients: patient of each row, [N].
      names: names of the C labels.
      frontal: bool[N], whether the image is frontal.
      paper: paper whose draw of the 5x200 is followed.
      seed: seed of the draw of the validation rows.
      count: least number of validation rows.
      per_task: number of images of the 5x200 for each task.

    Returns:
      int64 rows of the 5x200, of training and of validation. Other rows of the 5x200's patients are
      in none of the three.
    """
    test = draw_5x200(
        labels,
        names=names,
        frontal=frontal,
        paper=paper,
        rng=np.random.RandomState(GLORIA_SEED),
        mode="paper",
        count=per_task,
    )
    rng = np.random.RandomState(seed)
    train, validate = chexpert_table.split_by_patient(patients, test=test, count=count, rng=rng)
    return test, train, validate
