"""The range in which scales, temperatures and weights of losses can be used."""

from collections.abc import Mapping
from typing import Any

from prior_jax.errors import ConfigError, check_field

SMALLEST, LARGEST = 1e-6, 1e6
"""Far beyond every useful value. A gradient that several scales multiply stays in float32's range.

Below 1e-38 and above 3e38 float32 has 0 and infinity, and the loss would be NaN.
"""


def check_scales(config: Any, *fields: str) -> None:
    """Refuses scales and temperatures that are not finite and above 0; see `check_field`."""
    for field in fields:
        fits = SMALLEST <= getattr(config, field) <= LARGEST
        check_field(config, field, fits, f"a number from {SMALLEST:g} to {LARGEST:g}")


def check_weights(weights: Mapping[str, float], *, where: str = "weights") -> None:
    """Refuses weights of loss terms that are not finite numbers of at least 0.

    Args:
      weights: weights of the terms, term -> weight.
      where: name of the section that they are in.

    Raises:
      ConfigError: naming the weight.
    """
    for term, weight in weights.items():
        if not 0 <= weight <= LARGEST:
            raise ConfigError.of_value(f"{where}.{term}", weight, f"from 0 to {LARGEST:g}")
