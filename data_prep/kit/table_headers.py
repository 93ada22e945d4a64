"""What the beginning of a table says: its kind, its delimiter, the names of its columns."""

import re
from collections.abc import Iterator

_DELIMITERS = (";", "\t", "|", ",")
# The first line by which Excel is told the delimiter.
_DECLARED = re.compile(r'\ufeff?"?sep=(?P<mark>[,;|\t])"?,*[\r\n]*', re.IGNORECASE)
# What files begin with that are no tables of text.
_FOREIGN = {
    b"\xff\xfe": "a file in UTF-16",
    b"\xfe\xff": "a file in UTF-16",
    b"PK\x03\x04": "a spreadsheet or a zip",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"PAR1": "a Parquet file",
    b"BZh": "a file packed with bzip2",
    b"\xfd7zXZ": "a file packed with xz",
    b"\x28\xb5\x2f\xfd": "a file packed with zstd",
}
# What pandas calls a column without a name.
_UNNAMED = "Unnamed: "


def foreign_kind(begin: bytes) -> str:
    """Returns what a file is that begins as no text in UTF-8 does, "" for a text."""
    kinds = [kind for mark, kind in _FOREIGN.items() if begin.startswith(mark)]
    if begin.count(b"\0") > len(begin) // 8:
        kinds.append("a file in UTF-16, or none of text")
    return kinds[0] if kinds else ""


def first_line(lines: Iterator[str]) -> str:
    """Takes lines up to the first that is not blank, and returns it; "" at the end."""
    return next((line for line in lines if line.strip()), "")


def declared_delimiter(line: str) -> str:
    """Returns the delimiter that a line such as `sep=;` names, "" for any other line."""
    match = _DECLARED.fullmatch(line)
    return match["mark"] if match else ""


def delimiter_of(line: str, *, expected: str) -> str:
    """Returns the delimiter the suffix promises, or another if only that separates the header."""
    bare = re.sub(r'"[^"]*"', "", line)
    if expected in bare:
        return expected
    best = max(_DELIMITERS, key=bare.count)
    return best if best in bare else expected


def column_name(name: str) -> str:
    """Returns a column's name without blanks and marks; "" for one that has none."""
    name = name.replace("\ufeff", "").strip()
    return "" if name.startswith(_UNNAMED) else name
