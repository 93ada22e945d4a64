"""Reads MIMIC-CXR's reports from a folder or straight from the zip, in little memory."""

import dataclasses
import functools
import glob
import hashlib
import os
import pathlib
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from prior_jax.errors import DataError, InputProblem

_MEMBER = re.compile(rb"(?:^|/)p(\d{1,18})/s(\d{1,18})\.txt$")
_END, _END64_LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_ENTRY = np.dtype(
    [
        ("subject", np.int64),
        ("study", np.int64),
        ("offset", np.int64),
        ("packed", np.int64),
        ("size", np.int64),
        ("crc", np.uint32),
        ("method", np.uint16),
    ]
)
_SIDES = ("left", "right")
# No report is longer; more is damage, and must not fill the memory.
MAX_REPORT_BYTES = 1 << 20


class ReportProblem(InputProblem):
    """A report that cannot be read."""


class Reports(Protocol):
    """A source of reports; picklable."""

    def read(self, *, subject: int, study: int) -> bytes:
        """Returns the bytes of a report, or raises ReportProblem."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportFolder:
    """A folder of unpacked reports, `p10/p10000032/s50414267.txt` under `root`."""

    root: pathlib.Path

    def read(self, *, subject: int, study: int) -> bytes:
        """Returns the bytes of a report, or raises ReportProblem."""
        name = f"p{str(subject)[:2]}/p{subject}/s{study}.txt"
        try:
            with open(self.root / name, "rb") as file:
                content = file.read(MAX_REPORT_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ReportProblem("missing_report", f"there is no file {name}") from error
        except OSError as error:
            raise ReportProblem("unreadable_report", f"{name}: {error.strerror}") from error
        if len(content) > MAX_REPORT_BYTES:
            raise ReportProblem(
                "unreadable_report", f"{name} has more than {MAX_REPORT_BYTES} bytes"
            )
        return content


def folder_digest(root: pathlib.Path) -> str:
    """Returns a sha256 of the names and sizes of the reports in a folder, see `ReportFolder`.

    The 227,835 reports of MIMIC-CXR are not opened for it, so that a report that was exchanged for
    one of the same length goes unnoticed. Times are not looked at: a copy of a folder is the same.
    """
    whole = hashlib.sha256()
    for name in sorted(glob.glob("p[0-9]*/p[0-9]*/s[0-9]*.txt", root_dir=root)):
        try:
            size = os.path.getsize(root / name)
        except OSError:  # such as a link to nowhere; a worker rejects the study
            size = -1
        whole.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportZip:
    """The reports in `mimic-cxr-reports.zip`, found by an index with 46 bytes for each report.

    `zipfile` would take about a kilobyte for each report in every worker.

    Attributes:
      path: path of the zip.
      index: path of the `.npy` that `index_zip` wrote, sorted by study and patient.
    """

    path: pathlib.Path
    index: pathlib.Path

    def read(self, *, subject: int, study: int) -> bytes:
        """Returns the bytes of a report, or raises ReportProblem."""
        index = _opened_index(self.index, self.index.stat().st_mtime_ns)
        begin, end = (int(np.searchsorted(index["study"], study, side)) for side in _SIDES)
        own = [place for place in range(begin, end) if index["subject"][place] == subject]
        if not own:
            others = [f"p{index['subject'][place]}" for place in range(begin, end)]
            where = f", but under {' and '.join(others)}" if others else ""
            detail = f"p{subject}/s{study}.txt is not in the zip{where}"
            raise ReportProblem("missing_report", detail)
        entry = index[own[0]]
        try:
            with open(self.path, "rb") as file:
                content = _member(file, entry)
        except (OSError, zlib.error, struct.error, ValueError) as error:
            detail = f"p{subject}/s{study}.txt: {error}"
            raise ReportProblem("corrupt_zip_member", detail) from error
        return content


@functools.lru_cache(maxsize=1)
def _opened_index(path: pathlib.Path, written: int) -> np.ndarray:
    """Memory-maps the index."""
    del written  # part of the cache key: the folder may hold another index later
    return np.load(path, mmap_mode="r")


def _member(file, entry: np.void) -> bytes:
    """Returns the bytes of an entry, checked against its size and CRC."""
    if entry["size"] > MAX_REPORT_BYTES:
        raise ValueError(f"the report has more than {MAX_REPORT_BYTES} bytes")
    file.seek(int(entry["offset"]))
    header = file.read(30)
    if header[:4] != _LOCAL:
        raise ValueError("the zip's directory points to a place without a file")
    flags = struct.unpack_from("<H", header, 6)[0]
    if flags & 1:
        raise ValueError("the report is encrypted")
    name, extra = struct.unpack_from("<HH", header, 26)
    file.seek(name + extra, 1)
    packed = file.read(int(entry["packed"]))
    if entry["method"] == 0:
        content = packed
    elif entry["method"] == 8:
        content = zlib.decompressobj(-15).decompress(packed, MAX_REPORT_BYTES)
    else:
        raise ValueError(f"the report has the unknown compression method {entry['method']}")
    if len(content) != entry["size"] or zlib.crc32(content) != entry["crc"]:
        raise ValueError("size or CRC of the report differs from the zip's directory")
    return content


def index_zip(path: pathlib.Path, index: pathlib.Path) -> list[tuple[str, bool]]:
    """Writes the index of a zip's reports, sorted by study and patient.

    Args:
      path: path of the zip.
      index: path of the `.npy` to write.

    Returns:
      Pairs (name of the study, whether its text differs) of each report of a study and patient that
      is not the first; the first one is used.

    Raises:
      DataError: if the file is not a zip or its directory is damaged.
    """
    try:
        entries = np.fromiter(_entries(path), _ENTRY)
    except (OSError, struct.error, ValueError) as error:
        raise DataError(
            f"The zip of reports cannot be read: {error}.",
            "Download mimic-cxr-reports.zip again, or set --reports to a folder of reports.",
            where=str(path),
        ) from error
    entries = entries[np.lexsort((entries["subject"], entries["study"]))]
    repeated = np.zeros(len(entries), bool)
    keys = entries[["subject", "study"]]
    repeated[1:] = keys[1:] == keys[:-1]
    np.save(index, entries[~repeated])
    first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(entries))))
    texts = entries[["size", "crc"]]
    return [
        (f"s{entries['study'][place]}", bool(texts[place] != texts[first[place]]))
        for place in np.flatnonzero(repeated)
    ]


def _entries(path: pathlib.Path) -> Iterator[tuple[int, ...]]:
    """Yields the reports of the central directory, reading one entry at a time."""
    with open(path, "rb") as file:
        count, offset = _directory(file)
        file.seek(offset)
        for _ in range(count):
            header = file.read(46)
            if header[:4] != _CENTRAL:
                raise ValueError("the zip's directory is damaged")
            method, crc, packed, size = struct.unpack_from("<H4xLLL", header, 10)
            name_length, extra_length, comment_length = struct.unpack_from("<HHH", header, 28)
            place = struct.unpack_from("<L", header, 42)[0]
            name = file.read(name_length)
            file.seek(extra_length + comment_length, 1)
            match = _MEMBER.search(name)
            if match:
                yield int(match[1]), int(match[2]), place, packed, size, crc, method


def _directory(file) -> tuple[int, int]:
    """Returns (number of entries, offset) of the central directory, zip64 or not."""
    size = file.seek(0, 2)
    start = max(0, size - (1 << 16) - 22)
    file.seek(start)
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0:
        raise ValueError("the file is not a zip, or was cut off")
    count, _, offset = struct.unpack_from("<HLL", tail, place + 10)
    if count != 0xFFFF and offset != 0xFFFFFFFF:
        return count, offset
    locator = place - 20
    if locator < 0 or tail[locator : locator + 4] != _END64_LOCATOR:
        return count, offset
    file.seek(struct.unpack_from("<Q", tail, locator + 8)[0])
    end = file.read(56)
    if end[:4] != _END64:
        raise ValueError("the zip64 directory is damaged")
    return struct.unpack_from("<Q", end, 32)[0], struct.unpack_from("<Q", end, 48)[0]
