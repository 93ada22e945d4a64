"""Reads the rows of a custom manifest, `.jsonl` or `.csv`, into one shape."""

import csv
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.kit import splits
from data_prep.kit.writer import Rejection
from prior_jax.data.schema import LABEL_NEGATIVE, LABEL_NOT_MENTIONED, LABEL_POSITIVE, LABEL_VALUES
from prior_jax.errors import DataError

Reject = Callable[[Rejection], None]
_LIST_SEPARATORS = ("|", ";", ",")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns; `labels` are tried in order."""

    image: str
    text: str
    split: str
    patient: str
    study: str
    id: str
    view: str
    source: str
    labels: tuple[str, ...]
    label_columns: tuple[str, ...]
    kept: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One image of a custom manifest.

    Attributes:
      id: unique in the manifest; the image's path where no column gives one.
      image: path as written.
      text: report, "" where there is none.
      split: index in schema.SPLITS.
      patient: the study where no column gives one.
      study: the row's id where no column gives one.
      view: "" where not given.
      source: "" where not given.
      labels: name -> schema.LABEL_*, as far as the row says.
      listed: whether labels came as a list of what is positive.
      kept: licence, citation and the like.
    """

    id: str
    image: str
    text: str
    split: int
    patient: str
    study: str
    view: str
    source: str
    labels: Mapping[str, int]
    listed: bool
    kept: Mapping[str, Any]


class RowProblem(Exception):
    """A row that cannot be used: `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str):
        """Keeps the reason and, in words, the detail."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def raw_rows(path: pathlib.Path, *, reject: Reject) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields (line number, row) of a `.jsonl` or `.csv` file, one at a time.

    Args:
      path: the file.
      reject: called for a line that is no row ("malformed_row").

    Raises:
      DataError: if the file is absent or of another kind.
    """
    readers = {".jsonl": _json_rows, ".ndjson": _json_rows, ".csv": _csv_rows}
    if path.suffix not in readers:
        raise DataError("--manifest", received=str(path), accepted=f"a file of {[*readers]}")
    try:
        for line, row in readers[path.suffix](path):
            if isinstance(row, Mapping):
                yield line, row
            else:
                reject(Rejection(id=f"{path.name}:{line}", reason="malformed_row", detail=str(row)))
    except FileNotFoundError as error:
        raise DataError("--manifest", received=str(path), accepted="an existing file") from error
    except csv.Error as error:
        raise DataError("--manifest", received=f"{path}: {error}", accepted="a table") from error


def _json_rows(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
                if b"\\u" in line:  # half a surrogate pair is JSON, but no text
                    json.dumps(row, ensure_ascii=False).encode("utf-8")
            except (UnicodeError, json.JSONDecodeError, RecursionError) as error:
                row = str(error)
            yield number, row if isinstance(row, dict | str) else "not an object"


def _csv_rows(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row or None in row.values():
                yield reader.line_num, "the number of cells differs from the header's"
            elif any(value != _printable(value) for value in row.values()):
                yield reader.line_num, "not UTF-8"
            else:
                yield reader.line_num, row


def _printable(text: str) -> str:
    return text.encode("utf-8", "ignore").decode("utf-8")


def parse_row(
    row: Mapping[str, Any], columns: Columns, *, fractions: Sequence[float], seed: int
) -> Row:
    """Brings a row as written into one shape.

    Args:
      row: as written.
      columns: names of its columns.
      fractions: shares of the splits, for rows that name none; drawn by patient.
      seed: of that draw.

    Raises:
      RowProblem: row_without_image, unknown_split or malformed_labels.
    """
    image = _text(row.get(columns.image))
    if not image:
        raise RowProblem("row_without_image", f"column {columns.image!r}")
    identity = _text(row.get(columns.id)) or image
    study = _text(row.get(columns.study)) or identity
    patient = _text(row.get(columns.patient)) or study
    written = _text(row.get(columns.split))
    split = splits.split_code(written)
    if split is None and written:
        raise RowProblem("unknown_split", written)
    if split is None:
        split = splits.drawn_split(patient, fractions=fractions, seed=seed)
    labels, listed = _labels(row, columns)
    return Row(
        id=identity,
        image=image,
        text=str(row.get(columns.text) or ""),
        split=split,
        patient=patient,
        study=study,
        view=_text(row.get(columns.view)),
        source=_text(row.get(columns.source)),
        labels=labels,
        listed=listed,
        kept={name: row[name] for name in columns.kept if row.get(name)},
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _labels(row: Mapping[str, Any], columns: Columns) -> tuple[dict[str, int], bool]:
    """Returns (labels, whether they came as a list of positives)."""
    if columns.label_columns:
        named = {name: row.get(name) for name in columns.label_columns}
        return {name: _value(name, value) for name, value in named.items()}, False
    value = next((row[name] for name in columns.labels if name in row), None)
    if isinstance(value, Mapping):
        return {str(name).strip(): _value(name, entry) for name, entry in value.items()}, False
    if isinstance(value, str):
        separator = next((mark for mark in _LIST_SEPARATORS if mark in value), _LIST_SEPARATORS[0])
        value = value.split(separator)
    if value is None:
        value = []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RowProblem("malformed_labels", repr(value)[:200])
    return {name.strip(): LABEL_POSITIVE for name in value if name.strip()}, True


def _value(name: str, value: Any) -> int:
    """Returns the schema's value of 1, 0, -1, blank, "1.0", true and the like."""
    if value is None or value == "":
        return LABEL_NOT_MENTIONED
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number not in LABEL_VALUES:
        raise RowProblem("malformed_labels", f"{name}: {value!r}, not of 1, 0, -1 or blank")
    return int(number)


def label_vector(
    row: Row, names: Sequence[str], *, exhaustive: frozenset[str], seen: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Returns int8[C], the row's labels in the set's order.

    Args:
      row: the row.
      names: the set's label names.
      exhaustive: sources whose lists name everything that is positive: what such a list does not
        name, of the labels its source uses, is negative. Of other sources, and of an empty list,
        it is not mentioned.
      seen: source -> labels its rows use.
    """
    values = dict(row.labels)
    if row.listed and row.labels and row.source in exhaustive:
        values = {name: LABEL_NEGATIVE for name in seen[row.source]} | values
    return np.asarray([values.get(name, LABEL_NOT_MENTIONED) for name in names], np.int8)


def digest(text: str) -> bytes:
    """Returns 32 characters that stand for an id of any length in a compact array."""
    return (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode()
    )
