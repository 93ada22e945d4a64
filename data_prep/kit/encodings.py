"""Encodings of tables: their names, a guess at one, and a table that is in another than was said.

A table in Latin-1 that is read as UTF-8 loses each row with an accent, and what is left is biased:
only the reports without accents. Such a table is refused, and not counted row by row.
"""

import codecs
from collections.abc import Iterable

UTF8 = "utf-8"
HELP = (
    "Encoding of the tables, such as cp1252 for one that Excel has saved on Windows. A table of "
    "which many rows are in another encoding is refused."
)
MUST_BE = "an encoding of texts that holds ASCII as it is, such as utf-8, cp1252 or gb18030"

# A few damaged rows are counted; more than these are a table in another encoding.
_FEW_ROWS = 2
_SMALL_SHARE = 0.01
_KEPT_BYTES = 1 << 16
# Encodings that Western programs have written tables in, the most usual first.
_WESTERN = ("cp1252", "mac_roman", "cp850")


def is_known(name: str) -> bool:
    """Tells whether an encoding can be read: Python knows it, and it holds ASCII as it is."""
    ascii_text = "a,;\t|\"'[{\r\n"
    try:
        return ascii_text.encode(name) == ascii_text.encode("ascii")
    except (LookupError, ValueError, TypeError):
        return False


def codec_of(name: str) -> str:
    """Returns the codec for reading a file, which takes a byte-order mark of UTF-8 away."""
    return "utf-8-sig" if codecs.lookup(name).name.startswith("utf-8") else name


def are_many(count: int, *, of: int) -> bool:
    """Tells whether so many texts cannot be decoded that the rest is a biased set."""
    return count > max(_FEW_ROWS, _SMALL_SHARE * of)


def is_broken(text: str) -> bool:
    """Tells whether a text holds bytes that its encoding does not have, as lone surrogates."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def guessed(content: bytes) -> str:
    """Returns the likely encoding of bytes that are no UTF-8, "" for one that is not Western.

    Western letters with accents stand among many without, and hardly ever in capitals; of the
    encodings that give the most small letters, the most usual is returned.

    Args:
      content: bytes of some rows.
    """
    foreign = [byte for byte in content if byte >= 0x80]
    plain = sum(chr(byte).isalpha() for byte in content if byte < 0x80)
    if len(foreign) > plain:
        return ""
    found = {}
    for name in _WESTERN:
        letters = bytes(foreign).decode(name, "replace")
        found[name] = sum(map(str.islower, letters)) - letters.count("\ufffd")
    return max(_WESTERN, key=found.__getitem__)


class ForeignRows:
    """The rows of a table that are in another encoding than the table is read in.

    Attributes:
      encoding: encoding that the table is read in.
      is_not: words for messages that say what is wrong with the first row, such as "is not UTF-8".
      count: number of such rows so far.
      line: line on which the first one begins, 0 if there is none.
      column: name of the first column that shows it, "" where none is known.
    """

    def __init__(self, encoding: str):
        """Begins without a row."""
        self.encoding = encoding
        self._is_utf8 = codec_of(encoding) == "utf-8-sig"
        self.is_not = ""
        self.count, self.line, self.column = 0, 0, ""
        self._content = bytearray()

    def see(self, cells: Iterable[tuple[str, str]], *, line: int) -> None:
        """Counts a row if its cells are in another encoding.

        Most encodings read any bytes. For another encoding than UTF-8, rows that are UTF-8 count.

        Args:
          cells: pairs (column, cell).
          line: line on which the row begins.
        """
        for name, cell in cells:
            if not cell.isascii() and self._is_foreign(cell):
                self._add(cell, line=line, column=name)
                return

    def see_line(self, content: bytes, *, line: int) -> None:
        """Counts a line of a `.jsonl` if it is in another encoding."""
        if content.isascii():
            return
        text = content.decode(codec_of(self.encoding), "surrogateescape")
        if self._is_foreign(text):
            self._add(text, line=line, column="")

    def _is_foreign(self, text: str) -> bool:
        if self._is_utf8 or is_broken(text):
            return is_broken(text)
        try:
            text.encode(self.encoding, "surrogateescape").decode(UTF8)
        except ValueError:
            return False
        return True

    def _add(self, text: str, *, line: int, column: str) -> None:
        if not self.count:
            self.line, self.column = line, column
            of_utf8 = f"is UTF-8, and not {self.encoding}"
            self.is_not = f"is not {self.encoding.upper()}" if is_broken(text) else of_utf8
        self.count += 1
        if len(self._content) < _KEPT_BYTES:
            self._content += text.encode(self.encoding, "surrogateescape")

    def problem(self, *, read: int) -> str:
        """Returns what is wrong with a table of `read` rows, "" if only a few rows are foreign."""
        if not are_many(self.count, of=read):
            return ""
        place = f" in column {self.column!r}" if self.column else ""
        are_not = self.is_not.replace("is", "are", 1)
        return f"{self.count} of {read} rows {are_not}; the first is line {self.line}{place}."

    def remedy(self, *, has_flag: bool) -> str:
        """Returns what to do about it.

        Args:
          has_flag: whether the program has the flag --encoding.
        """
        if not has_flag:
            return "Save the table again in UTF-8."
        if "and not" in self.is_not:
            return "Leave out --encoding, or save the whole table in one encoding."
        likely = guessed(bytes(self._content))
        named = f"Set --encoding={likely}, which it most likely is,"
        if likely in ("", self.encoding):
            named = "Set --encoding to the one that it was saved in, such as cp1251 or gb18030,"
        return f"{named} or save the table again in UTF-8."
