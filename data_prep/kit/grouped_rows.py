"""Gathers the rows of a table by image, for tables with a row for each finding."""

import dataclasses
from collections.abc import Callable, Sequence

from data_prep.kit import values
from data_prep.kit.ids import IdColumn
from data_prep.kit.plan import Reject, RowProblem, rejecting, rejecting_rows
from data_prep.kit.tables import Table, TableRow

ROW_LEFT_OUT = "row_left_out"


def grouped(
    table: Table,
    *,
    column: str,
    reject: Reject,
    keep_repeated: bool = False,
    named: Callable[[str], str] = str,
) -> dict[str, list[TableRow]]:
    """Reads a table to its end.

    A row that repeats another of the same image in every cell is rejected as `duplicate_row`, and
    one without an id as `incomplete_row`. Where a row of an image cannot be read, its other rows
    say so; see `problem_of`.

    Args:
      table: table to read.
      column: name of the column with the image's id.
      reject: function that counts what is left out.
      keep_repeated: whether rows that repeat another are kept, for a rule that draws rows.
      named: function from the text in the column to the image's id, such as `id_lists.plain_id`.

    Returns:
      Id -> its rows, in the table's order.

    Raises:
      DataError: if the table is damaged, or a spreadsheet has rounded its ids.
    """
    ids = IdColumn(table, flag=table.flag, name=column)
    found: dict[str, list[TableRow]] = {}
    for row in table.rows(reject=rejecting_rows(table, reject)):
        with rejecting(reject, id=f"{table.name}:{row.line}", table=table.name):
            name = named(ids.read(row))
            if not name:
                raise RowProblem("incomplete_row", f"column {column!r} is blank")
            rows = found.setdefault(name, [])
            if not keep_repeated and any(_same(row, other, column) for other in rows):
                raise RowProblem("duplicate_row", f"it repeats a row of {name}")
            rows.append(row)
    ids.check()
    for name, line in left_out(table, column=column, named=named).items():
        if name in found:
            found[name] = [dataclasses.replace(row, broken=line) for row in found[name]]
    return found


def left_out(table: Table, *, column: str, named: Callable[[str], str] = str) -> dict[str, int]:
    """Returns id of an image -> line of its first row that cannot be read.

    Args:
      table: table that was read to its end, whose key is the column.
      column: name of the column with the image's id.
      named: function from the text in the column to the image's id.
    """
    found: dict[str, int] = {}
    for text, line in table.left_out.items():
        found.setdefault(named(_id(text, column)), line)
    return found


def problem_of(rows: Sequence[TableRow]) -> tuple[str, str] | None:
    """Returns the reason and detail for which an image is rejected if a row of it was left out.

    Kept without that row, the image would lack a box, a mask or the opinion of a reader.
    """
    line = next((row.broken for row in rows if row.broken), 0)
    return unreadable(line) if line else None


def unreadable(line: int) -> tuple[str, str]:
    """Returns the reason and detail for an image with a row that cannot be read."""
    return ROW_LEFT_OUT, f"another row of it, line {line}, cannot be read"


def _same(row: TableRow, other: TableRow, column: str) -> bool:
    """Tells whether two rows of an image agree in all cells but the spelling of its id."""
    return {**row.cells, column: ""} == {**other.cells, column: ""}


def _id(text: str, column: str) -> str:
    try:
        return values.id_of(text, field=column)
    except values.CellProblem:
        return ""
