"""A column of ids, watched for digits that a spreadsheet has rounded away."""

from data_prep.kit import spreadsheets, values
from data_prep.kit.tables import Table, TableRow
from prior_jax.errors import DataError


class IdColumn:
    """Ids of one column, watched for numbers whose digits a spreadsheet has rounded away.

    1.00E+07 may have been 10000032 or 10000764. It is refused wherever it stands, and so is
    1,23457E+11. "12e5" is refused where every id of the column is a number; where ids hold letters
    it is an id like any other.
    """

    def __init__(self, table: Table, *, flag: str, name: str):
        """Names the column.

        Args:
          table: the table it stands in.
          flag: the flag that names the column, for the message.
          name: the column.
        """
        self._table, self._flag, self.name = table, flag, name
        self._rounded: tuple[int, str] | None = None
        self._perhaps: tuple[int, str] | None = None
        self._letters = False

    def read(self, row: TableRow) -> str:
        """Returns the id of a row, "" where it is missing.

        Raises:
          CellProblem: for a value that is no id.
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
        """Refuses the column if its numbers were rounded; call it when all rows have been read.

        Raises:
          DataError: naming the first such id and its line.
        """
        rounded = self._rounded or (None if self._letters else self._perhaps)
        if rounded is not None:
            line, found = rounded
            raise DataError(
                self._flag,
                received=f"{found!r} in column {self.name!r} of {self._table.path}, line {line}: "
                "a spreadsheet has rounded ids to a few digits",
                accepted="ids written out in full, in a column saved as text",
            )
