"""Cells of the rows of `csv.DictReader` or of a data frame, checked before they are read."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit import values
from prior_jax.errors import DataError


def cells_of(row: Mapping[Any, Any], columns: Sequence[str], *, place: int) -> dict[str, Any]:
    """Returns the cells of some columns, whose names may have blanks around them.

    Args:
      row: column -> cell. `csv.DictReader` gives what is too much under the name None, and None
        for what is missing.
      columns: names of the columns.
      place: number of the row, from 1, for messages.

    Raises:
      DataError: naming the row, and a column that it lacks.
    """
    where = f"row {place}"
    if None in row:
        raise DataError(where, received=f"more cells than columns: {row[None]}", accepted="as many")
    cells = {str(name).strip(): cell for name, cell in row.items()}
    for column in columns:
        if column not in cells:
            received = f"the columns {sorted(cells)}"
            raise DataError(f"{where}: {column}", received=received, accepted=f"{list(columns)}")
        if cells[column] is None:
            raise DataError(
                f"{where}: {column}", received="fewer cells than columns", accepted="as many"
            )
    return {column: cells[column] for column in columns}


def required_id(cells: Mapping[str, Any], column: str, *, place: int) -> str:
    """Returns an id as text, without blanks around it.

    Raises:
      DataError: naming row and column, where it is missing or is no id.
    """
    with refusing(f"row {place}: {column}"):
        found = values.id_of(cells[column], field=column)
    if not found:
        raise DataError(f"row {place}: {column}", received=cells[column], accepted="an id")
    return found


@contextlib.contextmanager
def refusing(where: str) -> Iterator[None]:
    """Raises a CellProblem as a DataError that names the place."""
    try:
        yield
    except values.CellProblem as problem:
        raise DataError(
            where, received=problem.detail, accepted="a cell that can be read"
        ) from None
