"""File locks that end with the process that holds them, among them the lock on a run's folder."""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import IO

from absl import logging

from prior_jax.errors import ConfigError
from prior_jax.processes.distributed import agree, is_primary

RUN_LOCK_NAME = "run.lock"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def take(path: pathlib.Path) -> IO[str] | None:
    """Locks a file, created if absent, until it is closed; returns None if it is locked already.

    The operating system releases the lock when this process, and all processes that have inherited
    the file, have ended in any way.

    Raises:
      OSError: if the file cannot be opened, or the file system has no locks.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        raise
    return file


@contextlib.contextmanager
def only_run(workdir: pathlib.Path, *, where: str = "--workdir") -> Iterator[None]:
    """Keeps other runs out of a folder, such as a requeued job while the old one is still alive.

    Every process of the run has to enter the block; process 0 holds the lock for all.

    Args:
      workdir: folder of the run.
      where: name of the flag that names the folder, for the error message.

    Raises:
      ConfigError: in every process, naming the other run, if another run is using the folder.
    """
    with contextlib.ExitStack() as stack:
        alone = _alone(workdir / RUN_LOCK_NAME, stack) if is_primary() else True
        if not agree(alone):
            holder = (workdir / RUN_LOCK_NAME).read_text().strip()
            raise ConfigError(
                f"The folder {workdir} is in use by {holder or 'another run'}.",
                "Wait until that run has ended, or give another folder.",
                where=where,
            )
        yield


def _alone(path: pathlib.Path, stack: contextlib.ExitStack) -> bool:
    """Locks a file until the stack is closed, and writes the holder into it; False if locked."""
    try:
        file = take(path)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        logging.warning(
            "%s: this file system has no locks, so two runs that use the folder at the same time "
            "are not noticed. Start only one.",
            path,
        )
        return True
    if file is None:
        return False
    stack.enter_context(file)
    file.truncate(0)
    stack.callback(file.truncate, 0)  # the holder's name is cleared when the lock is released
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    return True
