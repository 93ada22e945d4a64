"""Tells the user what an error of a disk or a bucket means, and what to do about it.

The libraries that write arrays turn an error of the system into one of their own, which says the
cause only in its text. So known words are looked for in the text of an error, and in that of the
errors that caused it.
"""

import dataclasses
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
OUT_OF_SPACE = (
    "There is no space left on the device.",
    "Free some space there and run the same command again; training resumes from its last "
    "checkpoint.",
)
"""Problem and remedy of a full disk or an exhausted quota."""


@dataclasses.dataclass(frozen=True)
class _Cause:
    """A reason why a storage cannot be used.

    Attributes:
      texts: words of the libraries' errors by which it is recognised.
      problem: what is wrong, without a full stop, because the library's error follows in brackets.
      remedy: what to do about it.
    """

    texts: tuple[str, ...]
    problem: str
    remedy: str


_NO_BUCKET = _Cause(
    ("NoSuchBucket", "bucket does not exist", "bucket was not found", "bucket not found"),
    "The bucket does not exist",
    "Create the bucket, or give the name of one that exists.",
)
_NO_CREDENTIALS = _Cause(
    ("Unable to locate credentials", "default credentials", "Anonymous caller", "aws-error"),
    "No credentials for the storage were found",
    "Set the credentials in the environment, in the way that the cloud's own tools expect.",
)
_NO_PERMISSION = _Cause(
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
    "There is no permission to use the storage",
    "Allow this user to list, read, write and delete there, or choose another place.",
)
_NO_ANSWER = _Cause(
    (
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "Could not connect",
        "Cannot connect",
        "Connection refused",
        "Connect timeout",
        "Read timeout",
    ),
    "The storage does not answer",
    "Check the network and run the same command again; training resumes from its last checkpoint.",
)


def meaning(error: BaseException) -> tuple[str, str] | None:
    """Returns the problem and the remedy, or None for an error that is not about a storage.

    Args:
      error: error of writing to a storage, or of reading from it.
    """
    if is_out_of_space(error):
        return OUT_OF_SPACE
    cause = _cause(error)
    return None if cause is None else _explain(cause, error)


def missing_bucket(error: BaseException) -> tuple[str, str]:
    """Returns the problem and the remedy, for an error that is known to mean an absent bucket."""
    return _explain(_NO_BUCKET, error)


def is_out_of_reach(error: BaseException) -> bool:
    """Returns whether an error of reading is about the access to the storage, not its content."""
    return _cause(error) is not None


def is_out_of_space(error: BaseException) -> bool:
    """Returns whether an error, or one that caused it, says that the disk or quota is full.

    Args:
      error: error of writing. Its text is searched too, because libraries turn the system's error
        into text.
    """
    return any(
        (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(text in str(one) for text in _FULL)
        for one in _chain(error)
    )


def hide_traces() -> None:
    """Keeps tracebacks out of the log whose errors orbax raises as well."""
    absl_logging.get_absl_logger().addFilter(_is_not_repeated)


def _is_not_repeated(record: logging.LogRecord) -> bool:
    """Returns False for a traceback that a thread of orbax logs before orbax raises the error."""
    return "_SignalingThread.run() raised" not in record.getMessage()


def _cause(error: BaseException) -> _Cause | None:
    """Returns why the storage cannot be used, or None if the error does not say so."""
    chain = list(_chain(error))
    for cause in (_NO_BUCKET, _NO_CREDENTIALS, _NO_PERMISSION, _NO_ANSWER):
        if any(text in str(one) for one in chain for text in cause.texts):
            return cause
    if any(isinstance(one, PermissionError) for one in chain):
        return _NO_PERMISSION
    if any(isinstance(one, ConnectionError | TimeoutError) for one in chain):
        return _NO_ANSWER
    return None


def _explain(cause: _Cause, error: BaseException) -> tuple[str, str]:
    return f"{cause.problem} ({first_line(error)}).", cause.remedy


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and all that it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
