"""Sets of sentences that stand for a class: the zero-shot prompts for the text encoder.

A prompt is a report of one sentence. The following sets exist:

* `release`: the single prompt per class of PRIOR's release, "<Class> is observed"; no negatives.
* `single`: one sentence that affirms the finding, one that denies it.
* `ensemble`: several affirmations and denials in the wording of reports; their scores are pooled.
* `described`: affirmations with severity and location, as in reports and after GLoRIA's grammar of
  severity, subtype and location (ICCV 2021, sec. 4.1); denials as in `ensemble`.
* `gloria`: five sentences per class from GLoRIA's own grammar, corrected; no negatives.
* `gloria_release`: the five sentences that GLoRIA's release draws, see `gloria_prompts.py`; no
  negatives.
* `gloria_release_all`: all sentences of the table that GLoRIA's release draws from, over which
  CXR-CLIP averages; no negatives.
* `named`: the name of the class, and "No" before it, as CXR-CLIP compares them.

The path of a file takes the place of a set's name; `prompt_file.py` describes its form.

With negatives, the score of a class is affirmation minus denial, which cancels the part of the
similarity that is common to all sentences about the same anatomy.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import gloria_prompts, prompt_file
from prior_jax.evaluate.prompt_tables import FINDINGS, NO_FINDING, SYNONYMS, ClassPrompts


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTable:
    """Prompts of the evaluated classes, as flat sequences, ready for the tokenizer.

    Attributes:
      classes: names of the C classes.
      texts: texts of the P sentences.
      owner: class that each sentence mentions, int32[P], 0..C-1.
      affirms: whether each sentence affirms the finding (True) or denies it (False), bool[P].
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    owner: np.ndarray
    affirms: np.ndarray


def canonical(name: str) -> str:
    """Returns the spelling under which class names are compared.

    Args:
      name: class name, e.g. "Pleural_Effusion", "Effusion", "pleural effusion".

    Returns:
      The name in lower case with single blanks, and with synonyms of other data sets replaced.
    """
    plain = " ".join(name.replace("_", " ").replace("-", " ").lower().split())
    return SYNONYMS.get(plain, plain)


def prompt_table(set_name: str, *, classes: Sequence[str], negatives: bool) -> PromptTable:
    """Returns the sentences of a named set for the evaluated classes.

    Args:
      set_name: name of one of the module's sets, or path of a file of prompts that ends in ".json"
        or ".txt".
      classes: names of the classes, at least one; in any spelling that `canonical` accepts.
      negatives: whether the denying sentences are included.

    Returns:
      The table; classes are in the given order, and a class's affirmations come before its denials.

    Raises:
      ConfigError: if the set is unknown, a class has no prompts in it, or negatives are requested
        from a set that has none.
      DataError: if the file of prompts is damaged.
    """
    prompts_of = prompts_in(set_name)
    texts, owner, affirms = [], [], []
    for index, name in enumerate(classes):
        found = prompts_of(name)
        if negatives and not found.negative:
            raise ConfigError(
                f"The prompt set {set_name!r} has no sentences that deny {name!r}.",
                "Set task.prompts.negatives to False, or choose another task.prompts.set.",
                where="task.prompts.negatives",
            )
        denials = found.negative if negatives else ()
        texts += [*found.positive, *denials]
        owner += [index] * (len(found.positive) + len(denials))
        affirms += [True] * len(found.positive) + [False] * len(denials)
    if not texts:
        raise ConfigError("No class is given.", "Name at least one class.", where="task.classes")
    return PromptTable(
        classes=tuple(classes),
        texts=tuple(texts),
        owner=np.asarray(owner, np.int32),
        affirms=np.asarray(affirms, bool),
    )


def prompts_in(set_name: str, *, field: str = "task.prompts.set") -> Callable[[str], ClassPrompts]:
    """Returns the function from a class to its prompts; a file is read at once.

    Args:
      set_name: name of one of the module's sets, or path of a file of prompts.
      field: name of the setting, for the error message.

    Raises:
      ConfigError: if the set is unknown, or there is no such file.
      DataError: if the file of prompts is damaged.
    """
    if prompt_file.is_path(set_name):
        return _of_file(set_name)
    if set_name not in _SETS:
        choices = f"one of {', '.join(sorted(_SETS))}, or the path of a .json or .txt file"
        raise ConfigError.of_value(field, set_name, choices)
    return _SETS[set_name]


