"""MS-CXR: phrases of reports with boxes on images of MIMIC-CXR-JPG -> a prepared set.

    python -m data_prep.ms_cxr --annotations=MS_CXR_Local_Alignment_v1.1.0.csv \
        --images_dir=mimic-cxr-jpg --split=official --out=prepared

A record is an image with its phrases. Each box is a region of its own; the boxes of one phrase have
the same `region_phrases` and belong together.

Source: MS-CXR 1.1.0 and its data page (PhysioNet); BioViL, arXiv:2204.09817.
"""

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep import ms_cxr_json
from data_prep.kit import cli, labelled, preparer, published_splits, splits, values
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, Reject, RowProblem, TableUse, rejecting_rows
from data_prep.kit.tables import Table
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import DataError

PROGRAM = "data_prep.ms_cxr"
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
PAIRS = 1_162
"""Image-phrase pairs of version 1.1.0, by its page at PhysioNet."""
_SIDES = ("x", "y", "w", "h")
_SIZES = ("image_width", "image_height")
COLUMNS = ("dicom_id", "category_name", "label_text", "path", *_SIDES, *_SIZES)
_PATIENT = re.compile(r"(?:^|/)(p\d{8})/s\d+/[^/]+$", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the raw data lies."""

    annotations: str = cli.setting(
        "The table MS_CXR_Local_Alignment_v1.1.0.csv, with a row a box, or the same as .json."
    )
    images_dir: str = cli.setting(
        "Folder of MIMIC-CXR-JPG that holds files/p10 to files/p19, of the original size or shrunk."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """A box, and the phrase that describes it.

    Attributes:
      dicom: id of the image.
      path: path of the image within MIMIC-CXR-JPG, files/p10/p10000032/s50414267/<dicom>.jpg.
      patient: id of the patient, p10000032.
      label: name of the finding, one of LABELS.
      phrase: the phrase.
      box: x1, y1, x2, y2 in pixels of the image of `size`.
      size: height and width of the image that the box was drawn on, in pixels.
      split: index in `schema.SPLITS`, None where the table does not say it.
    """

    dicom: str
    path: str
    patient: str
    label: str
    phrase: str
    box: schema.Box
    size: tuple[int, int]
    split: int | None


def annotation_of(cells: Mapping[str, Any]) -> Annotation:
    """Reads a row.

    Raises:
      RowProblem: `unknown_path` if the path is not that of an image of MIMIC-CXR, `unknown_label`,
        `malformed_annotation` if the row has no phrase or no box, and `unknown_split`.
      CellProblem: if a cell holds another kind of value than it should.
    """
    dicom = values.text_of(cells.get("dicom_id"), field="dicom_id")
    path = values.text_of(cells.get("path"), field="path").replace("\\", "/")
    patient = _PATIENT.search(path)
    if patient is None or path.rpartition("/")[2].rpartition(".")[0] != dicom:
        raise RowProblem("unknown_path", f"{path!r} is no path of image {dicom!r} of MIMIC-CXR")
    label = values.text_of(cells.get("category_name"), field="category_name")
    if label not in LABELS:
        raise RowProblem("unknown_label", f"{label!r} is none of {', '.join(LABELS)}")
    phrase = " ".join(values.text_of(cells.get("label_text"), field="label_text").split())
    if not phrase:
        raise RowProblem("malformed_annotation", "column 'label_text' is blank")
    x, y, width, height = (_number(cells, name) for name in _SIDES)
    columns, rows = (_number(cells, name) for name in _SIZES)
    if min(columns, rows) < 1 or min(width, height) <= 0:
        said = f"a box of {width:g}x{height:g} on an image of {columns:g}x{rows:g} pixels"
        raise RowProblem("malformed_annotation", said)
    written = values.text_of(cells.get("split"), field="split")
    split = splits.split_code(written)
    if written and split is None:
        raise RowProblem("unknown_split", f"{written!r} is not one of {splits.KNOWN_NAMES}")
    return Annotation(
        dicom=dicom,
        path=path,
        patient=patient[1],
        label=label,
        phrase=phrase,
        box=(x, y, x + width, y + height),
        size=(int(rows), int(columns)),
        split=split,
    )


def _number(cells: Mapping[str, Any], name: str) -> float:
    cell = cells.get(name)
    number = values.number_of(cell)
    if not math.isfinite(number):
        raise RowProblem("malformed_annotation", f"column {name!r} is {cell!r}")
    return number


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    table = cli.required_file(pathlib.Path(paths.annotations), flag="--annotations")
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=preparer.hashes([table]),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    path, images_dir = pathlib.Path(paths.annotations), pathlib.Path(paths.images_dir)
    found, broken, table = read_annotations(path, encoding=settings.encoding, reject=reject)
    cases = [_case(rows, broken=broken, images_dir=images_dir) for rows in found.values()]
    official = {name: [] for name in schema.SPLITS}
    for place, rows in enumerate(found.values()):
        if rows[0].split is not None:
            official[schema.SPLITS[rows[0].split]].append(place)
    if settings.split == published_splits.OFFICIAL and not any(official.values()):
        raise DataError(
            f"{path} has no column 'split', which MS-CXR has since version 1.1.0.",
            "Give the table of version 1.1.0, or set --split=seeded; with --split_fractions=0,0,1 "
            "all images are in the test split.",
            where="--split",
        )
    assignment = labelled.assigned(
        cases,
        data_set="ms_cxr",
        settings=settings,
        official=published_splits.Assignment(members=official),
    )
    pairs = {(one.dicom, one.label, one.phrase) for rows in found.values() for one in rows}
    boxes = sum(map(len, found.values()))
    note = (
        f"{table.name}: {boxes} boxes, {len(pairs)} image-phrase pairs, {len(cases)} images; "
        f"version 1.1.0 has {PAIRS:,} pairs."
    )
    return labelled.labelled_plan(
        cases,
        assignment,
        directory=directory,
        reject=reject,
        images_dir=images_dir,
        settings=settings,
        label_names=LABELS,
        table=table,
        regions_of=regions_of,
        notes=[note],
    )


def read_annotations(
    path: pathlib.Path, *, encoding: str, reject: Reject
) -> tuple[dict[str, list[Annotation]], set[str], TableUse]:
    """Reads the table, as .csv or as .json.

    Args:
      path: path of the table.
      encoding: encoding of a .csv; a .json is UTF-8.
      reject: function that counts what is left out.

    Returns:
      Image -> its boxes in the order of the table, images of which a row is left out, and the
      counts of the table.

    Raises:
      DataError: if the table cannot be read, or lacks a column.
    """
    if path.suffix.lower() == ".json":
        rows, notes = ms_cxr_json.rows_of(path, flag="--annotations")
        table = TableUse(name=path.name, read=len(rows), notes=notes)
        return (*_grouped(rows, name=path.name, reject=reject), table)
    csv = Table(path, flag="--annotations", key="dicom_id", encoding=encoding)
    csv.require([("--annotations", name) for name in COLUMNS])
    rows = [(row.line, row.cells) for row in csv.rows(reject=rejecting_rows(csv, reject))]
    found = _grouped(rows, name=csv.name, reject=reject)
    return (*found, TableUse(name=csv.name, read=csv.read, notes=csv.notes()))


def _grouped(
    rows: Sequence[tuple[int, Mapping[str, Any]]], *, name: str, reject: Reject
) -> tuple[dict[str, list[Annotation]], set[str]]:
    found: dict[str, list[Annotation]] = {}
    broken: set[str] = set()
    for line, cells in rows:
        try:
            one = annotation_of(cells)
            if one in found.get(one.dicom, ()):
                raise RowProblem("duplicate_row", f"it repeats a row of {one.dicom}")
        except (RowProblem, values.CellProblem) as problem:
            reason = getattr(problem, "reason", "malformed_row")
            if reason != "duplicate_row":
                broken.add(str(cells.get("dicom_id")).strip())
            where = {"id": f"{name}:{line}", "rows": 1, "table": name}
            reject(Rejection(reason=reason, detail=problem.detail, **where))
            continue
        found.setdefault(one.dicom, []).append(one)
    return found, broken


def _case(
    rows: Sequence[Annotation], *, broken: set[str], images_dir: pathlib.Path
) -> labelled.Case:
    """Returns the case of an image, with its problem if its rows cannot be followed."""
    first = rows[0]
    plain = first.path.removeprefix("files/") if images_dir.name == "files" else first.path
    place = {"id": first.dicom, "path": plain, "patient": first.patient, "rows": len(rows)}
    there = {one.label for one in rows}
    problem = None
    if len({(one.path, one.size, one.split) for one in rows}) > 1:
        detail = "its rows differ in path, size of the image or split"
        problem = ("conflicting_rows", detail)
    elif first.dicom in broken:
        # Without one of its boxes a phrase would be somewhere else.
        problem = ("box_left_out", "one of its rows is left out")
    return labelled.Case(
        **place,
        labels=tuple(1 if name in there else schema.LABEL_NOT_MENTIONED for name in LABELS),
        regions=[(one.label, one.phrase, one.box, one.size) for one in rows],
        problem=problem,
    )


def regions_of(found: Sequence[Any]) -> list[ImageRegion]:
    """Returns a region for each box, with its phrase."""
    return [
        ImageRegion(label=label, phrase=phrase, box=tuple(box), drawn_on=tuple(size))
        for label, phrase, box, size in found
    ]


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
