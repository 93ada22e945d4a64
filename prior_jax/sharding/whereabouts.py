"""Where in its work this process is: told by `stage`, read by the threads that watch over it."""

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
STAGE_END = "stage end"

WAITING = (STEP, COLLECTIVE)
"""Stages that end only when every process has come to them."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the main thread is.

    Attributes:
      stage: one of the names above.
      step: of the run, or None before the first.
      since: when it came there, or last made progress there; seconds of `time.monotonic`.
    """

    stage: str
    step: int | None
    since: float

    def __str__(self) -> str:
        """In words."""
        return self.stage if self.step is None else f"{self.stage} at step {self.step}"


_place = Place(START, None, time.monotonic())


def place() -> Place:
    """Where the main thread is now; any thread may ask."""
    return _place


def enter(name: str, *, step: int | None = None) -> Place:
    """Says that a stage begins; returns the one before, for `leave`."""
    global _place
    before = _place
    _place = Place(name, before.step if step is None else step, time.monotonic())
    return before


def leave(before: Place) -> None:
    """Says that a stage is over and the one before goes on; that is progress for that one too."""
    global _place
    _place = dataclasses.replace(before, since=time.monotonic())


def reach(step: int) -> None:
    """Says that the loop has come to a step, which the stages inside then have."""
    global _place
    _place = Place(LOOP, step, time.monotonic())


@contextlib.contextmanager
def stage(name: str, *, step: int | None = None) -> Iterator[None]:
    """The main thread is in a stage; only the main thread says so.

    Args:
      name: one of the names above.
      step: of the run; that of the stage around it by default.
    """
    before = enter(name, step=step)
    try:
        yield
    finally:
        leave(before)


def each(name: str, items: Iterable[T]) -> Iterator[T]:
    """The items; the main thread is in the stage while it waits for the next."""
    iterator = iter(items)
    while True:
        with stage(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
