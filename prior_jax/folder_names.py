"""Which folder names the libraries that store arrays can write to and read again.

Orbax writes checkpoints and weights through etils' epath and tensorstore. They take some characters
of a path for a pattern or a scheme, so that what they write there they never find again.
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
            field,
            received=f"{str(given)!r}, which holds {', '.join(map(repr, stray))}",
            accepted="a path without *, ?, [, a backslash, a colon before a slash, control "
            "characters, or bytes that are not UTF-8: what is stored in it could not be read again",
        )
    long = [name for name in given.parts if len(os.fsencode(name)) > _LONGEST_NAME]
    if long:
        raise ConfigError(
            field,
            received=f"{long[0][:40]}..., a name of {len(os.fsencode(long[0]))} bytes",
            accepted=f"names of at most {_LONGEST_NAME} bytes",
        )
    return given


def temporary_beside(path: pathlib.Path) -> pathlib.Path:
    """Where this process builds what is then renamed to `path`; short, however long its name."""
    digest = zlib.crc32(os.fsencode(path.name))
    return path.with_name(f".{digest:08x}.{os.getpid()}.tmp")
