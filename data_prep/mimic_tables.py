"""Reads MIMIC-CXR-JPG's tables into compact arrays on disk, one row an image or a study.

The tables are streamed; an image costs about 200 bytes while they are joined. Workers map the
arrays that are left, so that they share them.
"""

import array
import csv
import dataclasses
import gzip
import io
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from data_prep.kit import splits
from data_prep.kit.writer import Rejection
from prior_jax.data.schema import (
    LABEL_NEGATIVE,
    LABEL_NOT_MENTIONED,
    LABEL_POSITIVE,
    LABEL_UNCERTAIN,
    SPLITS,
)
from prior_jax.errors import DataError

Reject = Callable[[Rejection], None]

# A DICOM id has 44 characters.
_ID_BYTES = 48
_LABEL_CODES = {
    "1": LABEL_POSITIVE,
    "0": LABEL_NEGATIVE,
    "-1": LABEL_UNCERTAIN,
    "": LABEL_NOT_MENTIONED,
}
_NO_SPLIT = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Paths of the tables; `chexpert` and `negbio` may be absent."""

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


def rows(path: pathlib.Path, *, columns: Sequence[str], reject: Reject) -> Iterator[list[str]]:
    """Yields the named columns of a `.csv` or `.csv.gz`, a row at a time.

    Args:
      path: the table.
      columns: names that the header must have; () for all, then the header comes first.
      reject: called for each row that has too few cells ("malformed_row").

    Raises:
      DataError: if the file is damaged, empty or lacks a column.
    """
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            file = gzip.open(raw) if packed else raw
            reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
            header = next(reader, None)
            if header is None:
                raise DataError(str(path), received="an empty file", accepted="a table")
            missing = [name for name in columns if name not in header]
            if missing:
                raise DataError(
                    f"{path}: columns {missing}", received=header, accepted="a header with them"
                )
            if not columns:
                yield header
            wanted = [header.index(name) for name in columns or header]
            for line in reader:
                if not line:
                    continue
                if len(line) < len(header):
                    reject(
                        Rejection(
                            id=f"{path.name}:{reader.line_num}",
                            reason="malformed_row",
                            detail=f"{len(line)} cells, {len(header)} columns",
                        )
                    )
                    continue
                yield [line[column] for column in wanted]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(str(path), received="no such file", accepted="a table") from error
        raise DataError(str(path), received=str(error), accepted="an undamaged table") from error


def build_index(tables: Tables, *, views: Sequence[str], reject: Reject) -> Index:
    """Joins the tables and chooses images, telling `reject` of each row left out.

    Args:
      tables: where they are.
      views: ViewPosition values to keep.
      reject: called with reason duplicate_row, malformed_row, row_without_split, unknown_split,
        split_row_without_metadata, wrong_view, study_in_two_patients, patient_in_two_splits or
        study_without_image.
    """
    dicoms, subjects, studies, view, view_names = _metadata(tables.metadata, reject=reject)
    order = np.argsort(dicoms, kind="stable")
    dicoms, subjects, studies, view = (x[order] for x in (dicoms, subjects, studies, view))
    repeated = np.zeros(len(dicoms), bool)
    repeated[1:] = dicoms[1:] == dicoms[:-1]
    _reject_images(reject, "duplicate_row", dicoms, studies, repeated, tables.metadata.name)
    dicoms, subjects, studies, view = (x[~repeated] for x in (dicoms, subjects, studies, view))
    codes = _splits(tables.split, dicoms, reject=reject)
    unsplit = codes == _NO_SPLIT
    _reject_images(reject, "row_without_split", dicoms, studies, unsplit, tables.split.name)
    wanted = np.isin(view, [i for i, name in enumerate(view_names) if name in views])
    other = ~unsplit & ~wanted
    for place in np.flatnonzero(other):
        reject(_image(dicoms, studies, place, "wrong_view", view_names[view[place]] or "no view"))
    _, of_study = np.unique(studies, return_inverse=True)
    mixed = splits.subjects_in_two_splits(of_study, subjects)
    keep = ~unsplit & wanted
    _reject_images(reject, "study_in_two_patients", dicoms, studies, keep & mixed, "")
    keep &= ~mixed
    leaking = np.zeros(len(keep), bool)
    leaking[~unsplit] = splits.subjects_in_two_splits(subjects[~unsplit], codes[~unsplit])
    _reject_images(reject, "patient_in_two_splits", dicoms, studies, keep & leaking, "")
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
    label_names, labels = _labels(tables.labels, studies[first], reject=reject)
    return Index(
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


def _image(dicoms, studies, place: int, reason: str, detail: str) -> Rejection:
    name = f"s{studies[place]}/{dicoms[place].decode()}"
    return Rejection(id=name, reason=reason, detail=detail)


def _reject_images(reject: Reject, reason: str, dicoms, studies, chosen, detail: str) -> None:
    for place in np.flatnonzero(chosen):
        reject(_image(dicoms, studies, place, reason, detail))


def _metadata(path: pathlib.Path, *, reject: Reject):
    """Returns (dicoms, subjects, studies, views, view names) of the metadata table."""
    dicoms, subjects, studies = bytearray(), array.array("q"), array.array("q")
    view, names = array.array("b"), {}
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
    for dicom, subject, study, position in rows(path, columns=columns, reject=reject):
        try:
            identity = _identity(dicom)
            numbers = int(subject.removeprefix("p")), int(study.removeprefix("s"))
        except ValueError as error:
            reject(Rejection(id=dicom or path.name, reason="malformed_row", detail=str(error)))
            continue
        if position not in names and len(names) == 127:
            position = ""
        dicoms += identity
        subjects.append(numbers[0])
        studies.append(numbers[1])
        view.append(names.setdefault(position, len(names)))
    return (
        np.frombuffer(bytes(dicoms), f"S{_ID_BYTES}"),
        np.frombuffer(subjects, np.int64) if subjects else np.zeros(0, np.int64),
        np.frombuffer(studies, np.int64) if studies else np.zeros(0, np.int64),
        np.frombuffer(view, np.int8) if view else np.zeros(0, np.int8),
        list(names),
    )


def _identity(dicom: str) -> bytes:
    """Returns an image's id at fixed width; refuses one that could not be a file's name."""
    content = dicom.strip().encode("ascii", "strict")
    if not 0 < len(content) <= _ID_BYTES or b"/" in content or content.startswith(b"."):
        raise ValueError(f"dicom_id {dicom!r}")
    return content.ljust(_ID_BYTES, b"\0")


def _splits(path: pathlib.Path, dicoms: np.ndarray, *, reject: Reject) -> np.ndarray:
    """Returns int8[I], the split of each of the sorted images, or _NO_SPLIT."""
    codes = np.full(len(dicoms), _NO_SPLIT, np.int8)
    for dicom, name in rows(path, columns=("dicom_id", "split"), reject=reject):
        try:
            identity = np.bytes_(_identity(dicom).rstrip(b"\0"))
        except ValueError as error:
            reject(Rejection(id=dicom or path.name, reason="malformed_row", detail=str(error)))
            continue
        place = int(np.searchsorted(dicoms, identity))
        code = splits.split_code(name)
        if place == len(dicoms) or dicoms[place] != identity:
            reject(Rejection(id=dicom, reason="split_row_without_metadata", detail=path.name))
        elif code is None:
            reject(Rejection(id=dicom, reason="unknown_split", detail=f"{name!r}, not of {SPLITS}"))
        elif codes[place] != _NO_SPLIT:
            reject(Rejection(id=dicom, reason="duplicate_row", detail=path.name))
        else:
            codes[place] = code
    return codes


def _labels(
    path: pathlib.Path | None, studies: np.ndarray, *, reject: Reject
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns label names and int8[N, C]; a study without a row has "not mentioned" throughout."""
    if path is None:
        return (), np.zeros((len(studies), 0), np.int8)
    table = rows(path, columns=(), reject=reject)
    header = next(table)
    if not {"subject_id", "study_id"} <= set(header):
        raise DataError(str(path), received=header, accepted="columns subject_id and study_id")
    columns = [i for i, name in enumerate(header) if name not in ("subject_id", "study_id")]
    order = np.argsort(studies)
    ranked = studies[order]
    labels = np.full((len(studies), len(columns)), LABEL_NOT_MENTIONED, np.int8)
    seen = np.zeros(len(studies), bool)
    for line in table:
        study = line[header.index("study_id")]
        try:
            number = int(study.removeprefix("s"))
            values = [_LABEL_CODES[line[column].strip().removesuffix(".0")] for column in columns]
        except (ValueError, KeyError) as error:
            detail = f"{path.name}: {error}"
            reject(Rejection(id=f"s{study}", reason="malformed_row", detail=detail))
            continue
        place = int(np.searchsorted(ranked, number))
        if place == len(ranked) or ranked[place] != number:
            continue  # a study of no chosen image, listed already
        if seen[order[place]]:
            reject(Rejection(id=f"s{study}", reason="duplicate_row", detail=path.name))
            continue
        seen[order[place]] = True
        labels[order[place]] = values
    return tuple(header[column] for column in columns), labels


