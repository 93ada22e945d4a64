"""Class prompts by the name of a task: what is asked of a text encoder zero-shot."""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import gloria_prompts
from prior_jax.evaluate.prompts import PromptTable, canonical, prompt_table

CLASSES = tuple(gloria_prompts.GRAMMAR)
"""The five of GLoRIA's CheXpert 5x200."""

_DRAWN = {
    "gloria": gloria_prompts.drawn,
    "gloria_release": gloria_prompts.drawn_as_released,
}

ClassPrompts = Mapping[str, Sequence[str]]


def generate_class_prompts(
    task: str = "gloria",
    n: int | None = None,
    *,
    seed: int = gloria_prompts.SEED,
    classes: Sequence[str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Sentences that affirm each class.

    Args:
      task: a set of `evaluate.prompts`: "gloria" draws from GLoRIA's grammar of severity, subtype
        and location, "gloria_release" exactly as its code does; "described", "ensemble", "single"
        and "release" are lists.
      n: sentences a class, drawn without repetition; None for 5 of GLoRIA's, and whole lists of
        the others.
      seed: of the draw. By default GLoRIA's, with which "gloria_release" gives the prompts that
        its README gets.
      classes: in the order wanted; None for `CLASSES`. Lists know many more.

    Returns:
      class -> sentences.

    Raises:
      ConfigError: for an unknown task or class, or more sentences than there are.

    >>> prompts = generate_class_prompts("gloria", 2, seed=0)
    >>> list(prompts)
    ['Atelectasis', 'Cardiomegaly', 'Consolidation', 'Edema', 'Pleural Effusion']
    >>> prompts["Edema"]
    ('Moderate pulmonary interstitial edema.', 'Decreased interstitial edema.')
    >>> generate_class_prompts("single", classes=["Pneumothorax"])
    {'Pneumothorax': ('There is a pneumothorax.',)}
    """
    wanted = CLASSES if classes is None else tuple(classes)
    if n is not None and n < 1:
        raise ConfigError("n", received=n, accepted="at least 1, or None")
    # The one reader of the sets checks the names, and finds classes whatever their spelling.
    table = prompt_table(task, classes=wanted, negatives=False)
    try:
        if task in _DRAWN:
            count = gloria_prompts.COUNT if n is None else n
            drawn = {canonical(k): v for k, v in _DRAWN[task](count=count, seed=seed).items()}
            return {name: drawn[canonical(name)] for name in wanted}
        found = {}
        for index, name in enumerate(wanted):
            texts = tuple(table.texts[row] for row in np.flatnonzero(table.owner == index))
            stream = random.Random(f"{seed}/{name}")
            found[name] = texts if n is None else tuple(stream.sample(texts, n))
        return found
    except ValueError as error:  # more than there are to draw from
        raise ConfigError(
            "n", received=n, accepted=f"no more sentences than {task!r} has of every class"
        ) from error


def as_table(class_prompts: ClassPrompts | PromptTable) -> PromptTable:
    """Prompts by class as a flat table.

    Args:
      class_prompts: class -> sentences, or a table, which can hold denials too.

    Raises:
      DataError: if there is no class, or one without a sentence.

    >>> as_table({"Edema": ["Edema."], "Mass": ["A mass.", "Masses."]}).owner.tolist()
    [0, 1, 1]
    """
    if isinstance(class_prompts, PromptTable):
        return class_prompts
    if not class_prompts:
        raise DataError("class_prompts", received={}, accepted="class -> sentences")
    texts, owner = [], []
    for index, (name, sentences) in enumerate(class_prompts.items()):
        if isinstance(sentences, str) or not len(sentences):
            raise DataError(
                f"class_prompts[{name!r}]", received=sentences, accepted="a list of sentences"
            )
        texts += sentences
        owner += [index] * len(sentences)
    return PromptTable(
        classes=tuple(class_prompts),
        texts=tuple(texts),
        owner=np.asarray(owner, np.int32),
        affirms=np.ones(len(texts), bool),
    )
