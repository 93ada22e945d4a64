"""Builds DataFrames for the user; pandas is an optional dependency."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prior_jax.errors import ConfigError

if TYPE_CHECKING:
    # pandas has no stubs; its types are read from its source.
    from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]


def frame(columns: Mapping[str, Any], *, index: Sequence[str | int] | None = None) -> "DataFrame":
    """Builds a DataFrame from columns.

    Args:
      columns: values of each column, name -> values, in order.
      index: names of the rows; None numbers them.

    Raises:
      ConfigError: if pandas is missing; names the extra that installs it.
    """
    if importlib.util.find_spec("pandas") is None:
        raise ConfigError(
            "The result is a table, which needs the package pandas, and it is not installed.",
            "Run pip install 'prior_jax[interface]'.",
        )
    pd = importlib.import_module("pandas")
    return pd.DataFrame(dict(columns), index=None if index is None else pd.Index(index))
