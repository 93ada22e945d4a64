"""RSNA pneumonia: radiographs with boxes of their opacities -> a prepared set.

    python -m data_prep.rsna --labels=stage_2_train_labels.csv --images_dir=images --out=prepared

Source: the challenge's stage_2_train_labels.csv; GLoRIA's release,
gloria/datasets/preprocess_datasets.py (preprocess_pneumonia_data).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.kit import cli, grouped_rows, id_lists, labelled, preparer, values
from data_prep.kit.plan import Plan, Reject, TableUse
from data_prep.kit.row_cells import cells_of, required_id
from data_prep.kit.splits import HELD_OUT, shuffled_splits
from data_prep.kit.tables import TableRow
from prior_jax.data import manifest as manifest_lib
from prior_jax.errors import DataError

PROGRAM = "data_prep.rsna"
LABELS = ("Pneumonia",)
MALFORMED = "malformed_annotation"
_SIDES = ("x", "y", "width", "height")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """One radiograph; each patient has one.

    Attributes:
      patient_id: id of the patient, which is also the name of the radiograph's file.
      boxes: (x1, y1, x2, y2) of each opacity in pixels from the top left corner; () without
        pneumonia.
    """

    patient_id: str
    boxes: tuple[tuple[float, float, float, float], ...]

    @property
    def target(self) -> int:
        """Returns 1 with pneumonia, else 0."""
        return int(bool(self.boxes))


def patients(rows: Iterable[Mapping[str, Any]]) -> list[Patient]:
    """Groups the rows, which have one box each, by patient.

    Args:
      rows: rows of the table with patientId, x, y, width, height and Target, as text or as a data
        frame reads them.

    Returns:
      Patients sorted by id; the boxes of a patient are in the order of the table, and a row that
      stands twice counts once.

    Raises:
      DataError: if a column or patient is missing, in which case the message names the row, or if a
        box or target is invalid, a row without pneumonia has a box, or a patient has rows with and
        without pneumonia, in which case the message names the patient.
    """
    boxes: dict[str, list[tuple[float, float, float, float] | None]] = {}
    for place, row in enumerate(rows, 1):
        cells = cells_of(row, ("patientId", *_SIDES, "Target"), place=place)
        patient_id = required_id(cells, "patientId", place=place)
        boxes.setdefault(patient_id, []).append(_box(patient_id, cells))
    found = []
    for patient_id in sorted(boxes):
        own = [box for box in boxes[patient_id] if box is not None]
        if own and len(own) < len(boxes[patient_id]):
            raise DataError(
                "The rows of the patient have Target 0 and 1, which contradict each other.",
                "Leave out the wrong rows.",
                where=patient_id,
            )
        found.append(Patient(patient_id=patient_id, boxes=tuple(dict.fromkeys(own))))
    return found


def _box(patient_id: str, cells: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    try:
        target = values.label_of(cells["Target"], field="Target")
    except values.CellProblem:
        target = None
    if target not in (0, 1):
        raise DataError(
            f"Target is {cells['Target']!r}.", "Set Target to 0 or 1.", where=patient_id
        )
    written = {side: cells[side] for side in _SIDES}
    if target == 0:
        if not all(map(values.is_missing, written.values())):
            raise DataError(
                f"A row with Target 0 has the box {written}.",
                "Leave the cells of the box blank, or set Target to 1.",
                where=patient_id,
            )
        return None
    x, y, width, height = map(values.number_of, written.values())
    if not (x >= 0 and y >= 0 and width > 0 and height > 0):  # never so of NaN
        raise DataError(
            f"The box {written} is not a box in pixels.",
            "Give x and y of at least 0, and width and height above 0.",
            where=patient_id,
        )
    return x, y, x + width, y + height


def drawn_splits(found: Sequence[Patient]) -> dict[str, np.ndarray]:
    """Draws the splits of GLoRIA: 18,678, 4,003 and 4,003 of the 26,684 patients.

    Args:
      found: all patients, in the order of `patients`.

    Returns:
      Split -> int64 positions in `found`, in the order drawn.
    """
    return shuffled_splits([p.patient_id for p in found], held_out=HELD_OUT, seed=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    labels: str = cli.setting("The table stage_2_train_labels.csv, with a row a box.")
    images_dir: str = cli.setting("Folder of the .dcm images, also of folders of them.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    table = cli.required_file(pathlib.Path(paths.labels), flag="--labels")
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs([table], lists=paths.split_lists, settings=settings),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    table = settings.table(
        pathlib.Path(paths.labels), flag="--labels", key="patientId", single_lines=True
    )
    table.require([("--labels", name) for name in ("patientId", *_SIDES, "Target")])
    images_dir = pathlib.Path(paths.images_dir)
    files = labelled.found_images(images_dir, suffixes=(".dcm", ".dicom"), flag="--images_dir")
    groups = grouped_rows.grouped(table, column="patientId", reject=reject, named=id_lists.plain_id)
    cases = [_case(name, rows, files) for name, rows in sorted(groups.items())]
    return labelled.labelled_plan(
        cases,
        labelled.assigned(cases, data_set="rsna", settings=settings, lists=paths.split_lists),
        directory=directory,
        reject=reject,
        images_dir=images_dir,
        settings=settings,
        label_names=LABELS,
        table=TableUse(name=table.name, read=table.read, notes=table.notes()),
        headers=True,
        notes=labelled.unnamed_notes(files, groups, flag="--images_dir"),
    )


def _case(name: str, rows: Sequence[TableRow], files: Mapping[str, str]) -> labelled.Case:
    """Returns the case of a patient, with its problem if its rows cannot be followed."""
    place = {"id": name, "path": files.get(name, f"{name}.dcm"), "patient": name}
    place["line"] = rows[0].line
    try:
        (found,) = patients([{**row.cells, "patientId": name} for row in rows])
    except DataError as error:
        problem = (MALFORMED, str(error))
        return labelled.Case(**place, labels=(0,), rows=len(rows), problem=problem)
    regions = [(LABELS[0], *box) for box in found.boxes]
    return labelled.Case(
        **place,
        labels=(found.target,),
        regions=regions,
        rows=len(rows),
        problem=grouped_rows.problem_of(rows),
    )


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
