"""Reads the tables of MIMIC-CXR-JPG into compact arrays on disk, by image and by study.

The tables are streamed; while they are joined, each image takes about 200 bytes of memory. The
workers memory-map the resulting arrays, so that they share them.
"""

import array
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.kit import cli, splits
from data_prep.kit.ids import IdColumn
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import NOT_CHOSEN, Reject, TableUse, rejecting_rows
from data_prep.kit.tables import MALFORMED, Table
from data_prep.kit.values import CellProblem, text_of
from data_prep.mimic_labels import number_of, study_labels
from prior_jax.errors import DataError

# A DICOM id has 44 characters.
_ID_BYTES = 48
_NO_SPLIT = -1
_NO_IMAGE = "the study has no image of a chosen view that could be kept"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Paths of the tables, and their encoding; `labels` is None for a set without labels."""

    metadata: pathlib.Path
    split: pathlib.Path
    labels: pathlib.Path | None
    encoding: str


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
        """Memory-maps the arrays that `save` wrote; nothing is read before it is used."""
        values = {
            field.name: np.load(directory / f"{field.name}.npy", mmap_mode="r")
            for field in dataclasses.fields(cls)
        }
        for name in ("view_names", "label_names"):
            values[name] = tuple(str(value) for value in values[name])
        return cls(**values)


def build_index(
    tables: Tables,
    *,
    views: Sequence[str],
    reject: Reject,
    only: Sequence[str] | None = None,
) -> tuple[Index, list[TableUse]]:
    """Joins the tables, chooses the images, and passes each row that is left out to `reject`.

    Args:
      tables: paths of the tables.
      views: ViewPosition values to keep, in upper case.
      reject: function that is called with reason duplicate_row, malformed_row, row_without_split,
        unknown_split, split_row_without_metadata, wrong_view, study_in_two_patients,
        patient_in_two_splits or study_without_image.
      only: ids of the images to keep, None for all. The rows of the others are only counted, and an
        id without a row is passed to `reject` as listed_without_row.

    Returns:
      The chosen images, and the numbers of rows of each table that were read and used.

    Raises:
      DataError: if a table cannot be read, or if the label table belongs to other studies.
    """
    metadata = _opened(tables.metadata, flag="--metadata_table", encoding=tables.encoding)
    dicoms, subjects, studies, view, view_names = _metadata(metadata, reject=reject)
    order = np.argsort(dicoms, kind="stable")
    dicoms, subjects, studies, view = (x[order] for x in (dicoms, subjects, studies, view))
    repeated = np.zeros(len(dicoms), bool)
    repeated[1:] = dicoms[1:] == dicoms[:-1]
    _reject_images(reject, "duplicate_row", dicoms, studies, repeated, table=metadata.name)
    dicoms, subjects, studies, view = (x[~repeated] for x in (dicoms, subjects, studies, view))
    codes, split_use = _splits(tables.split, dicoms, encoding=tables.encoding, reject=reject)
    known, unlisted = dicoms, 0
    if only is not None:
        listed = listed_images(dicoms, only, reject=reject)
        unlisted = int(np.sum(~listed))
        dicoms, subjects, studies, view, codes = (
            x[listed] for x in (dicoms, subjects, studies, view, codes)
        )
    unsplit = codes == _NO_SPLIT
    _reject_images(reject, "row_without_split", dicoms, studies, unsplit, table=metadata.name)
    wanted = np.isin(view, [i for i, name in enumerate(view_names) if name in views])
    other = ~unsplit & ~wanted
    for place in np.flatnonzero(other):
        shown = f"the view is {view_names[view[place]] or 'blank'}"
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
        reject(Rejection(id=f"s{study}", reason="study_without_image", detail=_NO_IMAGE))
    dicoms, subjects, studies, view, codes = (
        x[keep] for x in (dicoms, subjects, studies, view, codes)
    )
    order = np.lexsort((dicoms, studies, subjects, codes))
    studies = studies[order]
    first = np.flatnonzero(np.r_[True, studies[1:] != studies[:-1]]) if len(studies) else order
    chosen = order[first]
    label_names, labels, label_uses = study_labels(
        tables.labels, studies[first], encoding=tables.encoding, reject=reject
    )
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
        TableUse(
            name=metadata.name,
            read=metadata.read,
            unused={NOT_CHOSEN: unlisted} if unlisted else {},
            notes=metadata.notes(),
        ),
        split_use,
        *label_uses,
    ]


def listed_images(dicoms: np.ndarray, only: Sequence[str], *, reject: Reject) -> np.ndarray:
    """Returns bool[I], which of the sorted images are listed.

    Args:
      dicoms: S48[I], ids of all images, sorted.
      only: ids of the list.
      reject: function that is called for an id that no image has.
    """
    listed = np.zeros(len(dicoms), bool)
    for name in dict.fromkeys(only):
        identity = np.bytes_(name.encode("utf-8", "surrogateescape"))
        place = int(np.searchsorted(dicoms, identity))
        if place < len(dicoms) and dicoms[place] == identity:
            listed[place] = True
        else:
            detail = "the list names it, and no row of the metadata table does"
            reject(Rejection(id=name, reason="listed_without_row", detail=detail))
    return listed


def _opened(path: pathlib.Path, *, flag: str, encoding: str) -> Table:
    return Table(path, flag=flag, key="dicom_id", single_lines=True, encoding=encoding)


def _image(dicoms, studies, place: int, reason: str, detail: str, *, table: str) -> Rejection:
    name = f"s{studies[place]}/{dicoms[place].decode()}"
    return Rejection(id=name, reason=reason, detail=detail, rows=1, table=table)


def _reject_images(reject: Reject, reason: str, dicoms, studies, chosen, *, table: str) -> None:
    for place in np.flatnonzero(chosen):
        reject(_image(dicoms, studies, place, reason, "", table=table))


def _metadata(table: Table, *, reject: Reject):
    """Returns the columns of the metadata table, with an entry for each image.

    Returns:
      The images' ids, one after the other; their patients; their studies; their views, as indices;
      and name of a view -> its index.
    """
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
    """Returns the id of an image at fixed width.

    Raises:
      CellProblem: if the id cannot be the name of a file.
    """
    content = dicom.strip().encode("utf-8", "surrogateescape")
    safe = content.isascii() and b"/" not in content and not content.startswith(b".")
    if not (safe and 0 < len(content) <= _ID_BYTES):
        raise CellProblem(f"dicom_id is {dicom!r}, which cannot be the name of an image")
    return content.ljust(_ID_BYTES, b"\0")


def _splits(
    path: pathlib.Path, dicoms: np.ndarray, *, encoding: str, reject: Reject
) -> tuple[np.ndarray, TableUse]:
    """Returns int8[I], the split of each of the sorted images or _NO_SPLIT, and the table's use."""
    codes = np.full(len(dicoms), _NO_SPLIT, np.int8)
    table = _opened(path, flag="--split_table", encoding=encoding)
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
            reject_row(row.line, "unknown_split", f"{name!r} is not one of {splits.KNOWN_NAMES}")
        elif codes[place] != _NO_SPLIT:
            reject_row(row.line, "duplicate_row", dicom)
        else:
            codes[place] = code
    kept = int(np.sum(codes != _NO_SPLIT))
    return codes, TableUse(name=table.name, read=table.read, kept=kept, notes=table.notes())


