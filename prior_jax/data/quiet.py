"""Keeps warnings from being shown, also in several threads at once."""

import contextlib
import threading
import warnings
from collections.abc import Iterator


class _Quiet:
    """Counts the threads that are inside.

    Filters of warnings belong to the whole process. `warnings.catch_warnings` in each of several
    threads may restore the filters that another one had set, and so leave every warning off. Here
    the first thread that enters saves the filters, and the last one that leaves restores them.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Ignores all warnings of the process until the last thread has left the block."""
        with self._lock:
            if self._inside == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._filters.close()


without_warnings = _Quiet()
