"""Refuses a file or a folder of results that cannot be written, before anything is computed."""

import pathlib
import tempfile

from prior_jax.errors import ConfigError


def check_file(path: pathlib.Path, *, where: str) -> None:
    """Makes the folder of a file of results, and refuses a path that cannot be written to.

    A file that is there keeps its content, and one that is not is not made.

    Args:
      path: path of the file.
      where: name of the flag that gave it, for the error.

    Raises:
      ConfigError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        absent = not path.exists()
        path.open("ab").close()
        if absent:
            path.unlink()
    except OSError as error:
        raise ConfigError(
            f"The file {path} cannot be written ({error.strerror}).",
            "Give the path of a file in a folder that you may write to.",
            where=where,
        ) from error


def check_folder(path: pathlib.Path, *, where: str) -> None:
    """Makes a folder of results, and refuses one in which no file can be made.

    Args:
      path: path of the folder.
      where: name of the flag that gave it, for the error.

    Raises:
      ConfigError: if no file can be made in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # permissions alone do not tell
            pass
    except OSError as error:
        raise ConfigError(
            f"No file can be written in the folder {path} ({error.strerror}).",
            "Give a folder that you may write to.",
            where=where,
        ) from error
