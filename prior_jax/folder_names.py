"""Which folder names the libraries that store arrays can write to and read again.

Orbax writes checkpoints and weights through etils' epath and tensorstore. They take some characters
of a path for a pattern or a scheme, so that they never find again what they write there.
"""

import os
import pathlib
import re
import zlib

from prior_jax.errors import ConfigError

# epath takes these for patterns and schemes; tensorstore takes no bytes that are not UTF-8.
_UNREADABLE = re.compile(r"[*?\[\\\x00-\x1f\x7f\ud800-\udfff]|:(?=/)")


_LONGEST_NAME = 255  # bytes of UTF-8, on Linux and macOS


def check_folder_name(folder: str | os.PathLike[str], *, field: str) -> pathlib.Path:
    """Refuses a local folder whose arrays could be written but not read again.

    Args:
      folder: path of the folder, which need not exist; "~" is the user's home.
      field: the flag or config field that names the folder, for the message.

    Returns:
      The absolute path.

    Raises:
      ConfigError: naming the characters of the path that the libraries cannot read, or a name
        in it that is too long for any file system.
    """
    given = pathlib.Path(folder).expanduser().absolute()
    stray = sorted(set(_UNREADABLE.findall(f"{given}/")))
    if stray:
        raise ConfigError(
            f"The path {str(given)!r} contains {', '.join(map(repr, stray))}, so what is stored in "
            "it could not be read again.",
            "Give a path without *, ?, [, a backslash, a colon before a slash, control characters "
            "and bytes that are not UTF-8.",
            where=field,
        )
    long = [name for name in given.parts if len(os.fsencode(name)) > _LONGEST_NAME]
    if long:
        raise ConfigError(
            f"The name {long[0][:40]}... in the path has {len(os.fsencode(long[0]))} bytes, and "
            f"file systems take at most {_LONGEST_NAME}.",
            "Give a shorter name.",
            where=field,
        )
    return given


def temporary_beside(path: pathlib.Path) -> pathlib.Path:
    """Returns the path at which this process builds what it then renames to `path`.

    Its name is short, however long the name of `path` is.
    """
    digest = zlib.crc32(os.fsencode(path.name))
    return path.with_name(f".{digest:08x}.{os.getpid()}.tmp")
