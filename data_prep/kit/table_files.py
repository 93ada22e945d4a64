"""Opens the file of a table, and reads its lines as cells or as JSON objects."""

import csv
import gzip
import io
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

from data_prep.kit import encodings, strict_json

_GZIP_MARK = b"\x1f\x8b"


def opened(path: pathlib.Path) -> Any:
    """Opens a file, and unpacks it if its first bytes are those of gzip, whatever its name."""
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP_MARK
    return gzip.open(path) if packed else open(path, "rb")


def text_of(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    """Reads text with or without a byte-order mark; invalid bytes become lone surrogates."""
    codec = encodings.codec_of(encoding)
    return io.TextIOWrapper(file, codec, errors="surrogateescape", newline="")


def cells_of(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Reads rows strictly; spaces before a cell are skipped, so that `a, "b"` has two cells."""
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def json_object(line: bytes, codec: str) -> dict[str, Any]:
    """Returns the JSON object of a line; raises ValueError for any other content."""
    row = strict_json.loads(line.decode(codec))
    if not isinstance(row, dict):
        raise ValueError("the row is not a JSON object")
    if b"\\u" in line:  # half a surrogate pair is valid JSON, but not valid text
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    return strict_json.unique(
        [(name.replace("\ufeff", "").strip(), value) for name, value in row.items()]
    )
