"""What the page says of a run's losses beside their curves."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prior_jax.evaluate import local_use


@dataclasses.dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses that each stage of an objective trains; both are empty where not known.

    Attributes:
      weights: weights of the loss terms, stage -> term -> weight.
      local_terms: names of the local terms that are trained, by stage.
    """

    weights: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    local_terms: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def untrained(self, term: str, stages: Sequence[str]) -> bool:
        """Returns whether a term has the weight 0 in every one of the stages that has it."""
        found = [self.weights[s][term] for s in stages if term in self.weights.get(s, {})]
        return bool(found) and not any(found)

    def local_use(self, records: Sequence[Mapping[str, Any]]) -> str | None:
        """Says how much the local losses look at the image, as the last validation measured it.

        A validation whose numbers were not finite is passed over.
        """
        measured = [
            record
            for record in records
            if all(is_number(record.get(name)) for name in local_use.NAMES)
        ]
        if not measured:
            return None
        terms = self.local_terms.get(measured[-1].get("stage", ""), ())
        return local_use.said(measured[-1], terms)


def is_number(value: Any) -> bool:
    """Tells whether a value of `metrics.jsonl`, in which NaN and infinity are null, is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def losses_of(objective: Any) -> Losses:
    """Returns the losses of an objective; of an image encoder alone, which has none, nothing."""
    stages = getattr(objective, "stages", ())
    return Losses(
        weights={stage: objective.weights(stage) for stage in stages},
        local_terms={stage: local_use.trained_terms(objective, stage) for stage in stages},
    )
