"""Reads the tables of data sets: `.csv`, `.tsv` and `.jsonl`, compressed with gzip or not.

All preparers use this reader. It streams the table and counts every row. A row that does not match
the header becomes a counted rejection; a table in which an unclosed quotation mark may have
swallowed rows is an error.
"""

import collections
import csv
import dataclasses
import difflib
import itertools
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from data_prep.kit import encodings, table_files, table_headers, table_quotes, values
from data_prep.kit.used_cells import UsedCells, unread_note
from prior_jax.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_SUFFIXES = (".jsonl", ".ndjson")
MALFORMED = "malformed_row"
_CLOSE_THE_MARK = "Close the quotation mark; a mark within a cell is written twice."

RejectRow = Callable[[int, str, str], None]
"""Function that is called with the line of a row that is left out, the reason and the detail."""


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A row as written in the table.

    Attributes:
      line: number of the line on which the row begins, from 1.
      cells: column -> cell: text in a `.csv` or `.tsv`, any JSON value in a `.jsonl`.
      broken: line of another row of the same image that cannot be read; 0 for none. Without that
        row the others do not say all that the table says of the image.
    """

    line: int
    cells: dict[str, Any]
    broken: int = 0


class Table:
    """A table that is read once, row by row.

    Attributes:
      path: path of the file.
      read: number of rows read so far, including rejected rows.
      names: columns found so far, in order; all columns from the start for a `.csv` or `.tsv`, and
        after `require` for a `.jsonl`.
      unnamed: number of columns without a name, such as the index of a data frame; they are not
        read.
      delimiter: character that separates cells, None for a `.jsonl`.
      left_out: cell of the key's column -> line, of the rows so far that were rejected and are long
        enough to have such a cell.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        flag: str,
        key: str | None = None,
        single_lines: bool = False,
        encoding: str | None = None,
    ):
        """Opens the table and reads its header.

        Args:
          path: path of a `.csv`, `.tsv`, `.jsonl` or `.ndjson`, also with the suffix `.gz`; gzip is
            recognised by its first bytes, whatever the name.
          flag: setting that names the table, for messages.
          key: column that identifies a row, e.g. the path of its image. It distinguishes rows that
            an unclosed quotation mark has swallowed from the lines of a report.
          single_lines: whether every row of this kind of table has a single line, so that a row
            with several lines is refused.
          encoding: encoding of the table, the value of --encoding; None for UTF-8 in a program that
            has no such flag.

        Raises:
          DataError: if the file is missing, damaged, empty, of another kind or in another encoding,
            or if two of its columns have the same name.
        """
        self._has_encoding_flag = encoding is not None
        self.encoding = encoding or encodings.UTF8
        self.path, self.flag, self.key = path, flag, key
        self._single_lines = single_lines
        self.read = 0
        self.unnamed = 0
        self.names: dict[str, None] = {}
        self.left_out: dict[str, int] = {}
        self._used: set[str] = set()
        self.delimiter: str | None = None
        self._declared = False
        suffix = pathlib.Path(path.name.removesuffix(".gz")).suffix.lower()
        if suffix not in (*DELIMITERS, *JSON_SUFFIXES):
            kinds = ", ".join((*DELIMITERS, *JSON_SUFFIXES))
            raise self._error(
                f"{path} is not a table of a kind that can be read.",
                f"Save the table as one of {kinds}; the file may be compressed (.gz).",
            )
        if not path.is_file():
            raise self._error(f"{path} does not exist.", "Give the path of an existing table.")
        self._suffix = suffix
        if suffix in DELIMITERS:
            self._read_header()

    @property
    def name(self) -> str:
        """Returns the name of the file, by which rows are counted."""
        return self.path.name

    def notes(self, *, unread: bool = True) -> tuple[str, ...]:
        """Returns sentences on how the table was read, if that is not as its name suggests.

        Args:
          unread: whether columns are named that were neither required nor read from any row.
        """
        notes = []
        if self.unnamed:
            notes.append(
                f"{self.name}: {self.unnamed} columns without a name, as row numbers are, not read."
            )
        if self.delimiter != DELIMITERS.get(self._suffix):
            notes.append(f"{self.name}: cells are separated by {self.delimiter!r}.")
        if unread:
            notes += unread_note(self.name, self.names, used=self._used)
        return tuple(notes)

    def rows(self, *, reject: RejectRow) -> Iterator[TableRow]:
        """Yields the rows, and passes rows that cannot be read to `reject`.

        Args:
          reject: function that is called, with the reason "malformed_row", for a row with too few
            or too many cells, that is not UTF-8, that repeats the header, or is no JSON object. A
            row may end before columns without a name, as the rows of NIH's boxes do.

        Raises:
          DataError: if the file is damaged, if a quotation mark is not closed, so that a cell
            contains rows, or if many rows are in another encoding; the message names the line.
        """
        foreign = encodings.ForeignRows(self.encoding)
        try:
            with table_files.opened(self.path) as file:
                if self._suffix in JSON_SUFFIXES:
                    yield from self._json_rows(file, reject=reject, foreign=foreign)
                else:
                    yield from self._csv_rows(file, reject=reject, foreign=foreign)
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(error) from error
        if problem := foreign.problem(read=self.read):
            remedy = foreign.remedy(has_flag=self._has_encoding_flag)
            raise self._error(f"In {self.path}, {problem}", remedy)

    def require(self, columns: Iterable[tuple[str, str]]) -> None:
        """Checks that columns exist.

        A `.jsonl` of which nothing was read yet is read through once for the names in its rows.

        Args:
          columns: pairs (flag that names the column, name of the column).

        Raises:
          DataError: if a column is missing; the message names the flag, the columns found and the
            nearest name.
        """
        if self._suffix in JSON_SUFFIXES and not self.read:
            for _ in self.rows(reject=lambda *_: None):
                pass
            self.read = 0
        for flag, name in columns:
            self._used.add(name)
            if name not in self.names:
                found = [column for column in self.names]
                plain = {values.simplified(column): column for column in found}
                near = difflib.get_close_matches(values.simplified(name), plain, n=1, cutoff=0.5)
                hint = f" (did you mean {plain[near[0]]!r}?)" if near else ""
                remedy = "Name a column that the table has, or add the column to the table."
                if flag == self.flag:  # it names the table; the column's name is the preparer's
                    remedy = "Give a table that has the column, or rename the column that it means."
                raise DataError(
                    f"{self.path} has no column {name!r}{hint}; its columns are {found}.",
                    remedy,
                    where=flag,
                )

    def _error(self, problem: str, remedy: str) -> DataError:
        return DataError(problem, remedy, where=self.flag)

    def _damaged(self, error: Exception) -> DataError:
        return self._error(
            f"{self.path} cannot be read to its end: {error}.",
            "Copy or download the table again.",
        )

    def _refuse_foreign(self, file: Any) -> None:
        """Refuses a file whose first bytes cannot begin a UTF-8 text."""
        kind = table_headers.foreign_kind(file.peek(4096)[:4096])
        if kind:
            raise self._error(
                f"{self.path} is {kind}, which cannot be read as a table.",
                "Save the table as text in UTF-8, as .csv, .tsv or .jsonl.",
            )

    def _read_header(self) -> None:
        header, lines = self._header_cells()
        if not header:
            raise self._error(
                f"{self.path} is empty.", "Give a table whose first line names its columns."
            )
        self._refuse_foreign_header(header)
        self._refuse_open_header(lines, columns=len(header))
        self._header = [table_headers.column_name(name) for name in header]
        self._least = max((place for place, name in enumerate(self._header, 1) if name), default=0)
        self.unnamed = self._header.count("")
        named = [name for name in self._header if name]
        repeated = [name for name, count in collections.Counter(named).items() if count > 1]
        if repeated:
            raise self._error(
                f"More than one column of {self.path} is called {repeated}.",
                "Give each column a name of its own.",
            )
        self.names = dict.fromkeys(named)

    def _header_cells(self) -> tuple[list[str], table_quotes.Lines]:
        """Finds the delimiter, and returns the header's cells (none in an empty file) and lines."""
        try:
            with table_files.opened(self.path) as file:
                self._refuse_foreign(file)
                lines = table_quotes.Lines(table_files.text_of(file, self.encoding))
                first = table_headers.first_line(lines)
                declared = table_headers.declared_delimiter(first)
                self._declared = bool(declared)
                if declared:
                    first = table_headers.first_line(lines)
                self.delimiter = declared or table_headers.delimiter_of(
                    first, expected=DELIMITERS[self._suffix]
                )
                lines.kept[:] = [first]
                reader = table_files.cells_of(itertools.chain([first], lines), self.delimiter)
                return next(reader) if first else [], lines
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(error) from error
        except csv.Error as error:
            raise self._error(
                f"The header of {self.path} cannot be read: {table_quotes.explained(error)}.",
                "Correct the first line of the table.",
            ) from error

    def _refuse_foreign_header(self, header: Sequence[str]) -> None:
        """Refuses a header that is in another encoding than the table's."""
        foreign = encodings.ForeignRows(self.encoding)
        foreign.see((("", name) for name in header), line=1)
        if foreign.count:
            raise self._error(
                f"The header of {self.path} {foreign.is_not}.",
                foreign.remedy(has_flag=self._has_encoding_flag),
            )

    def _refuse_open_header(self, lines: table_quotes.Lines, *, columns: int) -> None:
        """Refuses a header with an open quotation mark that has swallowed rows."""
        if len(lines.kept) > 1 and (
            self._single_lines
            or table_quotes.swallowing_header(
                lines.kept, columns=columns, delimiter=self.delimiter or ","
            )
        ):
            raise self._error(
                f"In {self.path}, a quotation mark that opens in the header runs on to line "
                f"{lines.taken}, over lines that are rows themselves.",
                "Close the quotation mark in the header.",
            )

    def _csv_rows(
        self, file: IO[bytes], *, reject: RejectRow, foreign: encodings.ForeignRows
    ) -> Iterator[TableRow]:
        text = table_files.text_of(file, self.encoding)
        lines = table_quotes.Lines(text)
        begin = 1
        try:
            with text:
                if self._declared:
                    table_headers.first_line(lines)
                reader = table_files.cells_of(lines, self.delimiter or ",")
                next(cells for cells in reader if "".join(cells).strip())
                while True:
                    begin = lines.taken + 1
                    lines.kept.clear()
                    cells = next(reader, None)
                    if cells is None:
                        return
                    if not cells:
                        continue
                    self.read += 1
                    if len(lines.kept) > 1:
                        self._refuse_swallowed(begin, cells, lines.kept)
                    foreign.see(zip(self._header, cells, strict=False), line=begin)
                    if len(cells) >= self._least:  # what is absent has no name
                        cells += [""] * (len(self._header) - len(cells))
                    problem = self._problem(cells)
                    if problem:
                        if len(cells) > (place := self._key_place()):
                            self.left_out.setdefault(cells[place], begin)
                        reject(begin, MALFORMED, problem)
                        continue
                    named = zip(self._header, cells, strict=True)
                    cells = ((name, cell) for name, cell in named if name)
                    yield TableRow(begin, UsedCells(cells, used=self._used))
        except csv.Error as error:
            opened = begin + table_quotes.last_opening(lines.kept, delimiter=self.delimiter or ",")
            raise self._error(
                f"In {self.path}, a quotation mark opens on line {opened}: "
                f"{table_quotes.explained(error)}.",
                _CLOSE_THE_MARK,
            ) from error

    def _problem(self, cells: Sequence[str]) -> str:
        """Returns the reason why a row does not match the header, "" if it does match."""
        if len(cells) != len(self._header):
            return f"the row has {len(cells)} cells for {len(self._header)} columns"
        if any(map(encodings.is_broken, cells)):
            return f"a cell is not {self.encoding.upper()}"
        if any("\0" in cell for cell in cells):
            return "a cell holds a NUL character"
        repeated = [table_headers.column_name(cell) for cell in cells]
        if repeated == self._header and any(repeated):
            return "the row repeats the header, as where two tables were joined into one"
        return ""

    def _key_place(self) -> int:
        return self._header.index(self.key) if self.key in self._header else 0

    def _refuse_swallowed(self, begin: int, cells: Sequence[str], lines: Sequence[str]) -> None:
        """Refuses a row of several lines whose inner lines are rows themselves."""
        place = self._key_place()
        number = table_quotes.swallowed_row(
            lines,
            own=cells[place] if place < len(cells) else "",
            place=place,
            columns=self._least,
            delimiter=self.delimiter or ",",
        )
        if number or self._single_lines:
            inner = f", over line {begin + number}, which is a row itself" if number else ""
            raise self._error(
                f"In {self.path}, the quotation mark that opens in the row of line {begin} "
                f"runs on to line {begin + len(lines) - 1}{inner}.",
                _CLOSE_THE_MARK,
            )

    def _json_rows(
        self, file: IO[bytes], *, reject: RejectRow, foreign: encodings.ForeignRows
    ) -> Iterator[TableRow]:
        self._refuse_foreign(file)
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            self.read += 1
            foreign.see_line(line, line=number)
            try:
                row = table_files.json_object(line, encodings.codec_of(self.encoding))
            except ValueError as error:
                reject(number, MALFORMED, str(error)[:200])
                continue
            self.names.update(dict.fromkeys(row))
            yield TableRow(number, UsedCells(row, used=self._used))
