"""The error for weights whose names or shapes are not those of the model."""

from collections.abc import Mapping, Sequence

from prior_jax.errors import WeightsError
from prior_jax.interop.printable import printable

Problems = Mapping[str, Sequence[str]]
"""Kind ("missing", "extra", "misshaped", "mistyped") -> names, with an explanation if needed."""


class MisfitError(WeightsError):
    """A state dict whose names, shapes or dtypes are not those of the model.

    Attributes:
      problems: every name that does not fit, by kind; empty once the error has been pickled.
    """

    def __init__(
        self, problem: str, remedy: str = "", *, where: str = "", problems: Problems | None = None
    ):
        """Builds the message; `of` words the problem."""
        super().__init__(problem, remedy, where=where)
        self.problems = {} if problems is None else problems

    @classmethod
    def of(cls, problems: Problems, remedy: str, *, where: str = "state_dict") -> "MisfitError":
        """Returns the error that lists every name that does not fit."""
        return cls(
            f"The names or shapes of the tensors are not those of the model ({listed(problems)}).",
            remedy,
            where=where,
            problems=problems,
        )


def restated(
    error: WeightsError, *, where: str | None = None, remedy: str | None = None
) -> WeightsError:
    """Returns the same error with another place or remedy; a `MisfitError` keeps its names."""
    remedy = error.remedy if remedy is None else remedy
    where = error.where if where is None else where
    if isinstance(error, MisfitError):
        return MisfitError(error.problem, remedy, where=where, problems=error.problems)
    return type(error)(error.problem, remedy, where=where)


def listed(problems: Problems) -> str:
    """Returns every name by kind: "missing: a, b; extra: c"."""
    return "; ".join(
        f"{kind}: {', '.join(printable(n, 500) for n in names)}"
        for kind, names in problems.items()
        if names
    )
