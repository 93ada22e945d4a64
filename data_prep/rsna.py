"""The RSNA pneumonia table: boxes and splits.

Source: the challenge's stage_2_train_labels.csv; GLoRIA's release,
gloria/datasets/preprocess_datasets.py (preprocess_pneumonia_data).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_prep.kit.splits import HELD_OUT, shuffled_splits
from prior_jax.errors import DataError

_SIDES = ("x", "y", "width", "height")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """One radiograph; each patient has one.

    Attributes:
      patient_id: also the name of its file.
      boxes: (x1, y1, x2, y2) of each opacity in pixels from the top left corner; () without
        pneumonia.
    """

    patient_id: str
    boxes: tuple[tuple[float, float, float, float], ...]

    @property
    def target(self) -> int:
        """1 with pneumonia, else 0."""
        return int(bool(self.boxes))


def patients(rows: Iterable[Mapping[str, str]]) -> list[Patient]:
    """Gathers the rows of a patient, one a box.

    Args:
      rows: of the table: patientId, x, y, width, height, Target.

    Returns:
      Patients sorted by id, boxes in the order of the table.

    Raises:
      DataError: naming patient and column, for a box or target that is none, or a patient with
        and without pneumonia.
    """
    boxes: dict[str, list[tuple[float, float, float, float] | None]] = {}
    for row in rows:
        boxes.setdefault(row["patientId"], []).append(_box(row))
    found = []
    for patient_id in sorted(boxes):
        own = [box for box in boxes[patient_id] if box is not None]
        if own and len(own) < len(boxes[patient_id]):
            raise DataError(f"{patient_id}: Target", received="0 and 1", accepted="one of them")
        found.append(Patient(patient_id=patient_id, boxes=tuple(own)))
    return found


def _box(row: Mapping[str, str]) -> tuple[float, float, float, float] | None:
    patient_id, target = row["patientId"], row["Target"]
    if target == "0":
        return None
    if target != "1":
        raise DataError(f"{patient_id}: Target", received=target, accepted="0 or 1")
    try:
        x, y, width, height = (float(row[side]) for side in _SIDES)
    except ValueError:
        x = y = width = height = math.nan
    if not (x >= 0 and y >= 0 and 0 < width < math.inf and 0 < height < math.inf):
        received = {side: row[side] for side in _SIDES}
        raise DataError(f"{patient_id}: box", received=received, accepted="pixels, sides above 0")
    return x, y, x + width, y + height


def drawn_splits(found: Sequence[Patient]) -> dict[str, np.ndarray]:
    """Draws GLoRIA's split: 18,678, 4,003 and 4,003 of the 26,684 patients.

    Args:
      found: all patients, as `patients` sorts them.

    Returns:
      Split -> int64 positions in `found`, in the order drawn.
    """
    return shuffled_splits([p.patient_id for p in found], held_out=HELD_OUT, seed=0)
