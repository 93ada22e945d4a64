"""Reads MIMIC-CXR-JPG's label tables, with a row a study, and the numbers in its tables."""

import pathlib
import re

import numpy as np

from data_prep.kit.ids import IdColumn
from data_prep.kit.plan import OTHER_STUDY, Reject, TableUse, rejecting_rows
from data_prep.kit.tables import MALFORMED, Table, TableRow
from data_prep.kit.values import CellProblem, label_of
from prior_jax.data.schema import LABEL_NOT_MENTIONED
from prior_jax.errors import DataError

# Studies with a usable row in the label table, at least; in MIMIC-CXR 99 % have one.
_LEAST_LABELLED = 0.5
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


def study_labels(
    path: pathlib.Path | None, studies: np.ndarray, *, encoding: str, reject: Reject
) -> tuple[tuple[str, ...], np.ndarray, list[TableUse]]:
    """Returns label names, int8[N, C], and the rows used; a label without a value is not mentioned.

    Args:
      path: path of the table, or None for a set without labels.
      studies: int64[N], numbers of the studies of the set.
      encoding: encoding of the table.
      reject: function that is called with reason malformed_row or duplicate_row for each row that
        is left out.

    Raises:
      DataError: if no row can be used, or most of the studies have none.
    """
    if path is None:
        return (), np.zeros((len(studies), 0), np.int8), []
    table = Table(path, flag="--labels_table", key="study_id", single_lines=True, encoding=encoding)
    table.require((table.flag, name) for name in ("subject_id", "study_id"))
    names = tuple(name for name in table.names if name not in ("subject_id", "study_id"))
    column = IdColumn(table, flag=table.flag, name="study_id")
    order = np.argsort(studies)
    ranked = studies[order]
    labels = np.full((len(studies), len(names)), LABEL_NOT_MENTIONED, np.int8)
    seen = np.zeros(len(studies), bool)
    others, example = 0, ""
    reject_row = rejecting_rows(table, reject)
    for row in table.rows(reject=reject_row):
        try:
            number = number_of(column, row, prefix="s")
            found = [label_of(row.cells.get(name), field=name) for name in names]
        except CellProblem as problem:
            reject_row(row.line, MALFORMED, problem.detail)
            example = example or f"line {row.line}: {problem.detail}"
            continue
        place = int(np.searchsorted(ranked, number))
        if place == len(ranked) or ranked[place] != number:
            others += 1
            example = example or f"line {row.line}: no image of study {number} was chosen"
        elif seen[order[place]]:
            reject_row(row.line, "duplicate_row", f"study {number}")
        else:
            seen[order[place]] = True
            labels[order[place]] = found
    column.check()
    if len(studies) and seen.mean() < _LEAST_LABELLED:
        raise DataError(
            f"Only {int(seen.sum())} of {len(studies)} studies have a usable row in {path} "
            f"({example or 'the table ends early'}; the first study of the set is {studies[0]}).",
            "Give the label table of these studies, with 1, 0, -1 or blank in each column, or set "
            "--labels=none to prepare the set without labels.",
            where=table.flag,
        )
    use = TableUse(
        name=table.name,
        read=table.read,
        kept=int(seen.sum()),
        unused={OTHER_STUDY: others} if others else {},
        notes=table.notes(),
    )
    return names, labels, [use]
