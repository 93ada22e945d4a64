"""gdcm in a process of its own, which is allowed to die.

gdcm ends the whole process on some damaged files, with a C++ exception that Python cannot catch.
It alone reads lossless JPEG, so that it cannot be left out. One process serves all files of the
process that asks; it is started by the first file, and again after a file that it died of.
"""

import atexit
import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np

LIMIT_S = 120  # a file of one radiograph takes less than a second
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from prior_jax.data import gdcm_process; gdcm_process.serve()"
)

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


class DecoderDied(Exception):
    """The process ended, or was ended, on the file that it was given."""


def decode(content: bytes, *, plugin: str = "gdcm") -> np.ndarray:
    """Decodes a DICOM file's pixels as pydicom does with one of its plugins.

    Args:
      content: the file.
      plugin: pydicom's name of the decoder.

    Returns:
      int or uint[...], as pydicom gives them, with the bits above BitsStored.

    Raises:
      DecoderDied: the process ended or took too long.
      ValueError: the decoder refused the file.
    """
    with _lock:
        process = _started()
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(LIMIT_S, end)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            pickle.dump((content, plugin), process.stdin)
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            code = _stop()
            detail = f"took longer than {LIMIT_S} s" if late.is_set() else f"died ({_named(code)})"
            raise DecoderDied(f"the decoder {plugin} {detail} on this file") from error
        except BaseException:  # an interrupt: the answer must not be taken for the next file's
            _stop()
            raise
        finally:
            timer.cancel()
    if isinstance(answer, str):
        raise ValueError(answer)
    return answer


def serve() -> None:
    """Answers on stdout what is asked on stdin, until it is closed; the other process's `main`."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not stand among the answers
    while True:
        try:
            content, plugin = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_answer(content, plugin), answers)
        answers.flush()


def _answer(content: bytes, plugin: str) -> np.ndarray | str:
    import pydicom

    try:
        file = pydicom.dcmread(io.BytesIO(content), force=True)
        file.pixel_array_options(decoding_plugin=plugin, correct_unused_bits=False)
        return file.pixel_array
    except Exception as error:  # decoders raise whatever they like
        return f"{type(error).__name__}: {error}"


def _started() -> subprocess.Popen[bytes]:
    global _process
    if _process is None or _process.poll() is not None:
        _stop()
        _process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    return _process


def _stop() -> int:
    """Ends the process and returns its exit code; 0 if there was none."""
    global _process
    process, _process = _process, None
    if process is None:
        return 0
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)  # its own exit code says more than that of killing it
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    return process.wait()


def _named(code: int) -> str:
    """The name of the signal that an exit code stands for, or the code."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _end() -> None:
    """Ends the process at exit without waiting for a file that it has not finished."""
    if _process is not None:
        _process.kill()
    _stop()


def _forget() -> None:
    """A fork owns neither the process nor whoever holds the lock."""
    global _process, _lock
    _process, _lock = None, threading.Lock()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
