"""A column of ids, watched for digits that a spreadsheet has rounded away."""

from data_prep.kit import values
from data_prep.kit.tables import Table, TableRow
from prior_jax.errors import DataError


class IdColumn:
    """Ids of one column, watched for numbers whose digits a spreadsheet has rounded away.

    1.00E+07 may have been 10000032 or 10000764. Where every id of a column is a number, one in
    scientific notation is refused; where ids hold letters, "12e5" is an id like any other.
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
        self._letters = False

    def read(self, row: TableRow) -> str:
        """Returns the id of a row, "" where it is missing.

        Raises:
          CellProblem: for a value that is no id.
        """
        found = values.id_of(row.cells.get(self.name), field=self.name)
        if found and not found.isdigit():
            if not values.SCIENTIFIC.fullmatch(found):
                self._letters = True
            elif self._rounded is None:
                self._rounded = row.line, found
        return found

    def check(self) -> None:
        """Refuses the column if its numbers were rounded; call it when all rows have been read.

        Raises:
          DataError: naming the first such id and its line.
        """
        if self._rounded is not None and not self._letters:
            line, found = self._rounded
            raise DataError(
                self._flag,
                received=f"{found!r} in column {self.name!r} of {self._table.path}, line {line}: "
                "a spreadsheet has rounded ids to a few digits",
                accepted="ids written out in full, in a column saved as text",
            )
