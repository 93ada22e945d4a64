"""Removes the folder of a failed save once orbax's background writes have ended.

Orbax raises at the first array that cannot be written. The writes of the other arrays are then
still running in threads that cannot be joined: they would put files back into a folder that is
being removed, and each of them reports on stderr that its event loop has been closed.
"""

import contextlib
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

_QUIET_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_PAUSE_SECONDS = 0.05


@contextlib.contextmanager
def removed_on_error(folder: pathlib.Path) -> Iterator[None]:
    """Removes a folder after an error, once no thread writes to it any more.

    Args:
      folder: folder that orbax writes to, which is removed with its content.
    """
    last = time.monotonic()
    before = sys.unraisablehook

    def hook(told: Any) -> None:
        nonlocal last
        if isinstance(told.exc_value, RuntimeError) and "loop is closed" in str(told.exc_value):
            last = time.monotonic()
        else:
            before(told)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:  # of any library: it is raised again once the folder is gone
        start = last = time.monotonic()
        while (now := time.monotonic()) - last < _QUIET_SECONDS and now - start < _LONGEST_SECONDS:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
                last = now
            time.sleep(_PAUSE_SECONDS)
        raise
    finally:
        sys.unraisablehook = before
