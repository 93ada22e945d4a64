"""Reads MIMIC-CXR-JPG's label tables, with a row a study, and the numbers in its tables."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from data_prep.kit.ids import IdColumn
from data_prep.kit.plan import OTHER_STUDY, Reject, TableUse, rejecting_rows
from data_prep.kit.tables import MALFORMED, Table, TableRow
from data_prep.kit.values import CellProblem, label_of
from prior_jax.data.schema import LABEL_NOT_MENTIONED
from prior_jax.errors import DataError

CONFLICTING = "conflicting_rows"
# Studies with a usable row in the label table, at least; in MIMIC-CXR 99 % have one.
_LEAST_LABELLED = 0.5
_CONFLICT = -1  # in the place of the line of a study whose rows differ
# What fits into 64 bits; int() would also take "1_000", "-5" and digits of other scripts.
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


def number_of(column: IdColumn, row: TableRow, *, prefix: str) -> int:
    """Returns the number of a patient or study, written with the letter of its kind or without.

    Args:
      column: column of the ids.
      row: row of the table.
      prefix: letter that may stand before the digits, "p" or "s".

    Raises:
      CellProblem: if the cell does not hold a number of 1 to 18 digits.
    """
    written = column.read(row)
    if not _NUMBER.fullmatch(written.removeprefix(prefix)):
        raise CellProblem(
            f"column {column.name!r} holds {written[:80]!r}, which is not a number of 1 to 18 "
            "digits"
        )
    return int(written.removeprefix(prefix))


@dataclasses.dataclass(kw_only=True)
class _Labels:
    """What a label table says of the studies of a set.

    Attributes:
      labels: int8[N, C].
      lines: int64[N], line of the study's row; 0 without a row, _CONFLICT if its rows differ.
      others: number of rows of other studies.
      example: place of the first row that could not be used, and the reason; "" if all could.
    """

    labels: np.ndarray
    lines: np.ndarray
    others: int = 0
    example: str = ""


def study_labels(
    path: pathlib.Path | None, studies: np.ndarray, *, encoding: str, reject: Reject
) -> tuple[tuple[str, ...], np.ndarray, list[TableUse]]:
    """Returns label names, int8[N, C], and the rows used; a label without a value is not mentioned.

    Of equal rows of a study the first is used; of rows that differ none is, and the study has no
    labels.

    Args:
      path: path of the table, or None for a set without labels.
      studies: int64[N], numbers of the studies of the set.
      encoding: encoding of the table.
      reject: function that is called with reason malformed_row, duplicate_row or conflicting_rows
        for each row that is left out.

    Raises:
      DataError: if no row can be used, or most of the studies have none.
    """
    if path is None:
        return (), np.zeros((len(studies), 0), np.int8), []
    table = Table(path, flag="--labels_table", key="study_id", single_lines=True, encoding=encoding)
    table.require((table.flag, name) for name in ("subject_id", "study_id"))
    names = tuple(name for name in table.names if name not in ("subject_id", "study_id"))
    found = _read_labels(table, names, studies, reject=reject)
    kept = int(np.sum(found.lines > 0))
    if kept < _LEAST_LABELLED * len(studies):
        example = found.example or "the table ends early"
        raise DataError(
            f"Only {kept} of {len(studies)} studies have a usable row in {path} "
            f"({example}; the first study of the set is {studies[0]}).",
            "Give the label table of these studies, with 1, 0, -1 or blank in each column, or set "
            "--labels=none to prepare the set without labels.",
            where=table.flag,
        )
    use = TableUse(
        name=table.name,
        read=table.read,
        kept=kept,
        unused={OTHER_STUDY: found.others} if found.others else {},
        notes=(*table.notes(), *_conflict_notes(table, found)),
    )
    return names, found.labels, [use]


def _read_labels(
    table: Table, names: Sequence[str], studies: np.ndarray, *, reject: Reject
) -> _Labels:
    """Reads the rows of the studies, whose numbers are int64[N], and rejects those not usable."""
    found = _Labels(
        labels=np.full((len(studies), len(names)), LABEL_NOT_MENTIONED, np.int8),
        lines=np.zeros(len(studies), np.int64),
    )
    column = IdColumn(table, flag=table.flag, name="study_id")
    order = np.argsort(studies)
    ranked = studies[order]
    reject_row = rejecting_rows(table, reject)
    for row in table.rows(reject=reject_row):
        try:
            number = number_of(column, row, prefix="s")
            labels = [label_of(row.cells.get(name), field=name) for name in names]
        except CellProblem as problem:
            reject_row(row.line, MALFORMED, problem.detail)
            found.example = found.example or f"line {row.line}: {problem.detail}"
            continue
        rank = int(np.searchsorted(ranked, number))
        if rank == len(ranked) or ranked[rank] != number:
            found.others += 1
            missed = f"line {row.line}: no image of study {number} was chosen"
            found.example = found.example or missed
            continue
        place = order[rank]
        before = int(found.lines[place])
        if not before:
            found.lines[place], found.labels[place] = row.line, labels
        elif before != _CONFLICT and np.array_equal(found.labels[place], labels):
            reject_row(row.line, "duplicate_row", f"study {number}")
        else:
            detail = f"rows of study {number} differ, so none of them is used"
            if before != _CONFLICT:
                reject_row(before, CONFLICTING, detail)
            reject_row(row.line, CONFLICTING, detail)
            found.example = found.example or f"line {row.line}: {detail}"
            found.lines[place], found.labels[place] = _CONFLICT, LABEL_NOT_MENTIONED
    column.check()
    return found


def _conflict_notes(table: Table, found: _Labels) -> list[str]:
    """Returns a sentence on the studies that have no labels because their rows differ, if any."""
    count = int(np.sum(found.lines == _CONFLICT))
    if not count:
        return []
    return [
        f"Warning: {table.name}: {count:,} studies have rows that differ, and are kept without "
        "labels (conflicting_rows)."
    ]
