"""Where checkpoints lie, a local folder or a prefix of a bucket, and what makes one whole.

An object store has no folders and no rename. So a checkpoint is written in its place, and
everywhere in the same way: it is whole once it holds a marker, which is the last thing that a save
writes and the first that a deletion removes; one that is found damaged is given another marker.
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
"""The library's marker: the save has ended."""
DAMAGED = "DAMAGED"
"""Our marker: could not be read as it was written; its text says why."""

_PROBE = ".written_at_start"
# Scheme -> the package that lists and deletes there, which is also the extra that installs it.
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a single letter is a drive


def check_directory(directory: str | None) -> None:
    """Refuses what can be no place for checkpoints, without looking for it.

    Args:
      directory: as `CheckpointConfig.directory`.

    Raises:
      ConfigError: naming what is accepted.
    """
    if directory is None:
        return
    scheme = _SCHEME.match(directory)
    bucket = re.fullmatch(r"(gs|s3)://[^/]+/+[^/].*", directory)
    if not directory or (scheme and not bucket):
        raise ConfigError(
            "config.checkpoint.directory",
            received=directory,
            accepted="None, a path, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER",
        )


def folder_of(directory: str | None, *, workdir: str | os.PathLike[str]) -> epath.Path:
    """The folder of a run's checkpoints: as configured, or in the workdir.

    Raises:
      ConfigError: for a local path with characters that the library which writes checkpoints
        takes for a pattern or a scheme: it would write them, and never read them again.
    """
    if directory is not None and _SCHEME.match(directory):
        return epath.Path(directory)
    given = check_folder_name(
        workdir if directory is None else directory,
        field="--workdir" if directory is None else "config.checkpoint.directory",
    )
    return epath.Path(given / "checkpoints" if directory is None else given)


def open_path(path: epath.PathLike) -> epath.Path:
    """A path that can be used.

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
            path,
            received=f"no package {package}",
            accepted=f"pip install 'prior_jax[{extra}]'",
        )
    # Arrays are written by another library: a listing that is kept would not show them.
    from fsspec import config

    for name in ("gs", "gcs", "s3"):
        config.conf.setdefault(name, {})["use_listings_cache"] = False
    if scheme == "s3":
        checkpoint_s3.enable(path)


def prepare(folder: epath.Path) -> None:
    """Makes the folder, removes what interrupted saves and deletions left, and tries to write.

    Args:
      folder: from `open_path`. A bucket is not made.

    Raises:
      CheckpointError: if it cannot be listed, written to or deleted from.
    """
    try:
        if not _SCHEME.match(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        for child in _children(folder):
            if _is_left_over(child):
                logging.info("removing %s, left by an interrupted run", child)
                remove(child)
        # Found now rather than after the first hours; listing finds nothing where no bucket is.
        (folder / _PROBE).write_text("")
        (folder / _PROBE).unlink()
    except FileNotFoundError as error:  # a local folder has just been made
        received, accepted = f"no such bucket ({first_line(error)})", "a bucket that is there"
        raise CheckpointError(str(folder), received=received, accepted=accepted) from error
    except Exception as error:  # the libraries of the storages have errors of their own
        raise storage_error(folder, error) from error


def may_hold_checkpoints(folder: epath.Path) -> bool:
    """Whether it is worth listing a folder: a local one that is absent holds nothing."""
    return bool(_SCHEME.match(str(folder))) or folder.is_dir()


def scan(folder: epath.Path) -> tuple[list[int], list[int]]:
    """Steps of the whole checkpoints, and of those marked as damaged, each oldest first.

    Raises:
      CheckpointError: if the folder cannot be listed.
    """
    whole, damaged = [], []
    try:
        for child in _children(folder):
            names = _names(child) if child.name.isdigit() else set()
            if COMMITTED in names:
                (damaged if DAMAGED in names else whole).append(int(child.name))
    except Exception as error:  # the libraries of the storages have errors of their own
        raise storage_error(folder, error) from error
    return sorted(whole), sorted(damaged)


def mark_damaged(path: epath.Path, reason: str) -> None:
    """Marks a checkpoint, which is then no more read; it is replaced when its step is saved again.

    Raises:
      CheckpointError: if that cannot be written.
    """
    try:
        (path / DAMAGED).write_text(f"{reason}\n")
    except Exception as error:  # the libraries of the storages have errors of their own
        raise storage_error(path, error) from error


def remove(path: epath.Path) -> None:
    """Deletes a checkpoint; stopped at any moment, what is left does not look like a whole one."""
    (path / COMMITTED).unlink(missing_ok=True)
    path.rmtree(missing_ok=True)
    # Where an object stands for a folder, what is in it can outlast the first round.
    if path.exists():
        path.rmtree(missing_ok=True)


def storage_error(path: epath.PathLike, error: BaseException) -> CheckpointError:
    """What a storage's error means for the user, in one line."""
    known = storage_errors.meaning(error)
    received, accepted = known or (f"an error ({first_line(error)})", "a place to write to")
    return CheckpointError(str(path), received=received, accepted=accepted)


def _children(folder: epath.Path) -> list[epath.Path]:
    """What is in a folder; nothing if it is absent. A bucket may list the folder in itself."""
    try:
        return [child for child in folder.iterdir() if child != folder]
    except FileNotFoundError:
        return []


def _names(path: epath.Path) -> set[str]:
    """Names of what is in a checkpoint; none if it is a file, or has just been deleted."""
    return {child.name for child in _children(path)} if path.is_dir() else set()


def _is_left_over(path: epath.Path) -> bool:
    # The suffixes are those of earlier versions, which renamed.
    if ".orbax-checkpoint-tmp" in path.name or path.name.endswith(".deleting"):
        return True
    return path.name.isdigit() and path.is_dir() and COMMITTED not in _names(path)
