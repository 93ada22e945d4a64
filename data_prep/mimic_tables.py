"""Reads MIMIC-CXR-JPG's tables into compact arrays on disk, one row an image or a study.

The tables are streamed; an image costs about 200 bytes while they are joined. Workers map the
arrays that are left, so that they share them.
"""

import array
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.kit import splits
from data_prep.kit.ids import IdColumn
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Reject, TableUse
from data_prep.kit.tables import MALFORMED, Table
from data_prep.kit.values import CellProblem, text_of
from data_prep.mimic_labels import number_of, rejecting_rows, study_labels
from prior_jax.errors import DataError

# A DICOM id has 44 characters.
_ID_BYTES = 48
_NO_SPLIT = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Paths of the tables; `labels` is None for a set without labels."""

    metadata: pathlib.Path
    split: pathlib.Path
    labels: pathlib.Path | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """The chosen images, grouped into studies sorted by split, patient and study.

    Attributes:
      dicoms: S48[I], ids of the kept images, sorted within a study.
      views: int8[I], index into `view_names`.
      starts: int64[N + 1], first image of each study.
      studies: int64[N].
      subjects: int64[N].
      codes: int8[N], index into schema.SPLITS.
      labels: int8[N, C].
      known: S48[M], sorted ids of every image of the metadata table, kept or not.
      view_names: names of the views in `views`.
      label_names: names of the columns of `labels`.
    """

    dicoms: np.ndarray
    views: np.ndarray
    starts: np.ndarray
    studies: np.ndarray
    subjects: np.ndarray
    codes: np.ndarray
    labels: np.ndarray
    known: np.ndarray
    view_names: tuple[str, ...]
    label_names: tuple[str, ...]

    def save(self, directory: pathlib.Path) -> None:
        """Writes one `.npy` for each array."""
        directory.mkdir(exist_ok=True)
        for field in dataclasses.fields(self):
            np.save(directory / f"{field.name}.npy", np.asarray(getattr(self, field.name), None))

    @classmethod
    def load(cls, directory: pathlib.Path) -> "Index":
        """Maps the arrays `save` wrote; nothing is read before it is used."""
        values = {
            field.name: np.load(directory / f"{field.name}.npy", mmap_mode="r")
            for field in dataclasses.fields(cls)
        }
        for name in ("view_names", "label_names"):
            values[name] = tuple(str(value) for value in values[name])
        return cls(**values)


def build_index(
    tables: Tables, *, views: Sequence[str], reject: Reject
) -> tuple[Index, list[TableUse]]:
    """Joins the tables and chooses images, telling `reject` of each row left out.

    Args:
      tables: paths of the tables.
      views: ViewPosition values to keep, in upper case.
      reject: called with reason duplicate_row, malformed_row, row_without_split, unknown_split,
        split_row_without_metadata, wrong_view, study_in_two_patients, patient_in_two_splits or
        study_without_image.

    Returns:
      The chosen images, and how many rows of each table were read and used.

    Raises:
      DataError: if a table cannot be read, or if the label table is not that of these studies.
    """
    metadata = Table(tables.metadata, flag="--metadata_table", key="dicom_id", single_lines=True)
    dicoms, subjects, studies, view, view_names = _metadata(metadata, reject=reject)
    order = np.argsort(dicoms, kind="stable")
    dicoms, subjects, studies, view = (x[order] for x in (dicoms, subjects, studies, view))
    repeated = np.zeros(len(dicoms), bool)
    repeated[1:] = dicoms[1:] == dicoms[:-1]
    _reject_images(reject, "duplicate_row", dicoms, studies, repeated, table=metadata.name)
    dicoms, subjects, studies, view = (x[~repeated] for x in (dicoms, subjects, studies, view))
    codes, split_use = _splits(tables.split, dicoms, reject=reject)
    unsplit = codes == _NO_SPLIT
    _reject_images(reject, "row_without_split", dicoms, studies, unsplit, table=metadata.name)
    wanted = np.isin(view, [i for i, name in enumerate(view_names) if name in views])
    other = ~unsplit & ~wanted
    for place in np.flatnonzero(other):
        shown = view_names[view[place]] or "no view"
        reject(_image(dicoms, studies, place, "wrong_view", shown, table=metadata.name))
    _, of_study = np.unique(studies, return_inverse=True)
    mixed = splits.subjects_in_two_splits(of_study, subjects)
    keep = ~unsplit & wanted
    _reject_images(
        reject, "study_in_two_patients", dicoms, studies, keep & mixed, table=metadata.name
    )
    keep &= ~mixed
    leaking = np.zeros(len(keep), bool)
    leaking[~unsplit] = splits.subjects_in_two_splits(subjects[~unsplit], codes[~unsplit])
    _reject_images(
        reject, "patient_in_two_splits", dicoms, studies, keep & leaking, table=metadata.name
    )
    keep &= ~leaking
    for study in np.setdiff1d(studies, studies[keep]):
        reject(Rejection(id=f"s{study}", reason="study_without_image", detail="of a chosen view"))
    known = dicoms
    dicoms, subjects, studies, view, codes = (
        x[keep] for x in (dicoms, subjects, studies, view, codes)
    )
    order = np.lexsort((dicoms, studies, subjects, codes))
    studies = studies[order]
    first = np.flatnonzero(np.r_[True, studies[1:] != studies[:-1]]) if len(studies) else order
    chosen = order[first]
    label_names, labels, label_uses = study_labels(tables.labels, studies[first], reject=reject)
    index = Index(
        dicoms=dicoms[order],
        views=view[order],
        starts=np.r_[first, len(order)].astype(np.int64),
        studies=studies[first],
        subjects=subjects[chosen],
        codes=codes[chosen],
        labels=labels,
        known=known,
        view_names=tuple(view_names),
        label_names=label_names,
    )
    return index, [
        TableUse(name=metadata.name, read=metadata.read, notes=metadata.notes()),
        split_use,
        *label_uses,
    ]


def _image(dicoms, studies, place: int, reason: str, detail: str, *, table: str) -> Rejection:
    name = f"s{studies[place]}/{dicoms[place].decode()}"
    return Rejection(id=name, reason=reason, detail=detail, rows=1, table=table)


def _reject_images(reject: Reject, reason: str, dicoms, studies, chosen, *, table: str) -> None:
    for place in np.flatnonzero(chosen):
        reject(_image(dicoms, studies, place, reason, "", table=table))


def _metadata(table: Table, *, reject: Reject):
    """Returns (dicoms, subjects, studies, views, view names) of the metadata table."""
    dicoms, subjects, studies = bytearray(), array.array("q"), array.array("q")
    view, names = array.array("b"), {}
    flag, reject_row = table.flag, rejecting_rows(table, reject)
    table.require((flag, name) for name in ("dicom_id", "subject_id", "study_id", "ViewPosition"))
    subject_column = IdColumn(table, flag=flag, name="subject_id")
    study_column = IdColumn(table, flag=flag, name="study_id")
    for row in table.rows(reject=reject_row):
        try:
            identity = _identity(text_of(row.cells.get("dicom_id"), field="dicom_id"))
            subject = number_of(subject_column, row, prefix="p")
            study = number_of(study_column, row, prefix="s")
            position = text_of(row.cells.get("ViewPosition"), field="ViewPosition").upper()
        except CellProblem as problem:
            reject_row(row.line, MALFORMED, problem.detail)
            continue
        if position not in names and len(names) == 127:
            position = ""
        dicoms += identity
        subjects.append(subject)
        studies.append(study)
        view.append(names.setdefault(position, len(names)))
    subject_column.check()
    study_column.check()
    return (
        np.frombuffer(bytes(dicoms), f"S{_ID_BYTES}"),
        np.frombuffer(subjects, np.int64) if subjects else np.zeros(0, np.int64),
        np.frombuffer(studies, np.int64) if studies else np.zeros(0, np.int64),
        np.frombuffer(view, np.int8) if view else np.zeros(0, np.int8),
        list(names),
    )


def _identity(dicom: str) -> bytes:
    """Returns an image's id at fixed width.

    Raises:
      CellProblem: for an id that could not be the name of a file.
    """
    content = dicom.strip().encode("utf-8", "surrogateescape")
    safe = content.isascii() and b"/" not in content and not content.startswith(b".")
    if not (safe and 0 < len(content) <= _ID_BYTES):
        raise CellProblem(f"dicom_id is {dicom!r}, which is no image's name")
    return content.ljust(_ID_BYTES, b"\0")


def _splits(
    path: pathlib.Path, dicoms: np.ndarray, *, reject: Reject
) -> tuple[np.ndarray, TableUse]:
    """Returns int8[I], the split of each of the sorted images, or _NO_SPLIT."""
    codes = np.full(len(dicoms), _NO_SPLIT, np.int8)
    table = Table(path, flag="--split_table", key="dicom_id", single_lines=True)
    table.require((table.flag, name) for name in ("dicom_id", "split"))
    reject_row = rejecting_rows(table, reject)
    for row in table.rows(reject=reject_row):
        try:
            dicom, name = (text_of(row.cells.get(n), field=n) for n in ("dicom_id", "split"))
            identity = np.bytes_(_identity(dicom).rstrip(b"\0"))
        except CellProblem as problem:
            reject_row(row.line, MALFORMED, problem.detail)
            continue
        place = int(np.searchsorted(dicoms, identity))
        code = splits.split_code(name)
        if place == len(dicoms) or dicoms[place] != identity:
            reject_row(row.line, "split_row_without_metadata", dicom)
        elif code is None:
            reject_row(row.line, "unknown_split", f"{name!r} is none of {splits.KNOWN_NAMES}")
        elif codes[place] != _NO_SPLIT:
            reject_row(row.line, "duplicate_row", dicom)
        else:
            codes[place] = code
    kept = int(np.sum(codes != _NO_SPLIT))
    return codes, TableUse(name=table.name, read=table.read, kept=kept, notes=table.notes())


def find_tables(root: pathlib.Path, *, overrides: Mapping[str, str], labels: str) -> Tables:
    """Finds the tables of a download of version 2.0.0 or 2.1.0, packed or not.

    Args:
      root: the folder that holds them.
      overrides: "metadata", "split" or "labels" -> a path given by the user, "" for none.
      labels: "chexpert", "negbio" or "none".

    Raises:
      DataError: if a table is absent that is needed, a path given is, or two tables could be meant.
    """

    def find(kind: str, name: str) -> pathlib.Path | None:
        if overrides[kind]:
            path = pathlib.Path(overrides[kind])
            if not path.is_file():
                raise DataError(f"--{kind}_table", received=str(path), accepted="an existing file")
            return path
        found = sorted({*root.glob(f"mimic-cxr-*-{name}.csv.gz"), *root.glob(f"*-{name}.csv")})
        if len(found) > 1:
            raise DataError(
                f"--images_dir: {root}",
                received=" and ".join(path.name for path in found),
                accepted=f"one {name} table in it, or the one that is meant by --{kind}_table",
            )
        return found[0] if found else None

    metadata, split = find("metadata", "metadata"), find("split", "split")
    if metadata is None or split is None:
        raise DataError(
            f"--images_dir: {root}",
            received=sorted(path.name for path in root.iterdir())[:8],
            accepted="mimic-cxr-2.0.0-metadata.csv.gz and mimic-cxr-2.0.0-split.csv.gz in it",
        )
    label_table = None if labels == "none" else find("labels", labels)
    if label_table is None and labels != "none":
        raise DataError(
            "--labels",
            received=f"{labels}, but {root} holds no mimic-cxr-*-{labels}.csv.gz",
            accepted="that table in it, or its path by --labels_table; --labels=none prepares the "
            "set without labels",
        )
    return Tables(metadata=metadata, split=split, labels=label_table)
