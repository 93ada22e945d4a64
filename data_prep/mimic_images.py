"""Reads the images of MIMIC-CXR-JPG, and their splits, from its tables with a row an image."""

import array
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.kit import splits
from data_prep.kit.ids import IdColumn
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Reject, TableUse, rejecting_rows
from data_prep.kit.tables import MALFORMED, Table
from data_prep.kit.values import CellProblem, text_of
from data_prep.mimic_labels import CONFLICTING, number_of

NO_SPLIT = -1
"""Code of an image that no row of the split table names."""
_CONFLICT = -2  # code of an image whose rows name several splits
_ID_BYTES = 48  # a DICOM id has 44 characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Images of the metadata table, as columns.

    Attributes:
      dicoms: S48[I], ids.
      subjects: int64[I], numbers of the patients.
      studies: int64[I], numbers of the studies.
      views: int8[I], index into `view_names`.
      codes: int8[I], index into schema.SPLITS, or NO_SPLIT.
      view_names: names of the views in `views`.
      table: name of the metadata table.
      conflicts: id of each image whose rows contradict each other -> in what they do.
    """

    dicoms: np.ndarray
    subjects: np.ndarray
    studies: np.ndarray
    views: np.ndarray
    codes: np.ndarray
    view_names: tuple[str, ...]
    table: str
    conflicts: Mapping[bytes, str] = dataclasses.field(default_factory=dict)

    def at(self, places: np.ndarray) -> "Images":
        """Returns the images at some indices, in their order, or where a mask is True."""
        return dataclasses.replace(
            self,
            dicoms=self.dicoms[places],
            subjects=self.subjects[places],
            studies=self.studies[places],
            views=self.views[places],
            codes=self.codes[places],
        )

    def conflicting(self) -> np.ndarray:
        """Returns bool[I], whether rows of the image contradict each other."""
        return np.isin(self.dicoms, np.array(list(self.conflicts), self.dicoms.dtype))

    def rejection(self, place: int, reason: str, detail: str = "") -> Rejection:
        """Returns the rejection of an image, which is a row of the table."""
        name = f"s{self.studies[place]}/{self.dicoms[place].decode()}"
        return Rejection(id=name, reason=reason, detail=detail, rows=1, table=self.table)

    def reject(self, chosen: np.ndarray, reason: str, *, reject: Reject) -> None:
        """Rejects the images where a mask, bool[I], is True."""
        for place in np.flatnonzero(chosen):
            reject(self.rejection(place, reason))


def open_table(path: pathlib.Path, *, flag: str, encoding: str) -> Table:
    """Opens a table with a row an image."""
    return Table(path, flag=flag, key="dicom_id", single_lines=True, encoding=encoding)


def read_images(table: Table, *, reject: Reject) -> Images:
    """Reads the images of the metadata table, sorted by id, each once and without a split.

    An image whose rows differ is among the `conflicts`; only its first row is left for the caller
    to reject.

    Args:
      table: metadata table.
      reject: function that is called with reason malformed_row, duplicate_row or conflicting_rows
        for each row that is left out.
    """
    images = _rows(table, reject=reject)
    images = images.at(np.argsort(images.dicoms, kind="stable"))
    repeated = np.zeros(len(images.dicoms), bool)
    repeated[1:] = images.dicoms[1:] == images.dicoms[:-1]
    conflicts: dict[bytes, str] = {}
    first = 0
    for place in np.flatnonzero(repeated):
        first = first if repeated[place - 1] else place - 1
        difference = _difference(images, first, place)
        if difference:
            conflicts.setdefault(images.dicoms[place], difference)
    for place in np.flatnonzero(repeated):
        difference = conflicts.get(images.dicoms[place], "")
        reason = CONFLICTING if difference else "duplicate_row"
        reject(images.rejection(place, reason, difference))
    return dataclasses.replace(images.at(~repeated), conflicts=conflicts)


def _difference(images: Images, one: int, other: int) -> str:
    """Returns in what two rows of one image differ, "" if they are equal."""
    views = [images.view_names[images.views[place]] or "blank" for place in (one, other)]
    said = {
        "subject_id": images.subjects[[one, other]],
        "study_id": images.studies[[one, other]],
        "ViewPosition": views,
    }
    told = [f"{name} ({a} and {b})" for name, (a, b) in said.items() if a != b]
    if not told:
        return ""
    return f"rows of one image differ in {', '.join(told)}, so none of them is kept"


def _rows(table: Table, *, reject: Reject) -> Images:
    """Returns an image for each row, in the order of the table."""
    dicoms, subjects, studies = bytearray(), array.array("q"), array.array("q")
    views, names = array.array("b"), {}
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
        views.append(names.setdefault(position, len(names)))
    subject_column.check()
    study_column.check()
    return Images(
        dicoms=np.frombuffer(bytes(dicoms), f"S{_ID_BYTES}"),
        subjects=np.frombuffer(subjects, np.int64) if subjects else np.zeros(0, np.int64),
        studies=np.frombuffer(studies, np.int64) if studies else np.zeros(0, np.int64),
        views=np.frombuffer(views, np.int8) if views else np.zeros(0, np.int8),
        codes=np.full(len(views), NO_SPLIT, np.int8),
        view_names=tuple(names),
        table=table.name,
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


def with_splits(
    images: Images, path: pathlib.Path, *, encoding: str, reject: Reject
) -> tuple[Images, TableUse]:
    """Returns the images with the splits that the split table names, and the table's use.

    Args:
      images: images, sorted by id.
      path: path of the split table.
      encoding: encoding of the table.
      reject: function that is called with reason malformed_row, split_row_without_metadata,
        unknown_split, duplicate_row or conflicting_rows for each row that is left out.
    """
    dicoms, codes = images.dicoms, images.codes.copy()
    lines = np.zeros(len(dicoms), np.int64)
    table = open_table(path, flag="--split_table", encoding=encoding)
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
        elif codes[place] == NO_SPLIT:
            codes[place], lines[place] = code, row.line
        elif codes[place] == code:
            reject_row(row.line, "duplicate_row", dicom)
        else:
            detail = f"rows of {dicom} name different splits, so none of them is kept"
            if codes[place] != _CONFLICT:
                reject_row(int(lines[place]), CONFLICTING, detail)
            reject_row(row.line, CONFLICTING, detail)
            codes[place] = _CONFLICT
    conflicts = {
        dicom: f"rows of {table.name} name different splits for the image"
        for dicom in dicoms[codes == _CONFLICT]
    }
    codes[codes == _CONFLICT] = NO_SPLIT
    kept = int(np.sum(codes != NO_SPLIT))
    use = TableUse(name=table.name, read=table.read, kept=kept, notes=table.notes())
    conflicts.update(images.conflicts)
    return dataclasses.replace(images, codes=codes, conflicts=conflicts), use


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
