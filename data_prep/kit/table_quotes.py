"""Whether a quotation mark of a `.csv` that is not closed took whole rows into its cell."""

import csv
import pathlib
from collections.abc import Iterable, Iterator, Sequence

_IMAGE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jp2 .dcm .dicom .tif .tiff .bmp .gif .webp .pgm .ppm .nii .npy".split()
)


class Lines:
    """Lines of a text, kept until they are cleared, so that a row knows what it was made of.

    Attributes:
      kept: the lines since they were last cleared.
      taken: number of lines read in all.
    """

    def __init__(self, text: Iterable[str]):
        """Starts before the first line."""
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
    """Returns which of a row's lines the last quoted cell opens on, counted from 0.

    Args:
      lines: physical lines of a row, from its beginning.
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
                pass  # blanks before a cell are none of it
            elif state == "cell begins" and character == '"':
                state, opened = "inside", number
            else:
                state = "outside"
    return opened


def swallowed_row(
    lines: Sequence[str], *, own: str, place: int, columns: int, delimiter: str
) -> int:
    """Returns which of a row's lines was most likely a row itself, counted from 0; 0 for none.

    The lines of one row hold the file of its image once. Where two lines have cells enough for a
    row, and an image in the place of the images' column, counted from the left or from the right,
    they were two rows. The number of cells alone does not tell: prose has commas, and the last line
    of a report has the cells behind it.

    Args:
      lines: physical lines of a row.
      own: the row's cell in the column that identifies rows.
      place: the place of that column.
      columns: number of columns.
      delimiter: character that separates cells.
    """
    found = []
    for number, line in enumerate(lines):
        cells = [cell.strip().strip('"').strip() for cell in line.split(delimiter)]
        places = {place, len(cells) - columns + place}
        if len(cells) >= columns > 1 and any(
            0 <= p < len(cells) and _could_be_key(cells[p], own.strip()) for p in places
        ):
            found.append(number)
    return found[-1] if len(found) > 1 else 0


def _could_be_key(cell: str, own: str) -> bool:
    """Whether a cell could identify a row: a file of an image, or an id as the row's own is."""
    if not cell or (any(map(str.isspace, cell)) and not any(map(str.isspace, own))):
        return False
    suffix = pathlib.PurePosixPath(cell).suffix.lower()
    own_suffix = pathlib.PurePosixPath(own).suffix.lower()
    if suffix or own_suffix:
        return suffix == own_suffix or suffix in _IMAGE_SUFFIXES
    return any(map(str.isdigit, cell + own)) and _shape(cell) == _shape(own)


def _shape(text: str) -> str:
    return "".join("x" if letter.isalnum() else letter for letter in text)


def explained(error: csv.Error) -> str:
    """Returns in plain words what the csv module found."""
    text = str(error)
    if "unexpected end" in text:
        return "a quotation mark is never closed"
    if "field limit" in text:
        return (
            "a cell has more than 131,072 characters, most likely because a quotation mark is not "
            "closed"
        )
    if "expected after" in text:
        return "text stands behind the quotation mark that closes a cell"
    return text
