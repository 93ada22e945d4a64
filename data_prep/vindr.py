"""VinDr-CXR: radiographs with the labels and boxes of several readers -> a prepared set.

    python -m data_prep.vindr --tables=vindr-cxr/annotations --images_dir=vindr-cxr --out=prepared

Three readers labelled each image of the training set on their own; the images of the test set have
one consensus. The boxes of a finding are fused.

Source: VinDr-CXR, arXiv:2012.15029, and its tables at PhysioNet, version 1.0.0; BenchX's release,
preprocess/datasets/VinDr_CXR/preprocess_vindr.py.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data_prep.kit import (
    box_fusion,
    cli,
    grouped_rows,
    id_lists,
    labelled,
    preparer,
    split_tables,
    values,
)
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, Reject, RowProblem, TableUse
from data_prep.kit.tables import Table, TableRow
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError

PROGRAM = "data_prep.vindr"
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
BOXES = "rows of the boxes"
_OF_KEY = {values.simplified(label): label for label in LABELS} | {"otherdiseases": "Other disease"}
_SIDES = ("x_min", "y_min", "x_max", "y_max")
_ID = "image_id"
_FILES = {"train": "train", "test": "test"}

Labels = tuple[int, ...]
Boxes = dict[str, list[schema.Box]]
"""Finding -> boxes of all readers, in pixels of the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    tables: str = cli.setting(
        "Folder of image_labels_train.csv and annotations_train.csv and, if they are there, "
        "image_labels_test.csv and annotations_test.csv."
    )
    images_dir: str = cli.setting("Folder of the .dicom images, also of folders of them.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    label_rule: str = cli.setting(
        "Readers who must see a finding for it to be positive: 'majority', more than half of them, "
        "or 'any' of them.",
        default=MAJORITY,
    )
    fusion_iou: float = cli.setting(
        "Intersection over union above which boxes of one finding are fused.",
        default=box_fusion.IOU,
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        if self.label_rule not in LABEL_RULES:
            must_be = f"one of {', '.join(LABEL_RULES)}"
            raise ConfigError.of_value("--label_rule", self.label_rule, must_be)
        self.check("fusion_iou", 0 < self.fusion_iou <= 1, "above 0, and 1 or less")


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
        (i, n) for i, names in seen.items() for n in LOCAL if n in names - boxes.get(i, {}).keys()
    ]
    unseen = [(i, n) for i in seen for n in boxes.get(i, {}) if n not in seen[i]]
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
        written = [row.cells[side] for side in _SIDES]
        if all(map(values.is_missing, written)) and label not in LOCAL:
            continue
        x1, y1, x2, y2 = map(values.number_of, written)
        if label == NO_FINDING or not (x1 < x2 and y1 < y2):  # never so of NaN
            said = ", ".join(map(str, written))
            raise RowProblem("malformed_box", f"{', '.join(_SIDES)} of {label} are {said}")
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


def found_tables(folder: pathlib.Path, *, stem: str) -> dict[str, pathlib.Path]:
    """Returns split -> path of each table with this beginning of its name.

    Raises:
      DataError: if there is none of the training set, naming the flag.
    """
    paths = {split: folder / f"{stem}_{part}.csv" for split, part in _FILES.items()}
    cli.required_file(paths["train"], flag="--tables")
    return {split: path for split, path in paths.items() if path.is_file()}


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    folder = preparer.folder(paths.tables, flag="--tables")
    tables = [
        path
        for stem in ("image_labels", "annotations")
        for path in found_tables(folder, stem=stem).values()
    ]
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs(tables, lists=paths.split_lists, settings=settings),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    folder = pathlib.Path(paths.tables)
    reader = functools.partial(_read, folder, settings=settings, reject=reject)
    of_labels = reader(stem="image_labels", columns=(_ID, NO_FINDING))
    boxes, broken, use = _boxes(reader, of_labels, reject=reject)
    images_dir = pathlib.Path(paths.images_dir)
    files = labelled.found_images(
        images_dir, suffixes=(".dicom", ".dcm", ".png", ".jpg"), flag="--images_dir"
    )
    cases = [
        _case(name, rows, files, boxes=boxes.get(name, {}), broken=broken.get(name), how=settings)
        for name, rows in of_labels.rows.items()
    ]
    notes = labelled.unnamed_notes(files, of_labels.rows, flag="--images_dir")
    notes += differences(_seen(of_labels), boxes)
    assignment = labelled.assigned(
        cases,
        data_set="vindr",
        settings=settings,
        lists=paths.split_lists,
        official=split_tables.with_validation(list(of_labels.splits.values()), cases, settings),
    )
    return labelled.labelled_plan(
        cases,
        assignment,
        directory=directory,
        reject=reject,
        images_dir=images_dir,
        settings=settings,
        label_names=LABELS,
        table=of_labels.use,
        other_tables=[use],
        headers=True,
        notes=notes,
    )


