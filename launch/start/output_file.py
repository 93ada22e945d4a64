"""Refuses files and folders of results that cannot be written, before anything is computed."""

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
    """Refuses a folder of results that cannot be made or written to; nothing of it is made.

    A folder is made within the nearest one that there is, and removed: permissions alone do not
    tell.

    Args:
      path: path of the folder, which need not be there.
      where: name of the flag that gave it, for the error.

    Raises:
      ConfigError: naming the folder that stands in the way.
    """
    found = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".writable", dir=found):
            pass
    except OSError as error:
        reason = "it is a file" if found.is_file() else error.strerror
        raise ConfigError(
            f"The results cannot be written to {path}: nothing can be made in {found} ({reason}).",
            "Give a folder that can be written to.",
            where=where,
        ) from error
