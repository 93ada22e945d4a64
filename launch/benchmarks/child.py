"""Processes that a benchmark starts and watches: their output, end and peak memory."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from launch.benchmarks import usage
from prior_jax.errors import PriorJaxError

ROOT = pathlib.Path(__file__).parents[2]
_POLL_SECONDS = 0.02
_TAIL_BYTES = 4000


class ChildFailed(PriorJaxError):
    """A process that a benchmark started ended with an error, or did not end in time.

    Attributes:
      tail: last lines of what it wrote on stderr.
      killed: whether a signal of the system ended it, as when memory is short.
    """

    tail: str = ""
    killed: bool = False


class Child:
    """A running process of its own group, whose stdout and stderr go to files."""

    def __init__(
        self,
        command: Sequence[str],
        folder: pathlib.Path,
        *,
        environment: Mapping[str, str] | None = None,
        pipes: bool = False,
    ):
        """Starts the process in the root of the checkout.

        Args:
          command: program and arguments.
          folder: folder for stdout.txt and stderr.txt, made if missing.
          environment: variables to set where this process has none of the name.
          pipes: whether stdin and stdout are pipes to this process.

        Raises:
          ChildFailed: if the program cannot be started.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.command, self._errors = tuple(command), folder / "stderr.txt"
        self.peak_bytes = 0
        with self._errors.open("wb") as errors, (folder / "stdout.txt").open("wb") as output:
            try:
                self.process = subprocess.Popen(
                    self.command,
                    cwd=ROOT,
                    env={**(environment or {}), **os.environ},
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else output,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
            except OSError as error:
                raise ChildFailed(
                    f"The program {self.command[0]} cannot be started ({error.strerror}).",
                    f"Its command: {' '.join(self.command)}",
                ) from error

    def watch(self, *, until: Callable[[], bool] = lambda: False, seconds: float) -> None:
        """Waits until the process ends or something else holds, noting its peak memory.

        Args:
          until: asked again and again; the process goes on if it becomes true.
          seconds: limit of the waiting time in seconds.

        Raises:
          ChildFailed: if the process ends with an error, or time is up.
        """
        end = time.monotonic() + seconds
        while self.process.poll() is None and not until():
            self.note_peak()
            if time.monotonic() > end:
                self.end()
                raise self._failure(f"did not end within {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        if self.process.poll():
            raise self._failure(f"ended with the exit code {self.process.returncode}")

    def note_peak(self) -> None:
        """Notes the largest resident memory that the process has had so far."""
        self.peak_bytes = max(self.peak_bytes, usage.peak_of(self.process.pid) or 0)

    def write(self, text: str) -> None:
        """Writes on the process's stdin.

        Raises:
          ChildFailed: if the process has ended.
        """
        try:
            self._pipe(self.process.stdin).write(text)
            self._pipe(self.process.stdin).flush()
        except BrokenPipeError as error:
            self.process.wait()
            raise self._failure(f"ended early, with the code {self.process.returncode}") from error

    def read_line(self) -> str:
        """Returns the next line of the process's stdout.

        Raises:
          ChildFailed: if the process has ended.
        """
        line = self._pipe(self.process.stdout).readline()
        if not line:
            self.process.wait()
            raise self._failure(f"ended early, with the code {self.process.returncode}")
        return line

    def close_input(self) -> None:
        """Closes the process's stdin, which tells it to end."""
        with contextlib.suppress(OSError):
            self._pipe(self.process.stdin).close()

    @staticmethod
    def _pipe(stream: IO[str] | None) -> IO[str]:
        if stream is None:
            raise ValueError("the process was started without pipes")
        return stream

    def end(self) -> None:
        """Kills the process, and all that it has started, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _failure(self, what: str) -> ChildFailed:
        tail = self._errors.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        last = tail.splitlines()[-1][:200] if tail else "it wrote nothing"
        error = ChildFailed(
            f"The process {what}: {last.rstrip('.')}.", f"Its command: {' '.join(self.command)}"
        )
        error.tail, error.killed = tail, self.process.returncode == -signal.SIGKILL
        return error


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: pathlib.Path,
    *,
    environment: Mapping[str, str] | None = None,
    pipes: bool = False,
) -> Iterator[Child]:
    """Starts a process, and kills it at the end of the block if it still runs; see `Child`."""
    child = Child(command, folder, environment=environment, pipes=pipes)
    try:
        yield child
    finally:
        child.end()
