"""Errors a user can act on: each names the field, the value received and what is accepted."""

from typing import Any


class PriorJaxError(Exception):
    """Base of every error this package raises on purpose.

    Programs in `launch` and `data_prep` print it as one line and exit with code 2.
    """

    def __init__(self, field: str, *, received: Any, accepted: str):
        """Builds the one-line message `field: received ...; accepted: ...`.

        Args:
          field: dotted name of what is wrong, e.g. `config.data.path` or a file's path.
          received: the value as given.
          accepted: in words, what would have been accepted.
        """
        self.field = field
        self.received = received
        self.accepted = accepted
        super().__init__(f"{field}: received {received!r}; accepted: {accepted}")

    def __reduce__(self):
        """Keeps the error picklable, so that worker processes can raise it."""
        rebuild = _rebuild, (type(self), self.field, self.received, self.accepted)
        return rebuild


def _rebuild(kind, field, received, accepted):
    return kind(field, received=received, accepted=accepted)


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
