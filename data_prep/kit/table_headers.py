"""Reads the beginning of a table: its kind, its delimiter and the names of its columns."""

import re
from collections.abc import Iterator

_DELIMITERS = (";", "\t", "|", ",")
# A first line that declares the delimiter to Excel.
_DECLARED = re.compile(r'\ufeff?"?sep=(?P<mark>[,;|\t])"?,*[\r\n]*', re.IGNORECASE)
# First bytes of files that are not text tables -> kind of the file.
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
# Beginning of the names that pandas gives to columns without a name.
_UNNAMED = "Unnamed: "


def foreign_kind(begin: bytes) -> str:
    """Returns the kind of a file that cannot be text in UTF-8, "" if it can."""
    kinds = [kind for mark, kind in _FOREIGN.items() if begin.startswith(mark)]
    if begin.count(b"\0") > len(begin) // 8:
        kinds.append("a file in UTF-16 or a binary file")
    return kinds[0] if kinds else ""


def first_line(lines: Iterator[str]) -> str:
    """Takes lines up to the first that is not blank, and returns it; "" at the end."""
    return next((line for line in lines if line.strip()), "")


def declared_delimiter(line: str) -> str:
    """Returns the delimiter that a line such as `sep=;` names, "" for any other line."""
    match = _DECLARED.fullmatch(line)
    return match["mark"] if match else ""


def delimiter_of(line: str, *, expected: str) -> str:
    """Returns the expected delimiter, or another one if only that one occurs in the header.

    Args:
      line: header of the table.
      expected: delimiter that the suffix of the file stands for.
    """
    bare = re.sub(r'"[^"]*"', "", line)
    if expected in bare:
        return expected
    best = max(_DELIMITERS, key=bare.count)
    return best if best in bare else expected


def column_name(name: str) -> str:
    """Returns a column's name without outer spaces and marks, "" for a column without a name."""
    name = name.replace("\ufeff", "").strip()
    return "" if name.startswith(_UNNAMED) else name
