"""Reads the zip files that torch has written since 1.6.

An archive holds, under one folder, `data.pkl` (the object, with storages by key), `data/KEY` (the
storages' bytes), `byteorder` and `version`. No record is compressed, so a storage is a part of the
file and can be viewed in place.

Source: torch/serialization.py and caffe2/serialize/inline_container.cc of PyTorch 2.13.
"""

import dataclasses
import io
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

from prior_jax.errors import WeightsError
from prior_jax.interop.mapped_file import MappedFile
from prior_jax.interop.printable import printable
from prior_jax.interop.torch.pickle_reader import MAX_BYTES, read_pickle
from prior_jax.interop.torch.tensors import SAVE_AGAIN, Storage

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAX_DIRECTORY = 2**24
_ENCRYPTED = 0x1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchFile:
    """Content of a file of torch.

    Attributes:
      value: the object that was saved; its tensors are `TorchTensor`.
      fetch: function that returns a storage's bytes, or refuses them.
      swap_bytes: whether the storages have the other byte order than this machine.
    """

    value: Any
    fetch: Callable[[Storage], memoryview]
    swap_bytes: bool


def read_torch_zip(file: MappedFile) -> TorchFile:
    """Reads the object of an archive; storages are read when they are fetched.

    Args:
      file: mapped zip file.

    Returns:
      the object and storages of the archive.

    Raises:
      WeightsError: on a damaged archive, one that torch did not write, TorchScript, or a pickle
        that `read_pickle` refuses.
    """
    archive = _Archive(file)
    pickled = archive.record("data.pkl")
    if len(pickled) > MAX_BYTES:
        raise WeightsError(
            f"The file has a pickle of {len(pickled)} bytes; at most {MAX_BYTES} are read.",
            SAVE_AGAIN,
            where=file.field,
        )
    order = bytes(archive.record("byteorder")[:16]) if archive.has("byteorder") else b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(
            f"The file has the byte order {order!r}, which is neither 'little' nor 'big'.",
            SAVE_AGAIN,
            where=file.field,
        )
    value = read_pickle(pickled, field=file.field).value

    def fetch(storage: Storage) -> memoryview:
        name = f"data/{storage.key}"
        expected = storage.count * storage.dtype.itemsize
        if not archive.has(name):
            raise WeightsError(
                f"The file is an archive without the record {printable(name, 100)}.",
                SAVE_AGAIN,
                where=file.field,
            )
        if archive.size(name) != expected:
            raise WeightsError(
                f"The file has a record {printable(name, 100)} of {archive.size(name)} bytes, "
                f"where its tensors take {expected}.",
                SAVE_AGAIN,
                where=file.field,
            )
        return archive.record(name)

    return TorchFile(value=value, fetch=fetch, swap_bytes=order.decode() != sys.byteorder)


class _Bounded(io.FileIO):
    """A file that limits how much `zipfile` can read at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        # Without a size the rest of the file is read, as zipfile does to find the directory's end.
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else size) > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory is larger than {_MAX_DIRECTORY} bytes")
        return super().read(size)


class _Archive:
    """The records of an archive, by their names within its folder."""

    def __init__(self, file: MappedFile):
        self.file = file
        try:
            with _Bounded(str(file.path), "rb") as raw, zipfile.ZipFile(raw) as opened:
                members, end = opened.infolist(), opened.start_dir
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as why:
            reason = " ".join(str(why).split())[:100]
            self.refuse(f"is a zip file that is damaged or cut short ({reason})")
        self.folder = self._folder(members)
        self.records: dict[str, tuple[int, zipfile.ZipInfo]] = {}
        for index, member in enumerate(members):
            name = member.orig_filename.removeprefix(self.folder)
            if name in self.records:
                self.refuse(f"has two records of the name {name[:100]!r}")
            self.records[name] = index, member
        if any(name == "constants.pkl" or name.startswith("code/") for name in self.records):
            self.refuse("is a TorchScript archive, which holds a program")
        self._starts = self._check_places(members, end)

    def refuse(self, fault: str) -> NoReturn:
        raise WeightsError(f"The file {fault}.", SAVE_AGAIN, where=self.file.field)

    def has(self, name: str) -> bool:
        return name in self.records

    def size(self, name: str) -> int:
        return self.records[name][1].file_size

    def record(self, name: str) -> memoryview:
        """Returns a view of a record's bytes in the file, after checking their CRC-32."""
        index, member = self.records[name]
        start = self._starts[index]
        data = self.file.data[start : start + member.file_size]
        # torch writes 0 if checksums are switched off (`set_crc32_options`).
        if member.CRC and zlib.crc32(data) != member.CRC:
            self.refuse(f"has a record {name[:100]!r} whose checksum does not fit")
        return data

    def _folder(self, members: list[zipfile.ZipInfo]) -> str:
        names = [member.orig_filename for member in members]
        for name in names:
            if not name.isprintable() or "\\" in name or ".." in name.split("/") or name[:1] == "/":
                self.refuse(f"has a record of the name {name[:100]!r}, which is not allowed")
        tops = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        found = sorted({name.removesuffix("data.pkl") for name in tops})
        if len(found) != 1:
            self.refuse(f"is a zip file with {len(found)} records FOLDER/data.pkl instead of one")
        outside = [name for name in names if not name.startswith(found[0])]
        if outside:
            self.refuse(f"has a record {outside[0][:100]!r} outside the folder {found[0]!r}")
        return found[0]

    def _check_places(self, members: list[zipfile.ZipInfo], end: int) -> list[int]:
        """Returns the offset of each record's bytes; refuses compressed or overlapping records.

        A record that reaches beyond the end of the file is refused as well.
        """
        starts = []
        for member in members:
            name = member.orig_filename
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
                self.refuse(f"has a record {name[:100]!r} that is compressed or encrypted")
            header = self.file.data[member.header_offset :][: _LOCAL_HEADER.size]
            if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
                self.refuse(f"has a record {name[:100]!r} that is not where the directory says")
            *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
            start = member.header_offset + _LOCAL_HEADER.size
            spelt = bytes(self.file.data[start : start + name_size])
            if spelt != name.encode("utf-8" if member.flag_bits & 0x800 else "cp437"):
                self.refuse(f"has a record {name[:100]!r} of another name in the directory")
            starts.append(start + name_size + extra_size)
        order = sorted(range(len(members)), key=lambda index: starts[index])
        limits = [members[index].header_offset for index in order[1:]] + [end]
        for index, limit in zip(order, limits, strict=True):
            member = members[index]
            size = member.file_size
            if size != member.compress_size or starts[index] + size > limit:
                self.refuse(
                    f"has a record {member.orig_filename[:100]!r} that says it has {size} bytes, "
                    f"where {max(limit - starts[index], 0)} are left"
                )
        return starts
