"""Where checkpoints lie, a local folder or a prefix of a bucket, and what makes one whole.

An object store has no folders and no rename. So a checkpoint is written in its place, and
everywhere in the same way: it is whole once it holds a marker, which is the last thing that a save
writes and the first that a deletion removes; one that is found damaged is given another marker.
"""

import errno
import functools
import importlib.util
import os
import re

from absl import logging
from etils import epath

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

_FULL = (
    "No space left on device",
    "Disk quota exceeded",
    "QuotaExceeded",
    "quotaExceeded",
    "StorageFull",
    "InsufficientStorage",
)
# What the libraries' errors say -> what was received and what is accepted.
_OUT_OF_REACH = (
    (
        ("NoSuchBucket", "bucket does not exist", "bucket was not found", "bucket not found"),
        "no such bucket",
        "a bucket that is there",
    ),
    (
        ("Unable to locate credentials", "default credentials", "Anonymous caller", "aws-error"),
        "no credentials",
        "credentials in the environment, as the cloud's own tools take them",
    ),
    (
        (
            "AccessDenied",
            "Access Denied",
            "PERMISSION_DENIED",
            "Permission denied",
            "Forbidden",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "Read-only file system",
            "Operation not permitted",
        ),
        "no permission",
        "a place that may be listed, read, written to and deleted from",
    ),
    (
        (
            "UNAVAILABLE",
            "DEADLINE_EXCEEDED",
            "Could not connect",
            "Cannot connect",
            "Connection refused",
            "Connect timeout",
            "Read timeout",
        ),
        "no answer",
        "a storage that answers; run again to go on from the last checkpoint",
    ),
)


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
    if is_out_of_space(error):
        return CheckpointError(
            str(path), received="no space left on device", accepted="a place with free space"
        )
    known = _cause(error)
    received, accepted = known or ("an error", "a place to write to")
    return CheckpointError(
        str(path), received=f"{received} ({first_line(error)})", accepted=accepted
    )


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an error of reading speaks of the way to the storage, and not of what is stored."""
    return _cause(error) is not None


def is_out_of_space(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that the disk or quota is full.

    Args:
      error: of writing; libraries below turn the system's error into text, so that is read too.

    Returns:
      True if freeing space is the remedy.
    """
    return any(
        (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(text in str(one) for text in _FULL)
        for one in _chain(error)
    )


def _cause(error: BaseException) -> tuple[str, str] | None:
    """What was received and what is accepted, if the error is one of `_OUT_OF_REACH`."""
    chain = list(_chain(error))
    for texts, received, accepted in _OUT_OF_REACH:
        if any(text in str(one) for one in chain for text in texts):
            return received, accepted
    if any(isinstance(one, PermissionError) for one in chain):
        return _OUT_OF_REACH[2][1:]
    if any(isinstance(one, ConnectionError | TimeoutError) for one in chain):
        return _OUT_OF_REACH[3][1:]
    return None


def _chain(error: BaseException):
    """The error and all that it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


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