def known_classes(set_name: str = "ensemble") -> tuple[str, ...]:
    """Returns the names of all classes that there are prompts for.

    Args:
      set_name: path of a file of prompts, for the classes that the file names, or name of one of
        GLoRIA's sets, which have five; any other name gives the classes of `single` and `ensemble`.

    Raises:
      ConfigError: if there is no such file.
      DataError: if the file of prompts is damaged.
    """
    if prompt_file.is_path(set_name):
        return tuple(prompt_file.read_prompts(set_name))
    if set_name in _OF_GLORIA:
        return tuple(_OF_GLORIA[set_name])
    return (*(finding.name for finding in FINDINGS), "No Finding")


def finding_words(name: str) -> tuple[str, ...]:
    """Returns the words that by themselves name a finding in a report, in lower case.

    An example is ("effusion",).

    Args:
      name: name of the class; in any spelling that `canonical` accepts.

    Raises:
      ConfigError: if the class has no prompts, or no single word names it ("No Finding").
    """
    for finding in FINDINGS:
        if canonical(finding.name) == canonical(name):
            return finding.words or (finding.bare.split()[-1],)
    named = ", ".join(finding.name for finding in FINDINGS)
    raise ConfigError(
        f"No single word names the class {name!r}.",
        f"Choose among {named}.",
        where="task.classes",
    )


def _release(name: str) -> ClassPrompts:
    """Returns the release's prompts of a class.

    Source: release, codes/prior/data/zero_shot_classification/chexpert_zls.py.
    """
    spelled = {canonical(known): known for known in known_classes()}
    return ClassPrompts(
        positive=(f"{spelled.get(canonical(name), name)} is observed",), negative=()
    )


def _named(name: str) -> ClassPrompts:
    """Returns the prompts "X" and "No X".

    Source: CXR-CLIP, arXiv:2310.13292, sec. 3.
    """
    plain = name.replace("_", " ")
    return ClassPrompts(positive=(plain,), negative=(f"No {plain}",))


def _single(name: str) -> ClassPrompts:
    every = _ensemble(name)
    return ClassPrompts(positive=every.positive[:1], negative=every.negative[:1])


def _ensemble(name: str) -> ClassPrompts:
    key = canonical(name)
    if key == canonical("No Finding"):
        return NO_FINDING
    for finding in FINDINGS:
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
    raise _without_prompts(name, known_classes())


def _described(name: str) -> ClassPrompts:
    known = _ensemble(name)
    if known is NO_FINDING:
        # Any affirmed finding denies the class "No Finding".
        found = (_described(finding.name).positive for finding in FINDINGS if finding.described)
        return ClassPrompts(
            positive=known.positive, negative=tuple(text for texts in found for text in texts)
        )
    for finding in FINDINGS:
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


def _gloria(drawn: Mapping[str, tuple[str, ...]]) -> Callable[[str], ClassPrompts]:
    spelled = {canonical(known): texts for known, texts in drawn.items()}

    def prompts_of(name: str) -> ClassPrompts:
        if canonical(name) not in spelled:
            raise _without_prompts(name, tuple(drawn))
        return ClassPrompts(positive=spelled[canonical(name)], negative=())

    return prompts_of


def _without_prompts(name: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"The prompt set has no sentences for the class {name!r}.",
        f"Choose among {', '.join(known)}, or choose another prompt set.",
        where="task.classes",
    )


def _of_file(path: str) -> Callable[[str], ClassPrompts]:
    read = prompt_file.read_prompts(path)
    spelled: dict[str, str] = {}
    for name in read:
        other = spelled.setdefault(canonical(name), name)
        if other != name:
            raise DataError(
                f"{other!r} and {name!r} are the same class.", "Join their lists.", where=path
            )

    def prompts_of(name: str) -> ClassPrompts:
        if canonical(name) not in spelled:
            raise ConfigError(
                f"The file of prompts {path} has no class {name!r}; it has {', '.join(read)}.",
                "Add the class to the file, or leave it out of --task.classes.",
                where="task.classes",
            )
        return read[spelled[canonical(name)]]

    return prompts_of


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_OF_GLORIA = {
    "gloria": gloria_prompts.drawn(),
    "gloria_release": gloria_prompts.drawn_as_released(),
    "gloria_release_all": gloria_prompts.released(),
}
_SETS: dict[str, Callable[[str], ClassPrompts]] = {
    "release": _release,
    "single": _single,
    "ensemble": _ensemble,
    "described": _described,
    **{name: _gloria(drawn) for name, drawn in _OF_GLORIA.items()},
    "named": _named,
}
