"""What the main thread of this process is doing: it says so, and the watching threads read it.

An activity is one of the names below, such as waiting for input or for a collective. It has nothing
to do with PRIOR's training stages, which are in `train.stages`.
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
"""Activities that end only when every process has come to them."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the main thread is.

    Attributes:
      activity: one of the names above.
      step: of the run, or None before the first.
      since: when it came there, or last made progress there; seconds of `time.monotonic`.
    """

    activity: str
    step: int | None
    since: float

    def __str__(self) -> str:
        """In words."""
        return self.activity if self.step is None else f"{self.activity} at step {self.step}"


_place = Place(START, None, time.monotonic())


def place() -> Place:
    """Returns what the main thread is doing now; any thread may ask."""
    return _place


def enter(name: str, *, step: int | None = None) -> Place:
    """Says that an activity begins; returns the one before, for `leave`."""
    global _place
    before = _place
    _place = Place(name, before.step if step is None else step, time.monotonic())
    return before


def leave(before: Place) -> None:
    """Says that an activity is over and the one before goes on, which counts as its progress."""
    global _place
    _place = dataclasses.replace(before, since=time.monotonic())


def reach(step: int) -> None:
    """Says that the loop has come to a step, which the activities inside then carry."""
    global _place
    _place = Place(LOOP, step, time.monotonic())


@contextlib.contextmanager
def doing(name: str, *, step: int | None = None) -> Iterator[None]:
    """Says what the main thread does within the block; only the main thread says so.

    Args:
      name: one of the names above.
      step: step of the run; by default that of the activity around it.
    """
    before = enter(name, step=step)
    try:
        yield
    finally:
        leave(before)


def each(name: str, items: Iterable[T]) -> Iterator[T]:
    """Yields the items; waiting for the next one is the activity."""
    iterator = iter(items)
    while True:
        with doing(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
