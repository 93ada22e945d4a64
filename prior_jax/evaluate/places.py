"""Whether the maps of a model show places of the image."""

from typing import Any

from prior_jax.objectives.prior import PriorObjective

_NONE = (
    "the model is PRIOR with the patches of its release, which are no places of the image (quirk "
    "P1), so that its maps do not show where a finding is"
)


def without_places(objective: Any, *, cosines: bool = False) -> str:
    """Returns a sentence, without its full stop, on maps of patches that are no places.

    Args:
      objective: objective of the model.
      cosines: whether the maps are cosines of patches. Otherwise they are the attention of the
        objective, which with `sentence_region` is over regions, places in every fidelity.

    Returns:
      The sentence; "" for maps of places.
    """
    if not isinstance(objective, PriorObjective) or objective.config.choices.spatial_patches:
        return ""
    of_regions = objective.config.sentence_region is not None and not cosines
    return "" if of_regions else _NONE
