"""Keeps Ctrl-C (SIGINT) away from code that takes an interrupt for an error of its own.

Python raises KeyboardInterrupt wherever the main thread happens to be. Orbax runs event loops
there: an interrupted loop cancels its tasks and raises an ordinary exception, which looks like a
damaged file, or like a storage that cannot be written to. `held` lets such a call end first.
"""

import contextlib
import signal
import threading
import types
from collections.abc import Iterator

from absl import logging

_seen = 0


def seen() -> int:
    """Returns how many interrupts this process has noted since it started.

    Those count that come within `held`, within `noted`, or to a training's `PreemptionGuard`.
    """
    return _seen


def note() -> None:
    """Counts one interrupt; for handlers of SIGINT outside of this module."""
    global _seen
    _seen += 1


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    note()
    raise KeyboardInterrupt


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Counts the interrupts within the block, which are raised as usual.

    A SIGINT that is ignored, as in the background of a shell, stays ignored.
    """
    if not _raises_here():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def held(activity: str) -> Iterator[None]:
    """Holds the first interrupt within the block back until the block has ended.

    A second one is raised at once. Whatever the block then makes of it, a result or an error, it
    ends with KeyboardInterrupt. A handler that only notes the first SIGINT, as that of a training,
    is called at once. In another thread than the main one nothing is held back: Python interrupts
    the main thread only.

    Args:
      activity: words for the log on what the block does: "reading /runs/small/checkpoints/24".

    Raises:
      KeyboardInterrupt: after the block, if the handler before it raised that.
    """
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, or left to the system, which ends the process
        yield
        return
    came, interrupted = 0, False

    def handle(number: int, frame: types.FrameType | None) -> None:
        nonlocal came, interrupted
        came += 1
        try:
            before(number, frame)
        except KeyboardInterrupt:
            if before is signal.default_int_handler:
                note()
            interrupted = True
            if came > 1:
                raise
            logging.warning(
                "SIGINT: the program ends after %s; a second one ends it at once", activity
            )

    try:
        signal.signal(signal.SIGINT, handle)
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupted:
            raise KeyboardInterrupt from None


def _raises_here() -> bool:
    """Tells whether SIGINT raises KeyboardInterrupt in this thread in Python's own way."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
