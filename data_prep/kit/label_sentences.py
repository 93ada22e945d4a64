"""Makes sentences from labels, for images that have labels but no report.

The sentences allow training on a set without reports. The record marks them (`text_source`
"labels"), so that nobody takes them for a radiologist's words.
"""

import hashlib
import random
from collections.abc import Sequence

from prior_jax.data.schema import LABEL_NEGATIVE, LABEL_POSITIVE, LABEL_UNCERTAIN

NO_FINDING = "no finding"

_POSITIVE = (
    "There is {a}{name}.",
    "{Name} is present.",
    "{Name} is seen.",
    "Findings are consistent with {a}{name}.",
    "The radiograph shows {a}{name}.",
)
_UNCERTAIN = (
    "Possibly {a}{name}.",
    "{Name} cannot be excluded.",
    "Findings may represent {a}{name}.",
)
_NEGATIVE = (
    "No {name}.",
    "No evidence of {name}.",
    "There is no {name}.",
    "{Name} is not seen.",
)
_NORMAL = (
    "No acute cardiopulmonary abnormality.",
    "No acute disease.",
    "The radiograph is normal.",
    "Normal chest radiograph.",
)
_VIEWS = {
    "PA": ("Frontal PA radiograph of the chest.", "PA view of the chest."),
    "AP": ("Frontal AP radiograph of the chest.", "AP view of the chest."),
}
# Countable findings take an article.
_COUNTABLE = frozenset(("nodule", "mass", "hernia", "lung lesion", "fracture", "effusion"))
# Limit on negatives: real reports deny a few findings, not all that are absent.
_MOST_NEGATIVES = 3


def label_sentences(
    key: str, *, names: Sequence[str], values: Sequence[int], view: str
) -> tuple[str, ...]:
    """Returns sentences that state the labels.

    Args:
      key: id of the study; the same key gives the same sentences, another key other phrasings.
      names: names of the labels.
      values: value of each label in `names`, schema.LABEL_*.
      view: view of the image; "PA" or "AP" adds a sentence on the view, other values add none.

    Returns:
      Sentences on positives, uncertain findings, up to three negatives, then the view; () if no
      label is positive, uncertain or negative.
    """
    draw = random.Random(hashlib.sha256(key.encode()).digest())
    by_value: dict[int, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        by_value.setdefault(value, []).append(name)
    positives = by_value.get(LABEL_POSITIVE, [])
    negatives = [n for n in by_value.get(LABEL_NEGATIVE, []) if n.lower() != NO_FINDING]
    draw.shuffle(negatives)
    sentences = [
        draw.choice(_NORMAL) if name.lower() == NO_FINDING else _phrase(_POSITIVE, name, draw)
        for name in positives
    ]
    sentences += [_phrase(_UNCERTAIN, n, draw) for n in by_value.get(LABEL_UNCERTAIN, [])]
    sentences += [_phrase(_NEGATIVE, name, draw) for name in negatives[:_MOST_NEGATIVES]]
    if sentences and view in _VIEWS:
        sentences.append(draw.choice(_VIEWS[view]))
    return tuple(sentences)


def _phrase(templates: Sequence[str], name: str, draw: random.Random) -> str:
    words = name.replace("_", " ")
    # "Edema" becomes "edema" within a sentence; "COVID-19" and "E.Coli" are kept.
    plain = words if sum(letter.isupper() for letter in words.split()[0]) > 1 else words.lower()
    article = "a " if plain in _COUNTABLE else ""
    if article and plain[0] in "aeiou":
        article = "an "
    capital = plain[0].upper() + plain[1:]
    return draw.choice(templates).format(name=plain, Name=capital, a=article)
