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
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, Reject, RowProblem, TableUse
from data_prep.kit.tables import TableRow
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
_SPELLINGS = {"Pleural_Thickening": "Pleural Thickening", "Infiltrate": "Infiltration"}
_SIDES = ("Bbox [x", "y", "w", "h]")
_IMAGE = "Image Index"


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
        "Keep only images with a box in the table of boxes, as LoVT's split does.", default=False
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A row of the table of boxes: the finding, and its box in pixels of the image."""

    label: str
    box: schema.Box

    def values(self) -> tuple[str, float, float, float, float]:
        """Returns the box as `labelled.boxes_of` reads it."""
        return (self.label, *self.box)


def finding(text: str) -> str:
    """Returns the name of a finding as it stands in LABELS.

    Raises:
      RowProblem: `unknown_label`, if it is none of them.
    """
    name = _SPELLINGS.get(text.strip(), text.strip())
    if name not in LABELS:
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
    files = labelled.found_images(images_dir, suffixes=(".png", ".jpg", ".jpeg"))
    groups = grouped_rows.grouped(table, column=_IMAGE, reject=reject)
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
        table=TableUse(name=table.name, read=table.read, notes=table.notes()),
        other_tables=box_table,
    )


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
    for name, rows in grouped_rows.grouped(table, column=_IMAGE, reject=reject).items():
        try:
            if name not in known:
                raise RowProblem("box_of_unknown_image", f"no row of the labels names {name}")
            boxes[name] = [box_of(row) for row in rows]
            kept += len(rows)
        except (RowProblem, values.CellProblem) as problem:
            found = RowProblem(getattr(problem, "reason", "malformed_row"), problem.detail)
            if name in known:
                broken[name] = found
            left_out = {"rows": len(rows), "table": table.name}
            reject(Rejection(id=name, reason=found.reason, detail=found.detail, **left_out))
    for name, line in grouped_rows.left_out(table, column=_IMAGE).items():
        for own in {name, id_lists.plain_id(name)} & known.keys():
            broken.setdefault(own, RowProblem(*grouped_rows.unreadable(line)))
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
    plain = id_lists.plain_id(name)
    place = {"id": plain, "path": files.get(plain, name), "patient": plain.partition("_")[0]}
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
            view=values.text_of(cells.get("View Position"), field="View Position"),
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
