"""Waits for what goes on writing after the library of arrays has reported an error.

Orbax raises at the first array that cannot be written. The writes of the others are still under
way then, in threads that no one can join: they would put files back into a folder that is being
removed, and each tells on stderr of a loop that has been closed meanwhile.
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
    """Removes a folder after an error, once nothing writes to it any more.

    Args:
      folder: that the library writes to, with all that is in it.
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
    except Exception:
        start = last = time.monotonic()
        while (now := time.monotonic()) - last < _QUIET_SECONDS and now - start < _LONGEST_SECONDS:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
                last = now
            time.sleep(_PAUSE_SECONDS)
        raise
    finally:
        sys.unraisablehook = before
