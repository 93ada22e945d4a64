"""Comparing gradients through ReLU and L1 in float32.

Behind several batch-normalised convolutions a pre-activation near 0 carries a rounding error of
1e-5, so among some hundred thousand units one or two have a sign that depends on the order of
summation. One flipped unit moves the gradients of all layers before it by up to 1 % of their
largest entry; in float64 everything agrees to 1e-5. Two float32 programs can therefore agree
only up to such flips: the recorded gradient must be met, at full tolerance, at some point that
float32 cannot tell from the recorded one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

# A few units in the last place of float32.
JITTER = 3e-7


def check_up_to_rounding(
    run: Callable[..., Any],
    check: Callable[[Any], None],
    inputs: Sequence[jax.Array],
    *,
    draws: int = 32,
) -> None:
    """Passes if `check(run(*inputs))` does for the inputs or some inputs within rounding.

    The first try moves nothing; of the failures the first is raised.
    """
    random = np.random.default_rng(0)
    first_failure = None
    for draw in range(1 + draws):
        moved = inputs
        if draw:
            moved = [
                x * (1 + JITTER * random.standard_normal(x.shape)).astype(np.float32)
                for x in inputs
            ]
        try:
            check(run(*moved))
            return
        except AssertionError as failure:
            first_failure = first_failure or failure
    assert first_failure is not None
    raise first_failure
