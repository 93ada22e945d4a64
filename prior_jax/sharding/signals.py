"""Handlers of signals that are not Python's, which the module `signal` can neither read nor set."""

import ctypes
import signal
from collections.abc import Callable

_C = ctypes.CDLL(None)
_C.signal.restype = ctypes.c_void_p
_C.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)


def set_handler(number: int, handler: int | None) -> int | None:
    """Sets the handler of a signal and returns the one before.

    Args:
      number: of the signal.
      handler: address of a C function, as this function returns it; None for the default.
    """
    return _C.signal(number, handler)


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
    set_handler(signal.SIGABRT, ctypes.cast(_C.sleep, ctypes.c_void_p).value)
