"""Errors that a user can act on: each says what is wrong, where, and what to do about it."""

import contextlib
from collections.abc import Generator, Sequence
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

    def __init__(self, problem: str, remedy: str, *, where: str = ""):
        """Builds the message `where: problem remedy`."""
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps the error picklable, so that worker processes can raise it."""
        return _rebuild, (type(self), self.problem, self.remedy, self.where)


def _rebuild(kind: type[PriorJaxError], problem: str, remedy: str, where: str) -> PriorJaxError:
    return kind(problem, remedy, where=where)


class ConfigError(PriorJaxError):
    """A config value that is unknown, missing or outside what is accepted."""


@contextlib.contextmanager
def in_section(name: str) -> Generator[None, None, None]:
    """Puts the name of a section in front of the field that a ConfigError of the block names.

    Args:
      name: e.g. `config.model.image`; an error of its field `pool` then names
        `config.model.image.pool`.
    """
    try:
        yield
    except ConfigError as error:
        raise error.within(name) from error


def check_field(config: Any, field: str, holds: bool, must_be: str) -> None:
    """Refuses the value of one field of a dataclass that is made from a config section.

    Args:
      config: dataclass, which calls this in its `__post_init__`.
      field: name of the field.
      holds: whether the value can be used.
      must_be: completes "It must be ...", e.g. "a positive integer".

    Raises:
      ConfigError: naming the field alone; `strict.build` puts the name of the section in front.
    """
    if not holds:
        raise ConfigError.of_value(field, getattr(config, field), must_be)


def check_choice(config: Any, field: str, choices: Sequence[Any]) -> None:
    """Refuses a value that is none of the choices; see `check_field`."""
    value = getattr(config, field)
    if value not in choices:
        raise ConfigError.of_value(field, value, f"one of {', '.join(map(repr, choices))}")


def check_least(config: Any, **least: float) -> None:
    """Refuses values below their minimum; see `check_field`.

    Args:
      config: dataclass, which calls this in its `__post_init__`.
      **least: smallest value of each field, by the field's name.
    """
    for field, low in least.items():
        value = getattr(config, field)
        if not value >= low:  # so that a NaN is refused too
            raise ConfigError.of_value(field, value, f"at least {low}")


class DataError(PriorJaxError):
    """Input data, raw or prepared, that cannot be used as it is."""


class CheckpointError(PriorJaxError):
    """A checkpoint that is absent, damaged or of another model."""


class WeightsError(PriorJaxError):
    """Imported weights whose names or shapes do not fit the model."""


class ExportError(PriorJaxError):
    """A model that the format asked for cannot hold or express."""


class NonFiniteLossError(PriorJaxError):
    """A training step after which the loss, the gradient or the state is NaN or infinite."""


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