def find_tables(
    root: pathlib.Path, *, overrides: Mapping[str, str], labels: str, encoding: str
) -> Tables:
    """Finds the tables of a download of version 2.0.0 or 2.1.0, packed or not.

    Args:
      root: folder of the tables.
      overrides: "metadata", "split" or "labels" -> path that the user has given, or "".
      labels: "chexpert", "negbio" or "none".
      encoding: encoding of the tables.

    Raises:
      ConfigError: if a path is too long.
      DataError: if a table is missing, or if the folder has two tables of one kind.
    """

    def find(kind: str, name: str) -> pathlib.Path | None:
        if overrides[kind]:
            return cli.required_file(pathlib.Path(overrides[kind]), flag=f"--{kind}_table")
        found = sorted({*root.glob(f"mimic-cxr-*-{name}.csv.gz"), *root.glob(f"*-{name}.csv")})
        if len(found) > 1:
            raise DataError(
                f"{root} has several {name} tables: {' and '.join(path.name for path in found)}.",
                f"Name one of them with --{kind}_table, or leave only one in the folder.",
                where="--images_dir",
            )
        return found[0] if found else None

    metadata, split = find("metadata", "metadata"), find("split", "split")
    if metadata is None or split is None:
        raise DataError(
            f"{root} lacks the metadata table or the split table; it holds "
            f"{', '.join(sorted(path.name for path in root.iterdir())[:8])}.",
            "Put mimic-cxr-2.0.0-metadata.csv.gz and mimic-cxr-2.0.0-split.csv.gz into the folder, "
            "or name them with --metadata_table and --split_table.",
            where="--images_dir",
        )
    label_table = None if labels == "none" else find("labels", labels)
    if label_table is None and labels != "none":
        raise DataError(
            f"{root} has no label table mimic-cxr-*-{labels}.csv.gz.",
            "Put the table into the folder, name it with --labels_table, or set --labels=none to "
            "prepare the set without labels.",
            where="--labels",
        )
    return Tables(metadata=metadata, split=split, labels=label_table, encoding=encoding)
