"""The cells of a row, which note the columns that a preparer reads."""

from collections.abc import Iterable, Mapping
from typing import Any

_MOST_NAMES = 20


class UsedCells(dict[str, Any]):
    """Column -> cell. Cells that are asked for by name are noted; going over all is not."""

    def __init__(
        self,
        cells: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        *,
        used: set[str] | None = None,
    ):
        """Takes the cells, and the set of names to note them in."""
        super().__init__(cells)
        self._used = set[str]() if used is None else used

    def __getitem__(self, name: str) -> Any:
        """Returns a cell, and notes its column."""
        self._used.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a cell or the default, and notes the column."""
        self._used.add(name)
        return super().get(name, default)


def absent_note(table: str, names: Iterable[str], *, wanted: Iterable[str]) -> tuple[str, ...]:
    """Returns the sentence on columns that a table may have and does not have, if there are any.

    Args:
      table: name of the table.
      names: names of its columns.
      wanted: names of columns without which the rest of the table can be read.
    """
    absent = [name for name in wanted if name not in set(names)]
    if not absent:
        return ()
    said = ", ".join(map(repr, absent))
    return (f"Warning: {table} has no column {said}: nothing is known of what it holds.",)


def unread_note(table: str, names: Iterable[str], *, used: Iterable[str]) -> tuple[str, ...]:
    """Returns the sentence on the columns of a table that nothing was read from, if there are any.

    Args:
      table: name of the table.
      names: names of its columns.
      used: names of the columns that were read.
    """
    unread = [name for name in names if name not in set(used)]
    if not unread:
        return ()
    rest = f" and {len(unread) - _MOST_NAMES} more" if len(unread) > _MOST_NAMES else ""
    return (f"{table}: not read: {', '.join(map(repr, unread[:_MOST_NAMES]))}{rest}.",)
