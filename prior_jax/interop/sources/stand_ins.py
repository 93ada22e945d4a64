"""Arrays of a BERT that stand for tensors of a file without being equal to them.

The tensors themselves are kept beside the weights, so that the file can be given back.
"""

from collections.abc import Mapping

import numpy as np

from prior_jax.interop.sources.plans import Plan

_PLACES, _TYPES, _WORDS = "position_embedding", "token_type_embedding", "word_embedding"


def replaced_paths(plan: Plan) -> frozenset[str]:
    """Returns the paths of the arrays for which `stand_ins` has others."""
    places = {_PLACES} if plan.layout.one_position else set()
    return frozenset(places | ({_WORDS} if plan.ids is not None else set()))


def stand_ins(arrays: Mapping[str, np.ndarray], plan: Plan) -> dict[str, np.ndarray]:
    """Returns the arrays that take the place of the file's, or of none in the file.

    MGCA's BERT reads every token at the position 0 and has no token types (quirk M32): the first
    row of its position embedding stands at every position, and every token type is zero. Of a word
    embedding with more rows than its tokenizer has ids, the rows of the ids are taken.

    Args:
      arrays: path -> array as in the file.
      plan: plan of the import.
    """
    found: dict[str, np.ndarray] = {}
    if plan.layout.one_position:
        places = arrays[_PLACES]
        found[_PLACES] = np.repeat(places[:1], len(places), axis=0)
        found[_TYPES] = np.zeros((plan.model["token_types"], places.shape[1]), places.dtype)
    if plan.ids is not None:
        found[_WORDS] = arrays[_WORDS][: plan.ids]
    return found
