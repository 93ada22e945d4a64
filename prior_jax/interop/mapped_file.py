"""A file of weights mapped into memory, read-only."""

import dataclasses
import hashlib
import mmap
import os
import pathlib
import stat

from prior_jax.errors import WeightsError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MappedFile:
    """The bytes of a file; the operating system reads them from disk on first access.

    Attributes:
      path: path of the file.
      data: all bytes of the file. Arrays that view them keep the mapping alive, and the file must
        not be overwritten in place while they are in use (replacing it by a rename is fine).
    """

    path: pathlib.Path
    data: memoryview

    @property
    def field(self) -> str:
        """Returns the path, which errors name as their field."""
        return str(self.path)

    def sha256(self) -> str:
        """Returns the hexadecimal sha256 of the file, without copying it."""
        return hashlib.sha256(self.data).hexdigest()


def open_mapped(path: pathlib.Path) -> MappedFile:
    """Maps a file into memory.

    Args:
      path: an ordinary file, or a link to one.

    Returns:
      the mapped file, never empty.

    Raises:
      WeightsError: if the file is absent, unreadable, empty or not an ordinary file.
    """
    remedy = "Give a readable file of weights."
    try:
        # The kind of file is checked before opening: opening a pipe would block until its other
        # end is opened.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
            raise WeightsError(f"This is {kind} and not a file.", remedy, where=str(path))
        if status.st_size == 0:
            raise WeightsError("This is an empty file.", remedy, where=str(path))
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise WeightsError(
            f"The file cannot be read ({reason}).", remedy, where=str(path)
        ) from None
    return MappedFile(path=path, data=memoryview(mapped))
