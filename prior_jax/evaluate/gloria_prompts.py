"""GLoRIA's class prompts: a grammar of severity, subtype and location, and draws from it.

A form is a sequence of slots; it stands for all combinations of the slots' values. `RELEASED` is
the authors' table, reproduced exactly, because its details decide which prompts are drawn and how
they are tokenised: its misspellings and blanks, the effusion whose sides and sizes are one slot and
precede "bilateral", and the subtype that occurs twice. `GRAMMAR` is the corrected table: words are
spelled as in reports and are in the right slots, a subtype that includes a location takes no other
location, and nothing occurs twice.

Source: GLoRIA, ICCV 2021, sec. 4.1; release, gloria/constants.py (CHEXPERT_CLASS_PROMPTS) and
gloria/gloria.py (generate_chexpert_class_prompts).
"""

import itertools
import random
from collections.abc import Collection, Iterable, Mapping, Sequence

Form = tuple[tuple[str, ...], ...]

COUNT = 5  # release: n of generate_chexpert_class_prompts
SEED = 6  # release: set when the package is imported

_ANY = ("",)
_ATELECTASIS_PLACES = (
    "at the mid lung zone",
    "at the upper lung zone",
    "at the right lung zone",
    "at the left lung zone",
    "at the lung bases",
    "at the right lung base",
    "at the left lung base",
    "at the bilateral lung bases",
    "at the left lower lobe",
    "at the right lower lobe",
)
_CARDIOMEGALY = (
    "cardiac silhouette size is upper limits of normal",
    "cardiomegaly which is unchanged",
    "mildly prominent cardiac silhouette",
    "portable view of the chest demonstrates stable cardiomegaly",
    "portable view of the chest demonstrates mild cardiomegaly",
    "persistent severe cardiomegaly",
    "heart size is borderline enlarged",
    "cardiomegaly unchanged",
    "heart size is at the upper limits of normal",
    "redemonstration of cardiomegaly",
    "ap erect chest radiograph demonstrates the heart size is the upper limits of normal",
    "cardiac silhouette size is mildly enlarged",
    "mildly enlarged cardiac silhouette, likely left ventricular enlargement. other chambers are "
    "less prominent",
    "heart size remains at mildly enlarged",
    "persistent cardiomegaly with prominent upper lobe vessels",
)

RELEASED: Mapping[str, Form] = {
    "Atelectasis": (
        ("", "mild", "minimal"),
        (
            "subsegmental atelectasis",
            "linear atelectasis",
            "trace atelectasis",
            "bibasilar atelectasis",
            "retrocardiac atelectasis",
            "bandlike atelectasis",
            "residual atelectasis",
        ),
        _ATELECTASIS_PLACES,
    ),
    "Cardiomegaly": (_ANY, _CARDIOMEGALY, _ANY),
    "Consolidation": (
        ("", "increased", "improved", "apperance of"),
        (
            "bilateral consolidation",
            "reticular consolidation",
            "retrocardiac consolidation",
            "patchy consolidation",
            "airspace consolidation",
            "partial consolidation",
        ),
        (
            "at the lower lung zone",
            "at the upper lung zone",
            "at the left lower lobe",
            "at the right lower lobe",
            "at the left upper lobe",
            "at the right uppper lobe",
            "at the right lung base",
            "at the left lung base",
        ),
    ),
    "Edema": (
        ("", "mild", "improvement in", "presistent", "moderate", "decreased"),
        ("pulmonary edema", "trace interstitial edema", "pulmonary interstitial edema"),
        _ANY,
    ),
    "Pleural Effusion": (
        ("", "small", "stable", "large", "decreased", "increased"),
        ("left", "right", "tiny"),
        (
            "bilateral pleural effusion",
            "subpulmonic pleural effusion",
            "bilateral pleural effusion",
        ),
    ),
}

