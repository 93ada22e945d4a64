"""Which folder names the libraries that store arrays can write to and read again.

Orbax writes checkpoints and weights through etils' epath and tensorstore. They take some characters
of a path for a pattern or a scheme, so that what they write there they never find again.
"""

import os
import pathlib
import re

from prior_jax.errors import ConfigError

# epath takes these for patterns and schemes; tensorstore takes no bytes that are not UTF-8.
_UNREADABLE = re.compile(r"[*?\[\\\x00-\x1f\x7f\ud800-\udfff]|:(?=/)")


def check_folder_name(folder: str | os.PathLike[str], *, field: str) -> pathlib.Path:
    """Refuses a local folder whose arrays could be written but not read again.

    Args:
      folder: path of the folder, which need not exist; "~" is the user's home.
      field: the flag or config field that names the folder, for the message.

    Returns:
      The absolute path.

    Raises:
      ConfigError: naming the characters of the path that the libraries cannot read.
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
    return given
