"""Tables for the user; pandas is an extra."""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prior_jax.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def frame(
    columns: Mapping[str, Any], *, index: Sequence[str | int] | None = None
) -> "pd.DataFrame":
    """A DataFrame of columns.

    Args:
      columns: name -> values, in order.
      index: names of the rows; None for their numbers.

    Raises:
      ConfigError: naming the extra that brings pandas, if it is missing.
    """
    if importlib.util.find_spec("pandas") is None:
        raise ConfigError(
            "pandas",
            received="not installed",
            accepted="an installation with its extra: pip install 'prior_jax[interface]'",
        )
    import pandas as pd

    return pd.DataFrame(dict(columns), index=None if index is None else pd.Index(index))
