"""Points that do not depend on the image, with which a pointing game is compared.

They are the usual centres of the lungs, the point midway between them, and a random pixel.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.evaluate.bootstrap import Interval

_SIDES = ("right", "left")
_COLUMNS = ("lung_centre", "middle", "random")


def points_of(lungs: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Returns the centres of the lungs, and as "middle" the point midway between them.

    Args:
      lungs: usual centres of the lungs, see `grounding.Located`.
    """
    (top, left), (below, right) = (lungs[side] for side in _SIDES)
    return {**lungs, "middle": ((top + below) / 2, (left + right) / 2)}


def at(mask: np.ndarray, point: Sequence[float]) -> float:
    """Returns 1.0 where a point, given in shares of height and width, lies in a mask, else 0.0."""
    row, column = (min(int(p * n), n - 1) for p, n in zip(point, mask.shape, strict=True))
    return float(mask[row, column] > 0)


def better_side(hits: Mapping[str, np.ndarray]) -> str:
    """Returns the side of the lung whose centre lies in more of the masks, in hindsight.

    Args:
      hits: whether each point lies in each of the masks, "left" and "right" -> float[N].
    """
    return max(_SIDES, key=lambda side: hits[side].mean())


def chance_of(metrics: Mapping[str, Interval]) -> dict[str, float]:
    """Returns the values of the random pixel, by the names of the metrics they are chance for."""
    return {
        name.replace("random", "pointing"): metric.value
        for name, metric in metrics.items()
        if "random" in name and not np.isnan(metric.value)
    }


def of_set_alone(name: str) -> bool:
    """Returns whether a metric is of a fixed point, so that it is the same for every model."""
    return name.removeprefix("macro_").startswith(_COLUMNS)


def repeats_chance(name: str, chance: Mapping[str, Any]) -> bool:
    """Returns whether a metric is the random pixel's, which is the chance level of another metric.

    Args:
      name: name of the metric.
      chance: chance levels by the names of metrics, None for none.
    """
    if not of_set_alone(name):
        return False
    return "random" in name and chance.get(name.replace("random", "pointing")) is not None
