"""A record of the main thread's current activity, which monitoring threads read.

An activity is one of the names below, such as waiting for input or for a collective. Activities
are unrelated to PRIOR's training stages, which are in `train.stages`.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

START = "start"
LOOP = "loop"
COMPILE = "compile"
INPUT = "input"
STEP = "step"
COLLECTIVE = "collective"
SAVE = "save"
RESTORE = "restore"
EVALUATE = "evaluate"

WAITING = (STEP, COLLECTIVE)
"""Activities that end only when every process has reached them."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Current activity and step of the main thread.

    Attributes:
      activity: one of the names above.
      step: step of the run, or None before the first.
      since: time at which the activity began or last made progress; seconds of `time.monotonic`.
    """

    activity: str
    step: int | None
    since: float

    def __str__(self) -> str:
        """Returns the activity and the step in words."""
        return self.activity if self.step is None else f"{self.activity} at step {self.step}"


_place = Place(START, None, time.monotonic())


def place() -> Place:
    """Returns the current activity of the main thread; any thread may call this."""
    return _place


def enter(name: str, *, step: int | None = None) -> Place:
    """Records that an activity begins, and returns the previous one, for `leave`."""
    global _place
    before = _place
    _place = Place(name, before.step if step is None else step, time.monotonic())
    return before


def leave(before: Place) -> None:
    """Records that an activity ends and the previous one continues, which counts as progress."""
    global _place
    _place = dataclasses.replace(before, since=time.monotonic())


def reach(step: int) -> None:
    """Records that the loop has reached a step, which the activities within the step inherit."""
    global _place
    _place = Place(LOOP, step, time.monotonic())


@contextlib.contextmanager
def doing(name: str, *, step: int | None = None) -> Iterator[None]:
    """Records the main thread's activity within the block; only the main thread may use it.

    Args:
      name: one of the names above.
      step: step of the run; by default that of the enclosing activity.
    """
    before = enter(name, step=step)
    try:
        yield
    finally:
        leave(before)


def each(name: str, items: Iterable[T]) -> Iterator[T]:
    """Yields the items, and records waiting for the next item as the activity."""
    iterator = iter(items)
    while True:
        with doing(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