def _seen(of_labels: split_tables.SplitRows) -> dict[str, Labels]:
    """Returns image -> labels that any of its readers sees, of the images whose rows are right."""
    found: dict[str, Labels] = {}
    for name, rows in of_labels.rows.items():
        with contextlib.suppress(RowProblem, values.CellProblem):  # these images are rejected
            found[name] = labels_of(rows, rule=ANY)
    return found


def _read(
    folder: pathlib.Path,
    *,
    stem: str,
    columns: Sequence[str],
    settings: Settings,
    reject: Reject,
    counted_as: str = split_tables.ROWS,
) -> split_tables.SplitRows:
    tables: dict[str, Table] = {}
    for split, path in found_tables(folder, stem=stem).items():
        tables[split] = settings.table(path, flag="--tables", key=_ID, single_lines=True)
        tables[split].require([("--tables", name) for name in columns])
    ids = dict.fromkeys(tables, _ID)
    return split_tables.grouped(
        tables, columns=ids, reject=reject, counted_as=counted_as, named=id_lists.plain_id
    )


def _boxes(
    reader: Callable[..., split_tables.SplitRows],
    of_labels: split_tables.SplitRows,
    *,
    reject: Reject,
) -> tuple[dict[str, Boxes], dict[str, RowProblem], TableUse]:
    """Returns image -> its boxes, image -> what is wrong with one of them, and the rows' counts."""
    columns = (_ID, "class_name", *_SIDES)
    read = reader(stem="annotations", columns=columns, counted_as=BOXES)
    boxes: dict[str, Boxes] = {}
    broken: dict[str, RowProblem] = {}
    kept = 0
    for name, rows in read.rows.items():
        try:
            if name not in of_labels.rows:
                raise RowProblem("box_of_unknown_image", f"no row of the labels names {name}")
            boxes[name] = boxes_of(rows)
            kept += len(rows)
        except (RowProblem, values.CellProblem) as problem:
            found = RowProblem(getattr(problem, "reason", "malformed_row"), problem.detail)
            if name in of_labels.rows:
                broken[name] = found
            left_out = {"rows": len(rows), "table": BOXES}
            reject(Rejection(id=name, reason=found.reason, detail=found.detail, **left_out))
    for table in read.tables:
        unread = grouped_rows.left_out(table, column=_ID, named=id_lists.plain_id)
        for name, line in unread.items():
            if name in of_labels.rows:
                broken.setdefault(name, RowProblem(*grouped_rows.unreadable(line)))
    return boxes, broken, dataclasses.replace(read.use, kept=kept)


def _case(
    name: str,
    rows: Sequence[TableRow],
    files: Mapping[str, str],
    *,
    boxes: Boxes,
    broken: RowProblem | None,
    how: Settings,
) -> labelled.Case:
    place = {"id": name, "path": files.get(name, f"{name}.dicom"), "patient": name}
    place["rows"] = len(rows)
    blank = (schema.LABEL_NOT_MENTIONED,) * len(LABELS)
    try:
        if broken:
            raise RowProblem("box_left_out", f"one of its boxes: {broken.detail}")
        if problem := grouped_rows.problem_of(rows):
            raise RowProblem(*problem)
        readers = [row.cells.get("rad_id", "") for row in rows]
        if len(set(readers)) < len(readers):
            raise RowProblem("conflicting_rows", "two rows of one reader differ")
        labels = labels_of(rows, rule=how.label_rule)
        regions = regions_of(boxes, labels, iou=how.fusion_iou)
        return labelled.Case(**place, labels=labels, regions=regions)
    except (RowProblem, values.CellProblem) as problem:
        reason = getattr(problem, "reason", "malformed_row")
        return labelled.Case(**place, labels=blank, problem=(reason, problem.detail))


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
