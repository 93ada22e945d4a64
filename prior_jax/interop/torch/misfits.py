"""The error for weights whose names or shapes are not those of the model."""

from collections.abc import Mapping, Sequence

from prior_jax.errors import WeightsError

Problems = Mapping[str, Sequence[str]]
"""Kind ("missing", "extra", "misshaped", "mistyped") -> names, with an explanation if needed."""


class MisfitError(WeightsError):
    """A state dict whose names, shapes or dtypes are not those of the model.

    Attributes:
      problems: every name that does not fit, by kind; empty once the error has been pickled.
    """

    problems: Problems = {}

    @classmethod
    def of(cls, problems: Problems, remedy: str, *, where: str = "state_dict") -> "MisfitError":
        """Returns the error that lists every name that does not fit."""
        error = cls(
            f"The names or shapes of the tensors are not those of the model ({listed(problems)}).",
            remedy,
            where=where,
        )
        error.problems = problems
        return error


def restated(
    error: WeightsError, *, where: str | None = None, remedy: str | None = None
) -> WeightsError:
    """Returns the same error with another place or remedy; a `MisfitError` keeps its names."""
    found = type(error)(
        error.problem,
        error.remedy if remedy is None else remedy,
        where=error.where if where is None else where,
    )
    if isinstance(found, MisfitError) and isinstance(error, MisfitError):
        found.problems = error.problems
    return found


def listed(problems: Problems) -> str:
    """Returns every name by kind: "missing: a, b; extra: c"."""
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