def find_tables(root: pathlib.Path, *, overrides: Mapping[str, str], labels: str) -> Tables:
    """Finds the tables of a download of version 2.0.0 or 2.1.0, packed or not.

    Args:
      root: the folder that holds them.
      overrides: "metadata", "split" or "labels" -> a path given by the user, "" for none.
      labels: "chexpert", "negbio" or "none".

    Raises:
      DataError: if the metadata or split table is absent, or a path given is.
    """

    def find(kind: str, name: str) -> pathlib.Path | None:
        if overrides[kind]:
            path = pathlib.Path(overrides[kind])
            if not path.is_file():
                raise DataError(f"--{kind}_table", received=str(path), accepted="an existing file")
            return path
        found = sorted([*root.glob(f"mimic-cxr-*-{name}.csv.gz"), *root.glob(f"*-{name}.csv")])
        return found[-1] if found else None

    metadata, split = find("metadata", "metadata"), find("split", "split")
    if metadata is None or split is None:
        raise DataError(
            f"--images_dir: {root}",
            received=sorted(path.name for path in root.iterdir())[:8],
            accepted="mimic-cxr-2.0.0-metadata.csv.gz and mimic-cxr-2.0.0-split.csv.gz in it",
        )
    label_table = None if labels == "none" else find("labels", labels)
    return Tables(metadata=metadata, split=split, labels=label_table)
