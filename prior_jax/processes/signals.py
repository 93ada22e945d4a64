"""Calls and restores signal handlers of C code, and delays the end of an aborted process.

Python's standard library serves neither purpose, so C's own functions are called with `ctypes`:

- JAX's coordination service sets a handler of SIGTERM in C++, which `preemption` has to call and
  to restore. `signal.getsignal` and `signal.signal` only know handlers that Python has set: they
  return SIG_DFL in its place, and the service's handler would be lost.
- jaxlib calls `abort`. A handler that `signal.signal` sets for SIGABRT never runs, since Python
  calls it after the signal, and `abort` ends the process first. `faulthandler.enable` writes the
  traceback of an abort but does not delay it, and `faulthandler.register` refuses SIGABRT.
"""

import ctypes
import signal
from collections.abc import Callable

_MOST_BYTES = 1024  # larger than `struct sigaction` on any system
_C = ctypes.CDLL(None)
_C.signal.restype = ctypes.c_void_p
_C.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)


def handler_of(number: int) -> int:
    """Returns the address of a signal's C handler; 0 is the default action, 1 means ignored."""
    # The handler is the first field of `struct sigaction`; the other fields are not read.
    before = ctypes.create_string_buffer(_MOST_BYTES)
    _C.sigaction(number, None, before)
    return ctypes.c_void_p.from_buffer(before).value or 0


def set_handler(number: int, handler: int) -> None:
    """Sets a signal's C handler by its address, as `handler_of` returns it."""
    _C.signal(number, handler)


def caller(handler: int) -> Callable[[int], None]:
    """Returns a C handler as a Python function of the signal's number."""
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)


def delay_aborts() -> None:
    """Lets the other threads run for six seconds after a thread has called `abort`.

    jaxlib aborts the process as soon as the coordination service reports an error or is gone. In
    these six seconds, a thread that detects the same can end the process with an error message and
    an exit code. The handler is C's `sleep`: it receives the number of the signal (6) as its
    seconds, and POSIX allows its use in a handler. After the delay the process is aborted as usual.
    """
    set_handler(signal.SIGABRT, ctypes.cast(_C.sleep, ctypes.c_void_p).value or 0)
