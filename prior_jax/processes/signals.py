"""Handlers of signals that are not Python's, which the module `signal` can neither read nor set."""

import ctypes
import signal
from collections.abc import Callable

_MOST_BYTES = 1024  # more than a `struct sigaction` has on any system
_C = ctypes.CDLL(None)
_C.signal.restype = ctypes.c_void_p
_C.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)


def handler_of(number: int) -> int:
    """Address of a signal's C function; 0 is the default action, 1 that it is ignored."""
    # The handler is the first field of `struct sigaction`, whatever follows it.
    before = ctypes.create_string_buffer(_MOST_BYTES)
    _C.sigaction(number, None, before)
    return ctypes.c_void_p.from_buffer(before).value or 0


def set_handler(number: int, handler: int) -> None:
    """Sets a signal's C function, by its address as `handler_of` gives it."""
    _C.signal(number, handler)


def caller(handler: int) -> Callable[[int], None]:
    """A C handler as a Python function of the signal's number."""
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)


def delay_aborts() -> None:
    """Lets the other threads go on for six seconds after one has called `abort`.

    jaxlib aborts the process as soon as the coordination service reports an error or is gone; a
    thread that sees the same can then end the process with a cause and an exit code. The handler
    is C's `sleep`, which is given the number of the signal (6) as its seconds, and may be called
    in a handler (POSIX). After that the process is aborted as ever.
    """
    set_handler(signal.SIGABRT, ctypes.cast(_C.sleep, ctypes.c_void_p).value or 0)
