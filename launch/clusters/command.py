"""Commands of other programs: shown as a shell would take them, or run."""

import dataclasses
import shlex
import subprocess

from prior_jax.errors import ConfigError

_END = "END_OF_INPUT"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A program with its arguments.

    Attributes:
      arguments: the program first; no shell reads them.
      stdin: what it is given to read.
    """

    arguments: tuple[str, ...]
    stdin: str = ""

    def __str__(self) -> str:
        """The command as a line for a shell, what it reads as a here-document."""
        line = shlex.join(self.arguments)
        return f"{line} <<'{_END}'\n{self.stdin.rstrip()}\n{_END}" if self.stdin else line

    def run(self) -> int:
        """Runs it to its end and returns its exit code; what it prints is seen.

        Raises:
          ConfigError: if there is no such program.
        """
        return self._start(capture=False).returncode

    def read(self) -> str | None:
        """Runs it and returns what it prints to stdout, or None if it fails.

        Raises:
          ConfigError: if there is no such program.
        """
        done = self._start(capture=True)
        return done.stdout if done.returncode == 0 else None

    def _start(self, *, capture: bool) -> subprocess.CompletedProcess:
        try:
            return subprocess.run(
                self.arguments,
                input=self.stdin,
                stdout=subprocess.PIPE if capture else None,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise ConfigError(
                "--cluster",
                received=f"no program {self.arguments[0]!r} here",
                accepted="a machine that has it; --dry_run shows what would run",
            ) from error
