"""Converts labels with four states to the two states that metrics count."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from prior_jax.errors import ConfigError, check_choice
from prior_jax.evaluate import prompts

Policy = Literal["ignore", "negative", "positive"]

# The four states of `Batch.labels`.
POSITIVE, NEGATIVE, UNCERTAIN, UNMENTIONED = 1, 0, -1, -2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """The treatment of uncertain and unmentioned findings.

    Attributes:
      uncertain: treatment of uncertain findings: "ignore" leaves the record out of that class,
        "negative" and "positive" count it as such (U-Ignore, U-Zeros, U-Ones of CheXpert,
        arXiv:1901.07031, sec. 4).
      unmentioned: treatment of findings that the report does not mention, with the same choices;
        the convention of CheXpert and of its 5x200 subset is "negative".
    """

    uncertain: Policy
    unmentioned: Policy

    def __post_init__(self):
        """Refuses an unknown policy."""
        for field in ("uncertain", "unmentioned"):
            check_choice(self, field, get_args(Policy))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """Labels in the form that metrics count.

    Attributes:
      positive: whether each record is positive for each class, bool[N, C].
      known: whether each record counts for each class, bool[N, C]; False where the policy leaves it
        out.
      single: whether exactly one class is positive and none is left out for being uncertain,
        bool[N].
    """

    positive: np.ndarray
    known: np.ndarray
    single: np.ndarray


def apply_policy(labels: np.ndarray, *, policy: LabelPolicy) -> Truth:
    """Converts the four states of a label to two.

    Args:
      labels: label states, int8[N, C], 1 positive, 0 negative, -1 uncertain, -2 not mentioned.
      policy: treatment of the last two states.

    Returns:
      The truth, [N, C]. An unmentioned finding does not prevent a record from being `single`.

    Raises:
      ValueError: if a label is not one of the four states.
    """
    labels = np.asarray(labels)
    strange = ~np.isin(labels, (POSITIVE, NEGATIVE, UNCERTAIN, UNMENTIONED))
    if strange.any():
        raise ValueError(f"labels must be 1, 0, -1 or -2, got {np.unique(labels[strange])}")
    positive, known = labels == POSITIVE, np.ones(labels.shape, bool)
    for state, choice in ((UNCERTAIN, policy.uncertain), (UNMENTIONED, policy.unmentioned)):
        positive |= (labels == state) & (choice == "positive")
        known &= (labels != state) | (choice != "ignore")
    open_question = (labels == UNCERTAIN) & (policy.uncertain == "ignore")
    single = (positive.sum(axis=1) == 1) & ~open_question.any(axis=1)
    return Truth(positive=positive, known=known, single=single)


def select_columns(
    labels: np.ndarray, *, label_names: Sequence[str], classes: Sequence[str], field: str
) -> np.ndarray:
    """Selects the columns of the evaluated classes, in their order.

    Args:
      labels: label states, int8[N, C], with columns in the order of `label_names`.
      label_names: names of the data set's C labels (its manifest lists them).
      classes: names of the evaluated classes; case, blanks, underscores and known synonyms
        (`prompts.canonical`) do not matter.
      field: name of the config field that holds `classes`, for the error message.

    Returns:
      Label states of the classes, int8[N, len(classes)].

    Raises:
      ConfigError: if a class is not a label of the data set, two are the same label, or two labels
        of the data set are the same class.
    """
    for name in classes:
        same = [
            label for label in label_names if prompts.canonical(label) == prompts.canonical(name)
        ]
        if len(same) > 1:
            raise ConfigError(
                f"The labels {' and '.join(same)} of the data set are the same class.",
                "Prepare the set with one of them, or leave the class out, as with --task.exclude.",
                where=field,
            )
    column = {prompts.canonical(name): index for index, name in enumerate(label_names)}
    missing = [name for name in classes if prompts.canonical(name) not in column]
    chosen = [prompts.canonical(name) for name in classes]
    if missing or len(set(chosen)) != len(chosen) or not chosen:
        problem = "No class is given."
        if missing:
            problem = f"The data set has no labels for the classes {missing}."
        elif chosen:
            problem = f"Two of the classes {list(classes)} are the same label."
        remedy = f"Choose different labels of the data set: {', '.join(label_names)}."
        if not label_names:
            remedy = "Choose a data set with labels; this one has none."
        raise ConfigError(problem, remedy, where=field)
    return np.asarray(labels)[:, [column[name] for name in chosen]]


def truth_of(
    labels: np.ndarray,
    *,
    label_names: Sequence[str],
    classes: Sequence[str],
    policy: LabelPolicy,
    field: str = "task.classes",
) -> Truth:
    """Returns the truth of the evaluated classes; see `select_columns` and `apply_policy`."""
    columns = select_columns(labels, label_names=label_names, classes=classes, field=field)
    return apply_policy(columns, policy=policy)
