"""Storage of checkpoints, in a local folder or a prefix of a bucket, and their completeness.

An object store has no folders and no rename. So a checkpoint is written directly to its final
path, in the same way on all storages: it is complete once it holds a marker, which is the last
file that a save writes and the first that a deletion removes; a checkpoint that is found damaged
gets another marker.
"""

import functools
import importlib.util
import os
import re

from absl import logging
from etils import epath

from prior_jax import storage_errors
from prior_jax.errors import CheckpointError, ConfigError, first_line
from prior_jax.folder_names import check_folder_name
from prior_jax.train import checkpoint_s3

COMMITTED = "commit_success.txt"
"""Orbax's marker: the save is complete."""
DAMAGED = "DAMAGED"
"""Our marker: the checkpoint could not be read as it was written; the file's text says why."""

_PROBE = ".written_at_start"
# Scheme -> (package that lists and deletes on such a storage, extra that installs the package).
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a single letter is a Windows drive


def check_directory(directory: str | None) -> None:
    """Refuses a path that cannot hold checkpoints, without accessing it.

    Args:
      directory: directory as in `CheckpointConfig.directory`.

    Raises:
      ConfigError: for the field `directory`, naming the accepted forms.
    """
    if directory is None:
        return
    scheme = _SCHEME.match(directory)
    bucket = re.fullmatch(r"(gs|s3)://[^/]+/+[^/].*", directory)
    if not directory or (scheme and not bucket):
        raise ConfigError.of_value(
            "directory", directory, "None, a path, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"
        )


def folder_of(directory: str | None, *, workdir: str | os.PathLike[str]) -> epath.Path:
    """Returns the folder of a run's checkpoints: as configured, or in the workdir.

    Raises:
      ConfigError: for a local path with characters that orbax takes for a pattern or a scheme: it
        would write the checkpoints, and never read them again.
    """
    if directory is not None and _SCHEME.match(directory):
        return epath.Path(directory)
    given = check_folder_name(
        workdir if directory is None else directory,
        field="--workdir" if directory is None else "config.checkpoint.directory",
    )
    return epath.Path(given / "checkpoints" if directory is None else given)


def open_path(path: epath.PathLike) -> epath.Path:
    """Returns a usable path.

    Raises:
      CheckpointError: if the package that its scheme needs is not installed.
    """
    path = epath.Path(path)
    scheme = _SCHEME.match(str(path))
    if scheme:
        _open_scheme(scheme[1], str(path))
    return path


@functools.lru_cache(maxsize=8)
def _open_scheme(scheme: str, path: str) -> None:
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise CheckpointError(
            f"The package {package}, which {scheme}:// needs, is not installed.",
            f"Run pip install 'prior_jax[{extra}]'.",
            where=path,
        )
    # Another library writes the arrays, so a cached listing would not show them.
    from fsspec import config

    for name in ("gs", "gcs", "s3"):
        config.conf.setdefault(name, {})["use_listings_cache"] = False
    if scheme == "s3":
        checkpoint_s3.enable(path)


def prepare(folder: epath.Path) -> None:
    """Creates the folder, removes the remains of interrupted saves, and tests that it is writable.

    Remains of interrupted deletions are removed as well.

    Args:
      folder: path from `open_path`. A bucket is not created.

    Raises:
      CheckpointError: if the folder cannot be listed, written to or deleted from.
    """
    try:
        if not _SCHEME.match(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        for child in _children(folder):
            if _is_left_over(child):
                logging.info("removing %s, left by an interrupted run", child)
                remove(child)
        # A test write finds errors now rather than at the first save, hours later; listing an
        # absent bucket raises no error.
        (folder / _PROBE).write_text("")
        (folder / _PROBE).unlink()
    except FileNotFoundError as error:  # a local folder has just been made
        problem, remedy = storage_errors.missing_bucket(error)
        raise CheckpointError(problem, remedy, where=str(folder)) from error
    except Exception as error:  # each storage's library has error types of its own
        raise storage_error(folder, error) from error


def may_hold_checkpoints(folder: epath.Path) -> bool:
    """Returns whether a folder may hold checkpoints: a local one that is absent cannot."""
    return bool(_SCHEME.match(str(folder))) or folder.is_dir()


def scan(folder: epath.Path) -> tuple[list[int], list[int]]:
    """Returns steps of the complete checkpoints, and of those marked as damaged, each oldest first.

    Raises:
      CheckpointError: if the folder cannot be listed.
    """
    whole, damaged = [], []
    try:
        for child in _children(folder):
            names = _names(child) if child.name.isdigit() else set()
            if COMMITTED in names:
                (damaged if DAMAGED in names else whole).append(int(child.name))
    except Exception as error:  # each storage's library has error types of its own
        raise storage_error(folder, error) from error
    return sorted(whole), sorted(damaged)


def mark_damaged(path: epath.Path, reason: str) -> None:
    """Marks a checkpoint as damaged: it is not read again, and replaced by a new save of its step.

    Raises:
      CheckpointError: if the marker cannot be written.
    """
    try:
        (path / DAMAGED).write_text(f"{reason}\n")
    except Exception as error:  # each storage's library has error types of its own
        raise storage_error(path, error) from error


def remove(path: epath.Path) -> None:
    """Deletes a checkpoint; if interrupted at any point, the remains do not look complete."""
    (path / COMMITTED).unlink(missing_ok=True)
    path.rmtree(missing_ok=True)
    # On stores where an object represents a folder, its content can survive the first deletion.
    if path.exists():
        path.rmtree(missing_ok=True)


def storage_error(path: epath.PathLike, error: BaseException) -> CheckpointError:
    """Returns an error that explains a storage's error to the user in one line."""
    problem, remedy = storage_errors.meaning(error) or (
        f"The storage reported an error ({first_line(error)}).",
        "Check that the folder can be read and written, and run the same command again.",
    )
    return CheckpointError(problem, remedy, where=str(path))


def _children(folder: epath.Path) -> list[epath.Path]:
    """Returns the content of a folder, without the folder itself, which a bucket may list."""
    try:
        return [child for child in folder.iterdir() if child != folder]
    except FileNotFoundError:
        return []


def _names(path: epath.Path) -> set[str]:
    """Returns the file names in a checkpoint; none if it is a file, or has just been deleted."""
    return {child.name for child in _children(path)} if path.is_dir() else set()


def _is_left_over(path: epath.Path) -> bool:
    # The suffixes are those of earlier versions, which renamed folders.
    if ".orbax-checkpoint-tmp" in path.name or path.name.endswith(".deleting"):
        return True
    return path.name.isdigit() and path.is_dir() and COMMITTED not in _names(path)
