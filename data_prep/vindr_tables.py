"""The tables of VinDr-CXR: labels and boxes of an image from the rows of its readers.

Source: VinDr-CXR, arXiv:2012.15029, and its tables at PhysioNet, version 1.0.0; BenchX's release,
preprocess/datasets/VinDr_CXR/preprocess_vindr.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.kit import box_fusion, grouped_rows, values
from data_prep.kit.plan import RowProblem
from data_prep.kit.tables import TableRow
from prior_jax.data import schema

NO_FINDING = "No finding"
LOCAL = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
)
GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease")
LABELS = (*LOCAL, *GLOBAL, NO_FINDING)
MAJORITY, ANY = "majority", "any"
LABEL_RULES = (MAJORITY, ANY)
_OF_KEY = {values.simplified(label): label for label in LABELS} | {"otherdiseases": "Other disease"}
SIDES = ("x_min", "y_min", "x_max", "y_max")

Labels = tuple[int, ...]
Boxes = dict[str, list[schema.Box]]
"""Finding -> boxes of all readers, in pixels of the image."""


def finding(text: str) -> str:
    """Returns the name of a finding as it stands in LABELS; the tables differ in "Other diseases".

    Raises:
      RowProblem: `unknown_label`, if it is none of them.
    """
    name = _OF_KEY.get(values.simplified(text))
    if name is None:
        raise RowProblem("unknown_label", f"{text!r} is none of {', '.join(LABELS)}")
    return name


def differences(labels: Mapping[str, Labels], boxes: Mapping[str, Boxes]) -> list[str]:
    """Returns sentences on images whose labels and boxes do not fit each other.

    Args:
      labels: image -> its labels, of any of its readers, in the order of LABELS.
      boxes: image -> its boxes.
    """
    seen = {
        image: {name for name, value in zip(LABELS, found, strict=True) if value == 1}
        for image, found in labels.items()
    }
    boxless = [
        (image, name)
        for image, names in seen.items()
        for name in LOCAL
        if name in names and name not in boxes.get(image, {})
    ]
    unseen = [
        (image, name)
        for image, names in seen.items()
        for name in boxes.get(image, {})
        if name not in names
    ]
    notes = []
    if boxless:
        image, name = boxless[0]
        notes.append(
            f"Warning: {len(boxless)} findings that have a place are seen by a reader and have no "
            f"box, such as {name} of {image}."
        )
    if unseen:
        image, name = unseen[0]
        notes.append(
            f"Warning: the boxes of {len(unseen)} findings are left out because no reader's row of "
            f"labels has the finding, such as {name} of {image}."
        )
    return notes


def labels_of(rows: Sequence[TableRow], *, rule: str) -> tuple[int, ...]:
    """Returns 1, 0 or -2 for each of LABELS from the rows of an image, one a reader.

    A label of which no reader says anything is not mentioned, -2. With "any", No finding is
    positive only if all readers say so, since it would stand beside a finding otherwise.

    Raises:
      CellProblem: if a cell is neither 1 nor 0 nor blank.
      RowProblem: `conflicting_labels`, if a reader sees a finding and No finding.
    """
    opinions = [_opinion(row) for row in rows]
    found = []
    for label in LABELS:
        votes = [opinion[label] for opinion in opinions if label in opinion]
        said = [vote for vote in votes if vote != schema.LABEL_NOT_MENTIONED]
        found.append(_decided(said, rule=rule, needs_all=label == NO_FINDING))
    return tuple(found)


def _opinion(row: TableRow) -> dict[str, int]:
    """Returns label -> 1, 0 or -2 of one reader."""
    found: dict[str, int] = {}
    for name in list(row.cells):
        label = _OF_KEY.get(values.simplified(name))
        if label is None:
            continue
        found[label] = values.label_of(row.cells[name], field=name)
        if found[label] == schema.LABEL_UNCERTAIN:
            raise values.CellProblem(f"label {label!r} is -1, which is neither 1 nor 0")
    seen = [label for label, value in found.items() if value == 1 and label != NO_FINDING]
    if seen and found.get(NO_FINDING) == 1:
        detail = f"line {row.line} says {NO_FINDING} and {seen[0]}"
        raise RowProblem("conflicting_labels", detail)
    return found


def _decided(votes: Sequence[int], *, rule: str, needs_all: bool) -> int:
    if not votes:
        return schema.LABEL_NOT_MENTIONED
    if rule == MAJORITY:
        return int(2 * sum(votes) > len(votes))
    return int(all(votes) if needs_all else any(votes))


def boxes_of(rows: Sequence[TableRow]) -> Boxes:
    """Returns the boxes of an image, of all its readers.

    A row without a box is of No finding, which has none, or of a disease of the whole image.

    Raises:
      RowProblem: `row_left_out`; `unknown_label`; `malformed_box`, if a finding that has a place
        has no box, No finding has one, or a box has sides that are no numbers, or no area.
      CellProblem: if the name of the finding is no text.
    """
    if problem := grouped_rows.problem_of(rows):
        raise RowProblem(*problem)
    found: Boxes = {}
    for row in rows:
        label = finding(values.text_of(row.cells["class_name"], field="class_name"))
        written = [row.cells[side] for side in SIDES]
        if all(map(values.is_missing, written)) and label not in LOCAL:
            continue
        x1, y1, x2, y2 = map(values.number_of, written)
        if label == NO_FINDING or not (x1 < x2 and y1 < y2):  # never so of NaN
            said = ", ".join(map(str, written))
            raise RowProblem("malformed_box", f"{', '.join(SIDES)} of {label} are {said}")
        found.setdefault(label, []).append((x1, y1, x2, y2))
    return found


def regions_of(
    boxes: Mapping[str, Sequence[schema.Box]], labels: Sequence[int], *, iou: float
) -> list[list[str | float]]:
    """Returns the fused boxes of the findings that are positive, as `labelled.boxes_of` reads them.

    BenchX's release loses the boxes of one finding where a reader found nothing (quirk B27).
    """
    positive = [name for name, value in zip(LABELS, labels, strict=True) if value == 1]
    return [
        [name, *np.round(box, 3).tolist()]
        for name in positive
        for box in box_fusion.fused(boxes.get(name, ()), iou=iou)
    ]
