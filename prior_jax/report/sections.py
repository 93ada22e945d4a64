"""The sections of examples that a model cannot have, and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from prior_jax.evaluate.places import without_places
from prior_jax.objectives.base import HasPrototypes, Reconstructs, ShowsAttention
from prior_jax.objectives.prior import PriorObjective

EXAMPLES = ("attention", "retrieval", "reconstruction", "bank")
"""Names of the sections of examples, in the order of the page."""
_KINDS: Mapping[str, type] = {
    "attention": ShowsAttention,
    "reconstruction": Reconstructs,
    "bank": HasPrototypes,
}
_PARTS = {
    "reconstruction": ("image_decoder", "the decoder of its images"),
    "bank": ("sentence_bank", "its bank of prototypes"),
}
"""Part of PRIOR that a section shows: its parameters, and its name in words."""


def lacking(objective: Any, *, stages: Sequence[str] | None) -> dict[str, str]:
    """Returns the sections of examples that a model cannot have.

    Args:
      objective: objective of the model.
      stages: names of the stages in which the model was trained; None where they are not known.

    Returns:
      Section -> sentence that says why it has no examples; "" for what the objective never has.
    """
    found = {name: "" for name, kind in _KINDS.items() if not isinstance(objective, kind)}
    nowhere = without_places(objective)
    if nowhere:
        found["attention"] = f"{nowhere[0].upper()}{nowhere[1:]}."
    if isinstance(objective, PriorObjective) and stages is not None:
        trained = f"was trained in {' and '.join(stages)} alone" if stages else "is not trained yet"
        found |= {
            name: f"No example is shown: the model {trained}, and {words} is still random."
            for name, (part, words) in _PARTS.items()
            if not any(objective.trainable(stage, (part,)) for stage in stages)
        }
    return found
