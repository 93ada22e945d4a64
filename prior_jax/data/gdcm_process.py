"""Runs gdcm in a separate process, whose termination is handled.

On some damaged files gdcm terminates the whole process, with a C++ exception that Python cannot
catch. It is the only decoder of lossless JPEG, so it is required. One child process serves all
files of its parent; it is started by the first file, and restarted after a file that terminated it.
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

LIMIT_S = 120  # the file of one radiograph takes less than a second
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from prior_jax.data import gdcm_process; gdcm_process.serve()"
)

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


class DecoderDied(Exception):
    """The child process ended, or was stopped, while decoding the file."""


def decode(content: bytes, *, plugin: str = "gdcm") -> np.ndarray:
    """Decodes the pixels of a DICOM file with one of pydicom's plugins.

    Args:
      content: content of the file.
      plugin: pydicom's name of the decoder.

    Returns:
      Pixels, int or uint[...], as pydicom returns them, with the bits above BitsStored.

    Raises:
      DecoderDied: if the process ended or took too long.
      ValueError: if the decoder refused the file.
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
        except BaseException:  # interrupted: the answer must not be taken for the next file's
            _stop()
            raise
        finally:
            timer.cancel()
    if isinstance(answer, str):
        raise ValueError(answer)
    return answer


def serve() -> None:
    """Answers requests from stdin on stdout until stdin is closed.

    It is the `main` of the child process.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of a decoder must not be mixed with the answers
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
    except Exception as error:  # decoders raise any exception
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
    """Stops the process and returns its exit code, or 0 if no process was running."""
    global _process
    process, _process = _process, None
    if process is None:
        return 0
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)  # its own exit code is more informative than that of killing it
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    return process.wait()


def _named(code: int) -> str:
    """Returns the name of the signal that an exit code stands for, or the code."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _end() -> None:
    """Stops the process at exit without waiting for an unfinished file."""
    if _process is not None:
        _process.kill()
    _stop()


def _forget() -> None:
    """Resets the state after a fork: the child owns neither the process nor the lock's holder."""
    global _process, _lock
    _process, _lock = None, threading.Lock()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
