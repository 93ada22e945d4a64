"""NIH ChestX-ray14: radiographs with labels, and boxes on some of them -> a prepared set.

    python -m data_prep.nih --labels=Data_Entry_2017_v2020.csv --boxes=BBox_List_2017.csv \
        --images_dir=ChestX-ray14 --split=official --split_lists=ChestX-ray14 --out=prepared

The patient of an image is what stands before the "_" of its name. The list of an image's findings
is complete: a finding that it does not name is absent.

Source: ChestX-ray8, arXiv:1705.02315, and the files that the NIH Clinical Center publishes with it.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.kit import (
    cli,
    grouped_rows,
    id_lists,
    labelled,
    preparer,
    published_splits,
    subgroups,
    values,
)
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, Reject, RowProblem, TableUse
from data_prep.kit.tables import Table, TableRow
from data_prep.kit.used_cells import absent_note
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError

PROGRAM = "data_prep.nih"
NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumonia",
    "Pneumothorax",
)
LABELS = (*FINDINGS, NO_FINDING)
_OF_KEY = {values.simplified(label): label for label in LABELS} | {"infiltrate": "Infiltration"}
_SIDES = ("Bbox [x", "y", "w", "h]")
_IMAGE = "Image Index"
_WANTED = ("Patient Age", "View Position")
DRAWN_ON = 1024
"""Pixels of each side of NIH's images, on which its boxes were drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    labels: str = cli.setting("The table Data_Entry_2017_v2020.csv, with a row an image.")
    images_dir: str = cli.setting("Folder of the .png images, or of images_001 to images_012.")
    boxes: str = cli.setting("The table BBox_List_2017.csv, or nothing.", default="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    boxed_only: bool = cli.setting(
        "Keep only images with a box in the table of boxes. LoVT's split holds others too.",
        default=False,
    )
    boxes_drawn_on: int = cli.setting(
        "Pixels of each side of the images that the boxes were drawn on, so that boxes follow a "
        "shrunk copy of the images; 0 for the sizes of the files themselves.",
        default=DRAWN_ON,
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.check("boxes_drawn_on", self.boxes_drawn_on >= 0, "0 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A row of the table of boxes: the finding, and its box in pixels of the image."""

    label: str
    box: schema.Box

    def values(self) -> tuple[str, float, float, float, float]:
        """Returns the box as `Drawn` reads it."""
        return (self.label, *self.box)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """Makes the regions of an image from its boxes, in a worker process.

    Attributes:
      side: pixels of each side of the images that the boxes were drawn on; 0 for the files.
    """

    side: int

    def __call__(self, found: Sequence[Sequence[Any]]) -> list[ImageRegion]:
        """Returns the regions of boxes that are lists [label, x1, y1, x2, y2]."""
        size = (self.side, self.side) if self.side else None
        return [dataclasses.replace(region, drawn_on=size) for region in labelled.boxes_of(found)]


def finding(text: str) -> str:
    """Returns the name of a finding as it stands in LABELS, from any case, blanks or underscores.

    Raises:
      RowProblem: `unknown_label`, if it is none of them.
    """
    name = _OF_KEY.get(values.simplified(text))
    if name is None:
        raise RowProblem("unknown_label", f"{text!r} is none of {', '.join(LABELS)}")
    return name


def labels_of(cell: object) -> tuple[int, ...]:
    """Returns 1 or 0 for each of LABELS from a cell such as "Mass|Nodule".

    Raises:
      RowProblem: `incomplete_row` for a blank cell, `unknown_label`, and `conflicting_labels` for a
        finding beside "No Finding".
      CellProblem: if the cell is no text.
    """
    text = values.text_of(cell, field="Finding Labels")
    if not text:
        raise RowProblem("incomplete_row", "column 'Finding Labels' is blank")
    found = {finding(part) for part in text.split("|")}
    if NO_FINDING in found and len(found) > 1:
        raise RowProblem("conflicting_labels", f"{text!r} names findings and none")
    return tuple(int(name in found) for name in LABELS)


def box_of(row: TableRow) -> Box:
    """Returns the box of a row of the table of boxes.

    Raises:
      RowProblem: `malformed_box`, if x and y are no numbers, or width and height not above 0;
        `unknown_label`.
    """
    try:
        x, y, width, height = (float(row.cells[side]) for side in _SIDES)
    except (TypeError, ValueError):
        x = y = width = height = math.nan
    if not (all(map(math.isfinite, (x, y, width, height))) and width > 0 and height > 0):
        said = ", ".join(str(row.cells[side]) for side in _SIDES)
        raise RowProblem("malformed_box", f"x, y, width and height are {said}")
    label = finding(values.text_of(row.cells["Finding Label"], field="Finding Label"))
    if label == NO_FINDING:
        raise RowProblem("unknown_label", f"a box is of no finding, {label!r}")
    return Box(label=label, box=(x, y, x + width, y + height))


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    tables = [cli.required_file(pathlib.Path(paths.labels), flag="--labels")]
    if paths.boxes:
        tables.append(cli.required_file(pathlib.Path(paths.boxes), flag="--boxes"))
    elif settings.boxed_only:
        raise ConfigError(
            "Only images with boxes are to be kept, and no table of boxes is given.",
            "Give BBox_List_2017.csv as --boxes.",
            where="--boxed_only",
        )
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs(tables, lists=paths.split_lists, settings=settings),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    table = settings.table(
        pathlib.Path(paths.labels), flag="--labels", key=_IMAGE, single_lines=True
    )
    table.require([("--labels", name) for name in (_IMAGE, "Finding Labels")])
    images_dir = pathlib.Path(paths.images_dir)
    files = labelled.found_images(
        images_dir, suffixes=(".png", ".jpg", ".jpeg"), flag="--images_dir"
    )
    groups = _by_image(table, reject=reject)
    boxes, broken, box_table = _boxes(paths.boxes, known=groups, settings=settings, reject=reject)
    cases = [
        _case(name, rows, files, boxes=boxes.get(name, ()), broken=broken.get(name))
        for name, rows in groups.items()
    ]
    if settings.boxed_only:
        cases = [_only_with_box(case) for case in cases]
    assignment = labelled.assigned(
        cases,
        data_set="nih",
        settings=settings,
        lists=paths.split_lists,
        official=_official(cases, paths, settings),
    )
    return labelled.labelled_plan(
        cases,
        assignment,
        directory=directory,
        reject=reject,
        images_dir=images_dir,
        settings=settings,
        label_names=LABELS,
        table=TableUse(
            name=table.name,
            read=table.read,
            notes=(*table.notes(), *absent_note(table.name, table.names, wanted=_WANTED)),
        ),
        other_tables=box_table,
        regions_of=Drawn(side=settings.boxes_drawn_on),
        notes=_unnamed_boxes(cases),
    )


def _by_image(table: Table, *, reject: Reject) -> dict[str, list[TableRow]]:
    """Returns name of an image without folders and suffix -> its rows."""
    found: dict[str, list[TableRow]] = {}
    for name, rows in grouped_rows.grouped(table, column=_IMAGE, reject=reject).items():
        found.setdefault(id_lists.plain_id(name), []).extend(rows)
    return found


def _unnamed_boxes(cases: Sequence[labelled.Case]) -> list[str]:
    """Returns a sentence on boxes of findings that the labels of their image do not name."""
    odd = [
        case.id
        for case in cases
        if not case.problem
        and any(not case.labels[LABELS.index(label)] for label, *_ in case.regions)
    ]
    if not odd:
        return []
    return [
        f"Warning: {len(odd):,} images, such as {odd[0]}, have a box of a finding that their "
        "labels do not name."
    ]


def _boxes(
    path: str,
    *,
    known: Mapping[str, Sequence[TableRow]],
    settings: Settings,
    reject: Reject,
) -> tuple[dict[str, list[Box]], dict[str, RowProblem], list[TableUse]]:
    """Returns image -> its boxes, image -> what is wrong with one of them, and the table's counts.

    An image with a box that cannot be followed is rejected: kept without the box it would say that
    the finding is nowhere. All rows of its boxes are rejected with it.
    """
    if not path:
        return {}, {}, []
    table = settings.table(pathlib.Path(path), flag="--boxes", key=_IMAGE, single_lines=True)
    table.require([("--boxes", name) for name in (_IMAGE, "Finding Label", *_SIDES)])
    boxes: dict[str, list[Box]] = {}
    broken: dict[str, RowProblem] = {}
    kept = 0
    for name, rows in _by_image(table, reject=reject).items():
        try:
            if name not in known:
                raise RowProblem("box_of_unknown_image", f"no row of the labels names {name}")
            # Rows that differ in how they are written alone are of one box.
            boxes[name] = list(dict.fromkeys(map(box_of, rows)))
            kept += len(rows)
        except (RowProblem, values.CellProblem) as problem:
            found = RowProblem(getattr(problem, "reason", "malformed_row"), problem.detail)
            if name in known:
                broken[name] = found
            left_out = {"rows": len(rows), "table": table.name}
            reject(Rejection(id=name, reason=found.reason, detail=found.detail, **left_out))
    for name, line in grouped_rows.left_out(table, column=_IMAGE, named=id_lists.plain_id).items():
        if name in known:
            broken.setdefault(name, RowProblem(*grouped_rows.unreadable(line)))
    return (
        boxes,
        broken,
        [TableUse(name=table.name, read=table.read, kept=kept, notes=table.notes())],
    )


def _case(
    name: str,
    rows: Sequence[TableRow],
    files: Mapping[str, str],
    *,
    boxes: Sequence[Box],
    broken: RowProblem | None,
) -> labelled.Case:
    path = files.get(name, str(rows[0].cells[_IMAGE]))
    place = {"id": name, "path": path, "patient": name.partition("_")[0]}
    place |= {"rows": len(rows), "line": rows[0].line}
    blank = (0,) * len(LABELS)
    if problem := grouped_rows.problem_of(rows):
        return labelled.Case(**place, labels=blank, problem=problem)
    if len(rows) > 1:
        detail = f"{len(rows)} rows of one image differ"
        return labelled.Case(**place, labels=blank, problem=("conflicting_rows", detail))
    cells = rows[0].cells
    try:
        if broken:
            raise RowProblem("box_left_out", f"one of its boxes: {broken.detail}")
        sex = subgroups.sex_of(cells.get("Patient Gender", cells.get("Patient Sex")), field="sex")
        return labelled.Case(
            **place,
            labels=labels_of(cells["Finding Labels"]),
            sex=sex,
            age=subgroups.age_of(cells.get("Patient Age"), field="Patient Age"),
            view=values.text_of(cells.get("View Position"), field="View Position").upper(),
            regions=[box.values() for box in boxes],
        )
    except (RowProblem, values.CellProblem) as problem:
        reason = getattr(problem, "reason", "malformed_row")
        return labelled.Case(**place, labels=blank, problem=(reason, problem.detail))


def _only_with_box(case: labelled.Case) -> labelled.Case:
    if case.regions or case.problem:
        return case
    return dataclasses.replace(case, problem=("image_without_box", "no row of the boxes names it"))


def _official(
    cases: Sequence[labelled.Case], paths: Paths, settings: Settings
) -> published_splits.Assignment | None:
    """Returns the official split: the list for training is divided by patient to validate on.

    The NIH publishes `train_val_list.txt` and `test_list.txt` alone. Patients of the first are
    drawn into train and validate in the proportion of the first two of --split_fractions.
    """
    if settings.split != published_splits.OFFICIAL:
        return None
    lists = id_lists.read_lists(paths.split_lists)
    members, unknown = published_splits.by_lists([case.id for case in cases], lists)
    train, validate, _ = settings.fractions()
    share = validate / (train + validate or 1.0)
    shares = (1.0 - share, share, 0.0)
    drawn: dict[str, list[int]] = {split: list(members.get(split, ())) for split in schema.SPLITS}
    both, drawn["train"], drawn["validate"] = drawn["train"] + drawn["validate"], [], []
    for place in both:
        drawn[settings.drawn(cases[place].patient, shares=shares)].append(place)
    return published_splits.Assignment(members=drawn, unknown=unknown)


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
