"""Gathers the rows of a table by image, for tables with a row for each finding."""

from data_prep.kit.ids import IdColumn
from data_prep.kit.plan import Reject, RowProblem, rejecting, rejecting_rows
from data_prep.kit.tables import Table, TableRow


def grouped(
    table: Table, *, column: str, reject: Reject, keep_repeated: bool = False
) -> dict[str, list[TableRow]]:
    """Reads a table to its end.

    A row that repeats another of the same image in every cell is rejected as `duplicate_row`, and
    one without an id as `incomplete_row`.

    Args:
      table: table to read.
      column: name of the column with the image's id.
      reject: function that counts what is left out.
      keep_repeated: whether rows that repeat another are kept, for a rule that draws rows.

    Returns:
      Id -> its rows, in the table's order.

    Raises:
      DataError: if the table is damaged, or a spreadsheet has rounded its ids.
    """
    ids = IdColumn(table, flag=table.flag, name=column)
    found: dict[str, list[TableRow]] = {}
    for row in table.rows(reject=rejecting_rows(table, reject)):
        with rejecting(reject, id=f"{table.name}:{row.line}", table=table.name):
            name = ids.read(row)
            if not name:
                raise RowProblem("incomplete_row", f"column {column!r} is blank")
            rows = found.setdefault(name, [])
            if not keep_repeated and any(row.cells == other.cells for other in rows):
                raise RowProblem("duplicate_row", f"it repeats a row of {name}")
            rows.append(row)
    ids.check()
    return found
