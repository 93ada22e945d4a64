"""Errors that a user can act on: each says what is wrong, where, and what to do about it."""

from typing import Any, Self


class PriorJaxError(Exception):
    """Base of every error this package raises on purpose.

    Programs in `launch` and `data_prep` print it as one line and exit with code 2.

    Attributes:
      where: what is wrong, e.g. `config.data.path`, `--out` or a file's path; "" if the problem
        says it itself.
      problem: one sentence or more: what was found, and why it cannot be used.
      remedy: one sentence or more: what to do about it.
    """

    def __init__(
        self,
        problem: str,
        remedy: str = "",
        *,
        where: str = "",
        received: Any = ...,
        accepted: str = "",
    ):
        """Builds the message `where: problem remedy`."""
        if received is not ...:  # The old form, while the messages are being rewritten.
            self.field, self.received, self.accepted = problem, received, accepted
            where, problem, remedy = problem, f"received {received!r};", f"accepted: {accepted}"
        self.problem = problem
        self.remedy = remedy
        self.where = where
        super().__init__(f"{where}: {problem} {remedy}" if where else f"{problem} {remedy}")

    @classmethod
    def of_value(cls, where: str, value: Any, must_be: str) -> Self:
        """Returns the error for one value that is not what it must be.

        Args:
          where: name of the value, e.g. `config.data.batch_size` or `--port`.
          value: the value as given.
          must_be: completes "It must be ...", e.g. "a positive integer".
        """
        return cls(f"The value is {value!r}.", f"It must be {must_be}.", where=where)

    def within(self, section: str) -> Self:
        """Returns the same error with the name of the section in front of `where`.

        Args:
          section: e.g. `config.model.image`, for an error of its field `pool`.
        """
        where = f"{section}.{self.where}" if self.where else section
        return type(self)(self.problem, self.remedy, where=where)

    def __reduce__(self):
        """Keeps the error picklable, so that worker processes can raise it."""
        return _rebuild, (type(self), self.problem, self.remedy, self.where)


def _rebuild(kind, problem, remedy, where):
    return kind(problem, remedy, where=where)


class ConfigError(PriorJaxError):
    """A config value that is unknown, missing or outside what is accepted."""


class DataError(PriorJaxError):
    """Input data, raw or prepared, that cannot be used as it is."""


class CheckpointError(PriorJaxError):
    """A checkpoint that is absent, damaged or of another model."""


class WeightsError(PriorJaxError):
    """Imported weights whose names or shapes do not fit the model."""


class ExportError(PriorJaxError):
    """A model that the format asked for cannot hold or express."""


class NonFiniteLossError(PriorJaxError):
    """A training step whose loss is NaN or infinite."""


class InputProblem(Exception):
    """An image, report or row that cannot be used; preparation counts it and goes on.

    Attributes:
      reason: word under which it is counted, one of those that `docs/data.md` lists.
      detail: description of what is wrong with it.
    """

    def __init__(self, reason: str, detail: str):
        """Keeps the reason and the detail."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def first_line(error: BaseException) -> str:
    """The error's kind and the beginning of its message, for a message of one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"
