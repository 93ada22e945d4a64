"""Whether a set's split to validate on has what the numbers of its validations are measured by."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.data.pipeline import Split
from prior_jax.errors import ConfigError
from prior_jax.evaluate import box_scores, class_scores, mask_scores
from prior_jax.objectives.base import Classifies, Objective

_AT_ONCE = 64  # records whose labels are read before it is asked whether they are enough
_BY_TRUTH = {
    class_scores.AUROC: "positive and negative record of one class",
    **dict.fromkeys(box_scores.NAMES, "box of the classes"),
    **dict.fromkeys(mask_scores.NAMES, "mask of the classes"),
}
"""What a number needs, in words: without it a validation leaves the number out."""


def check_truth(asked: Mapping[str, str], *, objective: Objective, split: Split) -> None:
    """Refuses to wait for a number that no validation of the set can compute.

    Args:
      asked: setting -> name of the number that it asks for.
      objective: objective of the run.
      split: split that is validated on.

    Raises:
      ConfigError: naming the setting, the number and the classes.
    """
    by_truth = {field: metric for field, metric in asked.items() if metric in _BY_TRUTH}
    if not by_truth or _has_truth(objective, split):
        return
    field, metric = next(iter(by_truth.items()))
    classes = getattr(objective, "classes", ())
    raise ConfigError(
        f"{metric!r} cannot be computed: the split 'validate' of the set has no "
        f"{_BY_TRUTH[metric]} ({', '.join(classes)}).",
        "Choose 'validation_total_loss', of which the lowest is the best, or prepare a set that "
        "has them in this split.",
        where=field,
    )


def _has_truth(objective: Objective, split: Split) -> bool:
    if isinstance(objective, Classifies):
        return _has_both_states(objective, split)
    return split.has_findings


def _has_both_states(objective: Classifies, split: Split) -> bool:
    """Returns whether a class has a positive and a negative; reads no more records than needed."""
    records = split.with_text
    seen = np.zeros((2, len(objective.classes)), bool)
    for start in range(0, len(records), _AT_ONCE):
        some = records[start : start + _AT_ONCE]
        labels = jnp.asarray([split.record(index).labels for index in some], jnp.int8)
        target, known = jax.device_get(objective.targets(labels))
        seen |= [((target > 0.5) & (known > 0)).any(0), ((target <= 0.5) & (known > 0)).any(0)]
        if seen.all(axis=0).any():
            return True
    return False
