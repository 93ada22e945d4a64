"""Detects rows of a `.csv` that an unclosed quotation mark has swallowed into a cell."""

import csv
import pathlib
from collections.abc import Iterable, Iterator, Sequence

_IMAGE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jp2 .dcm .dicom .tif .tiff .bmp .gif .webp .pgm .ppm .nii .npy".split()
)


class Lines:
    """The lines of a text, kept until they are cleared, so that the lines of a row are known.

    Attributes:
      kept: lines that were read since `kept` was last cleared.
      taken: number of all lines that were read.
    """

    def __init__(self, text: Iterable[str]):
        """Takes the text; no line is read yet."""
        self._text = iter(text)
        self.kept: list[str] = []
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        """Returns the iterator over the lines."""
        return self

    def __next__(self) -> str:
        """Returns the next line with its line end."""
        line = next(self._text)
        self.taken += 1
        self.kept.append(line)
        return line


def last_opening(lines: Sequence[str], *, delimiter: str) -> int:
    """Returns the index of the line of a row on which its last quoted cell opens, from 0.

    Args:
      lines: physical lines of the row, from its beginning.
      delimiter: character that separates cells.
    """
    state, opened = "cell begins", 0
    for number, line in enumerate(lines):
        for character in line:
            if state == "inside":
                state = "closed" if character == '"' else state
            elif state == "closed" and character == '"':  # a doubled mark
                state = "inside"
            elif character in (delimiter, "\n", "\r"):
                state = "cell begins"
            elif state == "cell begins" and character == " ":
                pass  # spaces before a cell are not a part of it
            elif state == "cell begins" and character == '"':
                state, opened = "inside", number
            else:
                state = "outside"
    return opened


def swallowed_row(
    lines: Sequence[str], *, own: str, place: int, columns: int, delimiter: str
) -> int:
    """Returns the index of a line of a row that was most likely a row itself, 0 if there is none.

    A row has one key, the file of its image, on one of its lines. Another line that has enough
    cells for a row, and another possible key in the place of the key, is a row that was swallowed.
    The number of cells alone is not enough to decide: prose has commas, and the last line of a
    report is followed by the remaining cells of its row.

    Args:
      lines: physical lines of a row.
      own: cell of the row in the column that identifies rows.
      place: index of that column.
      columns: number of columns.
      delimiter: character that separates cells.
    """
    own = own.strip()
    foreign, keyed = [], []
    spaced = False
    for number, line in enumerate(lines):
        written = line.rstrip("\r\n").split(delimiter)
        if not len(written) >= columns > 1:
            continue
        cells = [cell.strip().strip('"').strip() for cell in written]
        blank = [any(cell[:1] == " " for cell in written[p : p + 2]) for p in range(len(written))]
        # Quoted cells before and after the key may contain delimiters.
        places = range(place, len(written) - columns + place + 1)
        if own in cells[place:]:
            keyed.append(number)
            spaced |= blank[cells.index(own, place)]
        elif any(_could_be_key(cells[p], own, prose=blank[p] and not spaced) for p in places):
            foreign.append(number)
    # If the row begins with another key than its own, its own key is on a later line.
    return (max(foreign + keyed) or len(lines) - 1) if foreign else 0


def _could_be_key(cell: str, own: str, *, prose: bool) -> bool:
    """Tells whether a cell could identify a row: an image file, or an id like the row's own.

    Args:
      cell: cell without quotation marks.
      own: key of the row that contains the cell.
      prose: whether a space follows the delimiters around the cell, as in a sentence.
    """
    suffix, own_suffix = (pathlib.PurePosixPath(name).suffix.lower() for name in (cell, own))
    blanks = any(map(str.isspace, cell))
    images = _IMAGE_SUFFIXES | ({own_suffix} if own_suffix[1:].isalpha() else set())
    if suffix in images:
        return not (blanks and prose)
    if own_suffix in images or prose or (blanks and not any(map(str.isspace, own))):
        return False
    letters = [any(map(str.isalpha, name)) for name in (cell, own)]
    return any(map(str.isdigit, cell)) and letters[0] == letters[1] and 2 * len(cell) > len(own)


def swallowing_header(lines: Sequence[str], *, columns: int, delimiter: str) -> bool:
    """Tells whether a header of several lines has most likely swallowed rows.

    Args:
      lines: physical lines of the header.
      columns: number of columns of the header.
      delimiter: character that separates cells.
    """
    return any(line.count(delimiter) + 1 >= columns for line in lines[1:])


def explained(error: csv.Error) -> str:
    """Describes an error of the csv module in plain words."""
    text = str(error)
    if "unexpected end" in text:
        return "a quotation mark is never closed"
    if "field limit" in text:
        return (
            "a cell has more than 131,072 characters, most likely because a quotation mark is not "
            "closed"
        )
    if "expected after" in text:
        return "text follows the quotation mark that closes a cell"
    return text
