"""Reads a column of ids, and detects digits that a spreadsheet has rounded away."""

from data_prep.kit import spreadsheets, values
from data_prep.kit.tables import Table, TableRow
from prior_jax.errors import DataError


class IdColumn:
    """The ids of one column, with detection of digits that a spreadsheet has rounded away.

    1.00E+07 may have been 10000032 or 10000764. Such a value is always refused, and so is
    1,23457E+11. "12e5" is refused if every id of the column is a number; if ids contain letters,
    "12e5" is accepted like any other id.
    """

    def __init__(self, table: Table, *, flag: str, name: str):
        """Remembers which column it is; no row is read yet.

        Args:
          table: table that holds the column.
          flag: flag that names the column, for messages.
          name: name of the column.
        """
        self._table, self._flag, self.name = table, flag, name
        self._rounded: tuple[int, str] | None = None
        self._perhaps: tuple[int, str] | None = None
        self._letters = False

    def read(self, row: TableRow) -> str:
        """Returns the id of a row, "" if the id is missing.

        Raises:
          CellProblem: if the value is no id.
        """
        found = values.id_of(row.cells.get(self.name), field=self.name)
        if found and not found.isdigit():
            if spreadsheets.is_rounded(found):
                self._rounded = self._rounded or (row.line, found)
            elif spreadsheets.is_scientific(found):
                self._perhaps = self._perhaps or (row.line, found)
            else:
                self._letters = True
        return found

    def check(self) -> None:
        """Refuses the column if its numbers were rounded; call this when all rows have been read.

        Raises:
          DataError: if an id was rounded; the message names the first such id and its line.
        """
        rounded = self._rounded or (None if self._letters else self._perhaps)
        if rounded is not None:
            line, found = rounded
            raise DataError(
                f"Column {self.name!r} of {self._table.path} holds {found!r} on line {line}: a "
                "spreadsheet has rounded the ids to a few digits.",
                "Save the table again from the original ids, with the column formatted as text.",
                where=self._flag,
            )
