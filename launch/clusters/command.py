"""Commands that start other programs; they can be printed as shell lines or run."""

import dataclasses
import shlex
import subprocess

from prior_jax.errors import ConfigError

_END = "END_OF_INPUT"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A program and its arguments.

    Attributes:
      arguments: program, then its arguments; no shell interprets them.
      stdin: text that the program reads from stdin.
    """

    arguments: tuple[str, ...]
    stdin: str = ""

    def __str__(self) -> str:
        """Returns the command as a shell line, with `stdin` as a here-document."""
        line = shlex.join(self.arguments)
        return f"{line} <<'{_END}'\n{self.stdin.rstrip()}\n{_END}" if self.stdin else line

    def run(self) -> int:
        """Runs the program to its end, shows its output and returns its exit code.

        Raises:
          ConfigError: if there is no such program.
        """
        return self._start(capture=False).returncode

    def read(self) -> str | None:
        """Runs the program and returns what it prints to stdout, or None if it fails.

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
                f"This machine has no program {self.arguments[0]!r}.",
                "Run the command on a machine that has it, or see with --dry_run what would run.",
                where="--cluster",
            ) from error
