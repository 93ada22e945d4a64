"""Whether the maps of a model show places of the image."""

from typing import Any

from prior_jax.objectives.prior import PriorObjective

_NONE = (
    "the model is PRIOR with the patches of its release, which are no places of the image (quirk "
    "P1), so that its maps do not show where a finding is"
)


def without_places(objective: Any) -> str:
    """Returns a sentence, without its full stop, on maps of patches that are no places.

    Args:
      objective: objective of the model, whose attention with `sentence_region` is over regions,
        places in every fidelity.

    Returns:
      The sentence; "" for maps of places.
    """
    if not isinstance(objective, PriorObjective) or objective.config.choices.spatial_patches:
        return ""
    return _NONE if objective.config.sentence_region is None else ""
