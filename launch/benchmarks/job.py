"""A process beside others whose end is looked at now and then."""

import contextlib
import pathlib
import re
import time
from collections.abc import Mapping, Sequence

from launch.benchmarks.child import Child, started


class Job:
    """A process that is started later, and of which only the end and the last line matter.

    Attributes:
      name: name for people.
      seconds: seconds from its start until `ended` was first true; 0 before.
    """

    def __init__(self, name: str, command: Sequence[str]):
        """Keeps the arguments.

        Args:
          name: name for people.
          command: program and arguments.
        """
        self.name, self._command = name, tuple(command)
        self._child: Child | None = None
        self._began = 0.0
        self.seconds = 0.0

    def start(
        self,
        opened: contextlib.ExitStack,
        folder: pathlib.Path,
        *,
        environment: Mapping[str, str],
    ) -> None:
        """Starts the process, which is killed when the stack is closed.

        Args:
          opened: stack that the process belongs to.
          folder: folder for the process's output.
          environment: variables to set where this process has none of the name.
        """
        self._output = folder / re.sub(r"\W+", "_", self.name)
        self._began = time.monotonic()
        self._child = opened.enter_context(
            started(self._command, self._output, environment=environment)
        )

    @property
    def ended(self) -> bool:
        """Returns whether the process has been started and has ended, and notes its seconds."""
        ended = self._child is not None and self._child.process.poll() is not None
        if ended and not self.seconds:
            self.seconds = time.monotonic() - self._began
        return ended

    @property
    def failed(self) -> bool:
        """Returns whether the process has ended with an error."""
        return self._child is not None and bool(self._child.process.poll())

    def outcome(self) -> str:
        """Returns how the process ended, with the last line that it wrote."""
        if self._child is None:
            return "was not started in time"
        if not self.ended:
            return f"stopped after {time.monotonic() - self._began:.0f} s"
        text = (self._output / "stdout.txt").read_text(errors="replace").strip()
        if self.failed:
            text = (self._output / "stderr.txt").read_text(errors="replace").strip() or text
        last = text.splitlines()[-1][:200] if text else ""
        return f"exit code {self._child.process.returncode}; {last}"
