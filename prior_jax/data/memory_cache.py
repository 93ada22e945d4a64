"""Keeps what was read of a set in memory, so that later epochs need not read it again."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")


class MemoryCache:
    """Values by key, as many of the first ones as fit; safe across threads.

    A value that no longer fits is computed each time that it is asked for. None is dropped for
    another: in epochs of a random order a value that is kept serves as well as any other.

    A copy in another process begins empty.
    """

    def __init__(self, limit: int):
        """Begins without values.

        Args:
          limit: number of bytes that the values take at most; 0 keeps nothing.
        """
        self._limit = limit
        self._begin()

    def _begin(self):
        self._kept: dict[Hashable, Any] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self):
        """Leaves out the values."""
        return self._limit

    def __setstate__(self, state):
        """Begins without values."""
        self._limit = state
        self._begin()

    @property
    def bytes(self) -> int:
        """Returns the number of bytes that the values take."""
        return self._bytes

    def get(
        self, key: Hashable, compute: Callable[[], Value], *, size: Callable[[Value], int]
    ) -> Value:
        """Returns the value of a key, which is computed unless it is kept.

        Args:
          key: key of the value.
          compute: function that computes it, always the same for the same key. What it raises is
            raised, and nothing is kept.
          size: function that tells the number of bytes of the value.
        """
        if key in self._kept:
            return self._kept[key]
        value = compute()
        if self._limit:
            taken = size(value)
            with self._lock:
                if key not in self._kept and self._bytes + taken <= self._limit:
                    self._kept[key] = value
                    self._bytes += taken
        return value
