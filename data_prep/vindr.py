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
from data_prep.kit.tables import Table
from data_prep.vindr_tables import (
    ANY,
    LABEL_RULES,
    LABELS,
    MAJORITY,
    NO_FINDING,
    SIDES,
    Boxes,
    Labels,
    boxes_of,
    differences,
    labels_of,
    regions_of,
)
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError

PROGRAM = "data_prep.vindr"
BOXES = "rows of the boxes"
_ID = "image_id"
_FILES = {"train": "train", "test": "test"}


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
        _case(
            name,
            of_labels,
            files,
            boxes=boxes.get(name, {}),
            broken=broken.get(name),
            how=settings,
        )
        for name in of_labels.rows
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
    columns = (_ID, "class_name", *SIDES)
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
            said = read.placed(name, problem.detail)
            found = RowProblem(getattr(problem, "reason", "malformed_row"), said)
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
    of_labels: split_tables.SplitRows,
    files: Mapping[str, str],
    *,
    boxes: Boxes,
    broken: RowProblem | None,
    how: Settings,
) -> labelled.Case:
    rows = of_labels.rows[name]
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
        said = of_labels.placed(name, problem.detail)
        return labelled.Case(**place, labels=blank, problem=(reason, said))


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
