"""Cells of the rows of `csv.DictReader` or of a data frame, checked before they are read."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.kit import values
from prior_jax.errors import DataError


def cells_of(row: Mapping[Any, Any], columns: Sequence[str], *, place: int) -> dict[str, Any]:
    """Returns the cells of some columns, whose names may have spaces around them.

    Args:
      row: column -> cell. `csv.DictReader` puts surplus cells under the name None, and gives None
        for missing cells.
      columns: names of the columns.
      place: number of the row, from 1, for messages.

    Raises:
      DataError: if a column or cell is missing, or if there are surplus cells; the message names
        the row and the column.
    """
    where = f"row {place}"
    if None in row:
        raise DataError(
            f"The row has more cells than columns; {row[None]} are left over.",
            "Correct the row, or the header of the table.",
            where=where,
        )
    cells = {str(name).strip(): cell for name, cell in row.items()}
    for column in columns:
        if column not in cells:
            raise DataError(
                f"The table has no column {column!r}; its columns are {sorted(cells)}.",
                f"Give a table with the columns {', '.join(columns)}.",
                where=where,
            )
        if cells[column] is None:
            raise DataError(
                f"The row has fewer cells than columns: {column!r} is missing.",
                "Correct the row, or the header of the table.",
                where=where,
            )
    return {column: cells[column] for column in columns}


def required_id(cells: Mapping[str, Any], column: str, *, place: int) -> str:
    """Returns an id as text, without spaces around it.

    Raises:
      DataError: if the id is missing, or if the cell does not hold an id; the message names row and
        column.
    """
    problem = f"column {column!r} is {cells[column]!r}, which is not an id"
    try:
        found = values.id_of(cells[column], field=column)
    except values.CellProblem as error:
        found, problem = "", error.detail
    if not found:
        raise DataError(
            f"{problem[0].upper()}{problem[1:]}.",
            "Write the id into the table, or leave the row out.",
            where=f"row {place}",
        )
    return found
