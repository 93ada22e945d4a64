"""Sentences that stand for a class, as data: what is asked of the text encoder zero-shot.

A prompt is a report of one sentence. Four sets exist:

* `release`: the one prompt a class of the authors' code, "<Class> is observed"; no negatives.
* `single`: one sentence that affirms the finding, one that denies it.
* `ensemble`: several phrasings of each, as reports word them; their scores are pooled.
* `described`: affirmations that say how much and where, as reports do, after GLoRIA's grammar of
  severity, subtype and location (ICCV 2021, sec. 4.1); denials as in `ensemble`.

With negatives a class is scored by affirmation minus denial, which cancels what makes an image
similar to any sentence about that anatomy.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from prior_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassPrompts:
    """The sentences of one class.

    Attributes:
      positive: affirm the finding; at least one.
      negative: deny it; may be empty.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTable:
    """Prompts of the evaluated classes, flat, ready for the tokenizer.

    Attributes:
      classes: C names.
      texts: P sentences.
      owner: int32[P], the class each sentence speaks of, 0..C-1.
      affirms: bool[P], True where it affirms the finding, False where it denies it.
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    owner: np.ndarray
    affirms: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Finding:
    """How reports word one finding: `a` with its article, `bare` as in "no ...", and more."""

    name: str
    a: str
    bare: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    described: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


_SIDES = ("left", "right")
_ZONES = tuple(
    f"{side} {zone}" for side in _SIDES for zone in ("upper lung", "mid lung", "lower lung")
)
_EXTENT = ("small", "moderate", "large")
_SEVERITY = ("mild", "moderate", "severe")

# `described` holds templates with the slots {size} and {place}, filled with every pair.


# The CheXpert labels (arXiv:1901.07031, table 1), then those that only ChestX-ray14
# (arXiv:1705.02315, sec. 3) has. The wording is our own.
_FINDINGS = (
    _Finding(
        name="Atelectasis",
        a="atelectasis",
        bare="atelectasis",
        positive=("Bibasilar atelectasis.", "Linear opacity at the lung base, atelectasis."),
        described=("{size} {place} atelectasis.", "There is {size} {place} atelectasis."),
        sizes=("mild", "moderate"),
        places=(
            "left basilar",
            "right basilar",
            "bibasilar",
            "left lower lobe",
            "right lower lobe",
        ),
    ),
    _Finding(
        name="Cardiomegaly",
        a="cardiomegaly",
        bare="cardiomegaly",
        positive=("The heart is enlarged.", "The cardiac silhouette is enlarged."),
        negative=("The heart size is normal.", "The cardiac silhouette is normal in size."),
        described=("{size} cardiomegaly.", "There is {size} cardiomegaly."),
        sizes=_SEVERITY,
        places=("",),
    ),
    _Finding(
        name="Consolidation",
        a="consolidation",
        bare="consolidation",
        positive=("Focal consolidation in the lung.", "There is an airspace consolidation."),
        negative=("No focal consolidation.", "The lungs are clear of consolidation."),
        described=(
            "{size} consolidation in the {place}.",
            "There is a {size} consolidation in the {place}.",
        ),
        sizes=("small", "large"),
        places=_ZONES,
    ),
    _Finding(
        name="Edema",
        a="pulmonary edema",
        bare="pulmonary edema",
        positive=("Interstitial pulmonary edema.", "Pulmonary vascular congestion and edema."),
        negative=("The pulmonary vasculature is normal.",),
        described=("{size} pulmonary edema.", "There is {size} pulmonary edema."),
        sizes=_SEVERITY,
        places=("",),
    ),
    _Finding(
        name="Pleural Effusion",
        a="a pleural effusion",
        bare="pleural effusion",
        positive=("Blunting of the costophrenic angle, pleural effusion.",),
        negative=("The costophrenic angles are sharp.",),
        described=(
            "{size} {place} pleural effusion.",
            "There is a {size} {place} pleural effusion.",
        ),
        sizes=_EXTENT,
        places=_SIDES,
    ),
    _Finding(
        name="Pneumothorax",
        a="a pneumothorax",
        bare="pneumothorax",
        positive=("A pleural line is visible, pneumothorax.",),
        described=("{size} {place} pneumothorax.", "There is a {size} {place} pneumothorax."),
        sizes=_EXTENT,
        places=_SIDES,
    ),
    _Finding(
        name="Lung Lesion",
        a="a lung lesion",
        bare="lung lesion",
        positive=("There is a pulmonary nodule or mass.", "A nodular opacity in the lung."),
        negative=("No pulmonary nodule or mass.",),
        described=("{size} nodule in the {place}.", "There is a {size} nodule in the {place}."),
        sizes=("12 mm", "large"),
        places=_ZONES,
    ),
    _Finding(
        name="Nodule",
        a="a pulmonary nodule",
        bare="pulmonary nodule",
        positive=("There is a nodule in the lung.", "A small round nodular opacity."),
        negative=("No suspicious pulmonary nodule.",),
        described=("{size} nodule in the {place}.", "There is a {size} nodule in the {place}."),
        sizes=("12 mm", "large"),
        places=_ZONES,
    ),
    _Finding(name="Mass", a="a lung mass", bare="lung mass", positive=("A large round opacity.",)),
    _Finding(
        name="Lung Opacity",
        a="a lung opacity",
        bare="lung opacity",
        positive=("An opacity projects over the lung.",),
        negative=("The lungs are clear.",),
        described=("{size} opacity in the {place}.",),
        sizes=("patchy", "linear"),
        places=_ZONES,
    ),
    _Finding(
        name="Pneumonia",
        a="pneumonia",
        bare="pneumonia",
        positive=("Opacity concerning for pneumonia.",),
    ),
    _Finding(
        name="Enlarged Cardiomediastinum",
        a="widening of the mediastinum",
        bare="mediastinal widening",
        positive=("The cardiomediastinal silhouette is enlarged.",),
        negative=("The cardiomediastinal silhouette is normal.",),
    ),
    _Finding(name="Pleural Other", a="a pleural abnormality", bare="pleural abnormality"),
    _Finding(
        name="Fracture",
        a="a fracture",
        bare="fracture",
        positive=("A rib fracture is seen.",),
        negative=("The bones are intact.",),
    ),
    _Finding(
        name="Support Devices",
        a="a support device",
        bare="support device",
        positive=("A tube or catheter is in place.",),
        negative=("No lines or tubes.",),
        described=("{place}.",),
        sizes=("",),
        places=(
            "An endotracheal tube is in place",
            "A central venous catheter is in place",
            "A pacemaker is in place",
            "Sternotomy wires are in place",
        ),
    ),
    _Finding(name="Infiltration", a="an infiltrate", bare="infiltrate"),
    _Finding(
        name="Emphysema",
        a="emphysema",
        bare="emphysema",
        positive=("The lungs are hyperinflated.",),
        negative=("The lungs are normally expanded.",),
    ),
    _Finding(
        name="Fibrosis",
        a="pulmonary fibrosis",
        bare="pulmonary fibrosis",
        positive=("Coarse reticular opacities.",),
    ),
    _Finding(name="Pleural Thickening", a="pleural thickening", bare="pleural thickening"),
    _Finding(name="Hernia", a="a hiatal hernia", bare="hiatal hernia"),
)

# No template fits the absence of every finding.
_NO_FINDING = ClassPrompts(
    positive=(
        "No acute cardiopulmonary abnormality.",
        "Normal chest radiograph.",
        "No acute cardiopulmonary process.",
        "The lungs are clear and the heart size is normal.",
    ),
    negative=(
        "There is an acute cardiopulmonary abnormality.",
        "Abnormal chest radiograph.",
        "There is an abnormal opacity.",
        "Abnormal findings are present.",
    ),
)

# Names that other data sets give to the same class.
_SYNONYMS = {
    "effusion": "pleural effusion",
    "pulmonary edema": "edema",
    "lung nodule": "nodule",
    "pulmonary nodule": "nodule",
    "lung mass": "mass",
    "normal": "no finding",
    "no findings": "no finding",
    "airspace opacity": "lung opacity",
    "infiltrate": "infiltration",
}


def canonical(name: str) -> str:
    """The one spelling under which a class is compared.

    Args:
      name: e.g. "Pleural_Effusion", "Effusion", "pleural effusion".

    Returns:
      Lower case with single blanks, synonyms of other data sets resolved.
    """
    plain = " ".join(name.replace("_", " ").replace("-", " ").lower().split())
    return _SYNONYMS.get(plain, plain)


def slug(name: str) -> str:
    """The class's part of a metric's name, e.g. `pleural_effusion`."""
    return "_".join(name.replace("_", " ").replace("-", " ").lower().split())


def prompt_table(set_name: str, *, classes: Sequence[str], negatives: bool) -> PromptTable:
    """The sentences of a named set for the evaluated classes.

    Args:
      set_name: "release", "single", "ensemble" or "described".
      classes: at least one; spelled in any way `canonical` takes.
      negatives: whether to give the denying sentences too.

    Returns:
      The table; classes in the given order, a class's affirmations before its denials.

    Raises:
      ConfigError: if the set is unknown, a class has no prompts in it, or negatives are asked
        of a set that has none.
    """
    if set_name not in _SETS:
        raise ConfigError("config.prompts", received=set_name, accepted=" | ".join(sorted(_SETS)))
    texts, owner, affirms = [], [], []
    for index, name in enumerate(classes):
        found = _SETS[set_name](name)
        if negatives and not found.negative:
            raise ConfigError(
                "config.negatives",
                received=True,
                accepted=f"False with the prompt set {set_name!r}, which denies nothing",
            )
        denials = found.negative if negatives else ()
        texts += [*found.positive, *denials]
        owner += [index] * (len(found.positive) + len(denials))
        affirms += [True] * len(found.positive) + [False] * len(denials)
    if not texts:
        raise ConfigError("config.classes", received=list(classes), accepted="at least one class")
    return PromptTable(
        classes=tuple(classes),
        texts=tuple(texts),
        owner=np.asarray(owner, np.int32),
        affirms=np.asarray(affirms, bool),
    )


def known_classes() -> tuple[str, ...]:
    """Names of every class that the sets `single` and `ensemble` have prompts for."""
    return (*(finding.name for finding in _FINDINGS), "No Finding")


def _release(name: str) -> ClassPrompts:
    """Source: release, codes/prior/data/zero_shot_classification/chexpert_zls.py."""
    spelled = {canonical(known): known for known in known_classes()}
    return ClassPrompts(
        positive=(f"{spelled.get(canonical(name), name)} is observed",), negative=()
    )


def _single(name: str) -> ClassPrompts:
    every = _ensemble(name)
    return ClassPrompts(positive=every.positive[:1], negative=every.negative[:1])


def _ensemble(name: str) -> ClassPrompts:
    key = canonical(name)
    if key == canonical("No Finding"):
        return _NO_FINDING
    for finding in _FINDINGS:
        if canonical(finding.name) == key:
            return ClassPrompts(
                positive=(
                    f"There is {finding.a}.",
                    f"{_capital(finding.bare)} is present.",
                    f"Findings are consistent with {finding.bare}.",
                    *finding.positive,
                ),
                negative=(
                    f"No {finding.bare}.",
                    f"There is no {finding.bare}.",
                    f"No evidence of {finding.bare}.",
                    *finding.negative,
                ),
            )
    raise ConfigError(
        "config.classes", received=name, accepted=f"one of {', '.join(known_classes())}"
    )


def _described(name: str) -> ClassPrompts:
    known = _ensemble(name)
    if known is _NO_FINDING:
        # Whatever is found denies that nothing is.
        found = (_described(finding.name).positive for finding in _FINDINGS if finding.described)
        return ClassPrompts(
            positive=known.positive, negative=tuple(text for texts in found for text in texts)
        )
    for finding in _FINDINGS:
        if canonical(finding.name) == canonical(name) and finding.described:
            filled = [
                " ".join(template.format(size=size, place=place).split())
                for template in finding.described
                for size in finding.sizes
                for place in finding.places
            ]
            return ClassPrompts(
                positive=tuple(_capital(text) for text in filled), negative=known.negative
            )
    return known


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_SETS: dict[str, Callable[[str], ClassPrompts]] = {
    "release": _release,
    "single": _single,
    "ensemble": _ensemble,
    "described": _described,
}
