"""Class prompts by task name: the zero-shot sentences for a text encoder."""

import random
from collections.abc import Mapping, Sequence, Set

import numpy as np

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import gloria_prompts
from prior_jax.evaluate.prompts import PromptTable, canonical, prompt_table

CLASSES = tuple(gloria_prompts.GRAMMAR)
"""The five classes of GLoRIA's CheXpert 5x200."""

_DRAWN = {
    "gloria": gloria_prompts.drawn,
    "gloria_release": gloria_prompts.drawn_as_released,
}

_ONE_STREAM = "gloria_release"

ClassPrompts = Mapping[str, Sequence[str]]


def generate_class_prompts(
    task: str = "gloria",
    n: int | None = None,
    *,
    seed: int = gloria_prompts.SEED,
    classes: Sequence[str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Returns sentences that affirm each class.

    Args:
      task: name of a set of `evaluate.prompts`: "gloria" draws from GLoRIA's grammar of severity,
        subtype and location, "gloria_release" draws exactly as its code does; "described",
        "ensemble", "single" and "release" are lists.
      n: number of sentences per class, drawn without repetition; None gives 5 for the sets of
        GLoRIA, and whole lists for the others.
      seed: seed of the draw. By default that of GLoRIA, with which "gloria_release" gives the
        prompts shown in its README.
      classes: names of the classes, in the order of the result; None for `CLASSES`. The lists
        contain many more classes.

    Returns:
      Sentences by class, class -> sentences.

    Raises:
      ConfigError: for an unknown task or class, or if more sentences are requested than exist.

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
        raise ConfigError.of_value("n", n, "at least 1, or None")
    # This function checks the names, and finds classes in any spelling.
    table = prompt_table(task, classes=wanted, negatives=False)
    try:
        if task in _DRAWN:
            return _of_gloria(task, wanted, n, seed=seed)
        return _of_lists(table, n, seed=seed)
    except ValueError as error:  # more sentences requested than there are to draw from
        every = ", and all its classes are drawn from one stream" if task == _ONE_STREAM else ""
        raise ConfigError(
            f"The value is {n}, but the set {task!r} has fewer for a class: {error}{every}.",
            "Ask for fewer sentences, or for None.",
            where="n",
        ) from error


def _of_gloria(
    task: str, classes: Sequence[str], n: int | None, *, seed: int
) -> dict[str, tuple[str, ...]]:
    """Returns n sentences of each class drawn from GLoRIA's grammar, or as many as it draws.

    Raises:
      ValueError: if the grammar has fewer than n for a class; the message names it.
    """
    count = gloria_prompts.COUNT if n is None else n
    wanted = {canonical(name) for name in classes}
    known = [name for name in CLASSES if canonical(name) in wanted]
    drawn = _DRAWN[task](count=count, seed=seed, classes=known)
    spelled = {canonical(name): texts for name, texts in drawn.items()}
    return {name: spelled[canonical(name)] for name in classes}


def _of_lists(table: PromptTable, n: int | None, *, seed: int) -> dict[str, tuple[str, ...]]:
    """Returns n sentences of each class's list in a table, or all of them.

    Raises:
      ValueError: if a list has fewer than n; the message names its class.
    """
    found: dict[str, tuple[str, ...]] = {}
    for index, name in enumerate(table.classes):
        texts = tuple(table.texts[row] for row in np.flatnonzero(table.owner == index))
        stream = random.Random(f"{seed}/{name}")
        found[name] = (
            texts if n is None else gloria_prompts.sample(stream, texts, count=n, name=name)
        )
    return found


def as_table(class_prompts: ClassPrompts | PromptTable) -> PromptTable:
    """Converts prompts by class to a flat table.

    Args:
      class_prompts: sentences by class, class -> sentences, or a table, which can also hold
        denials.

    Raises:
      DataError: if there is no class, a class without a sentence, or one whose sentences are not in
        an order.

    >>> as_table({"Edema": ["Edema."], "Mass": ["A mass.", "Masses."]}).owner.tolist()
    [0, 1, 1]
    """
    if isinstance(class_prompts, PromptTable):
        return class_prompts
    if not class_prompts:
        raise DataError(
            "No class is given.",
            "Give a mapping of at least one class to its sentences.",
            where="class_prompts",
        )
    texts: list[str] = []
    owner: list[int] = []
    for index, (name, sentences) in enumerate(class_prompts.items()):
        if isinstance(sentences, str | Mapping | Set) or not len(sentences):
            raise DataError.of_value(
                f"class_prompts[{name!r}]", sentences, "a list of at least one sentence"
            )
        texts += sentences
        owner += [index] * len(sentences)
    return PromptTable(
        classes=tuple(class_prompts),
        texts=tuple(texts),
        owner=np.asarray(owner, np.int32),
        affirms=np.ones(len(texts), bool),
    )