GRAMMAR: Mapping[str, tuple[Form, ...]] = {
    "Atelectasis": (
        (
            ("", "mild", "minimal", "trace"),
            ("subsegmental", "linear", "bandlike", "residual"),
            ("atelectasis",),
            _ATELECTASIS_PLACES,
        ),
        (("", "mild", "minimal", "trace"), ("bibasilar", "retrocardiac"), ("atelectasis",)),
    ),
    "Cardiomegaly": ((_CARDIOMEGALY,),),
    "Consolidation": (
        (
            ("", "increased", "improved", "appearance of"),
            ("reticular", "patchy", "airspace", "partial"),
            ("consolidation",),
            (
                "at the lower lung zone",
                "at the upper lung zone",
                "at the left lower lobe",
                "at the right lower lobe",
                "at the left upper lobe",
                "at the right upper lobe",
                "at the right lung base",
                "at the left lung base",
            ),
        ),
        (
            ("", "increased", "improved", "appearance of"),
            ("bilateral", "retrocardiac"),
            ("consolidation",),
        ),
    ),
    "Edema": (
        (
            ("", "trace", "mild", "improvement in", "persistent", "moderate", "decreased"),
            ("pulmonary edema", "interstitial edema", "pulmonary interstitial edema"),
        ),
    ),
    "Pleural Effusion": (
        (
            ("", "tiny", "small", "stable", "large", "decreased", "increased"),
            ("left", "right", "bilateral"),
            ("pleural effusion", "subpulmonic pleural effusion"),
        ),
    ),
}


def sentences(name: str) -> tuple[str, ...]:
    """Returns every sentence that `GRAMMAR` has for a class, capitalised, with a full stop."""
    filled = [" ".join(w for w in words if w) for form in GRAMMAR[name] for words in _fill(form)]
    return tuple(f"{text[0].upper()}{text[1:]}." for text in filled)


def drawn(
    *, count: int = COUNT, seed: int = SEED, classes: Collection[str] = tuple(GRAMMAR)
) -> dict[str, tuple[str, ...]]:
    """Draws distinct sentences for each class.

    Args:
      count: number of sentences per class.
      seed: seed of the draw; a class's sentences do not depend on the other classes.
      classes: classes of `GRAMMAR` that are wanted.

    Returns:
      Sentences by class: class -> `count` sentences.

    Raises:
      ValueError: if one of the classes has fewer sentences than `count`; the message names it.
    """
    return {
        name: sample(random.Random(f"{seed}/{name}"), sentences(name), count=count, name=name)
        for name in GRAMMAR
        if name in classes
    }


def sample(
    stream: random.Random, texts: Sequence[str], *, count: int, name: str
) -> tuple[str, ...]:
    """Draws distinct sentences of a class.

    Raises:
      ValueError: if there are fewer than `count`; the message names the class.
    """
    if count > len(texts):
        raise ValueError(f"{name} has {len(texts)}")
    return tuple(stream.sample(texts, count))


def drawn_as_released(
    *, count: int = COUNT, seed: int = SEED, classes: Collection[str] = tuple(RELEASED)
) -> dict[str, tuple[str, ...]]:
    """Draws as the release does: one stream of Python's random numbers for all classes.

    Args:
      count: number of prompts per class.
      seed: seed of the random stream; the release seeds the interpreter's global stream.
      classes: classes of `RELEASED` that are wanted; the others are drawn as well, for the stream.

    Returns:
      Prompts by class: class -> `count` prompts, including blanks at their ends; a prompt can occur
      twice.

    Raises:
      ValueError: if any class has fewer prompts than `count`; the message names it.
    """
    stream = random.Random(seed)
    found = {
        name: sample(stream, [" ".join(words) for words in _fill(form)], count=count, name=name)
        for name, form in RELEASED.items()
    }
    return {name: texts for name, texts in found.items() if name in classes}


def released() -> dict[str, tuple[str, ...]]:
    """Returns every prompt of the release's table by class, with its blanks and repetitions.

    CXR-CLIP (arXiv:2310.13292) averages over all of them: 210 for atelectasis, 15 for cardiomegaly,
    192 for consolidation, 18 for edema and 54 for pleural effusion.
    """
    return {
        name: tuple(" ".join(words) for words in _fill(form)) for name, form in RELEASED.items()
    }


def _fill(form: Form) -> Iterable[tuple[str, ...]]:
    """Yields every combination of slot values of a form, the last slot varying fastest."""
    return itertools.product(*form)
