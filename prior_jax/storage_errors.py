"""What a storage's error means for the user: a disk, a quota, or a bucket.

The libraries that write arrays turn the system's errors into text of their own, so that their
text, and that of the errors they came from, is read as well.
"""

import errno
import logging
from collections.abc import Iterator

from absl import logging as absl_logging

from prior_jax.errors import first_line

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


def meaning(error: BaseException) -> tuple[str, str] | None:
    """What was received and what is accepted; None for an error that says nothing of a storage.

    Args:
      error: of writing to a storage, or of reading from it.
    """
    if is_out_of_space(error):
        return "no space left on device", "a place with free space"
    known = _cause(error)
    return None if known is None else (f"{known[0]} ({first_line(error)})", known[1])


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


def hide_traces() -> None:
    """Keeps from the log the traces of errors that the library of checkpoints raises as well."""
    absl_logging.get_absl_logger().addFilter(_told_by_our_error)


def _told_by_our_error(record: logging.LogRecord) -> bool:
    """False for the traces that the library's threads log of an error which it raises as well."""
    return "_SignalingThread.run() raised" not in record.getMessage()


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


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
