"""From labels with four states to what a metric can count."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from prior_jax.errors import ConfigError
from prior_jax.evaluate import prompts

Policy = Literal["ignore", "negative", "positive"]

# The four states of `Batch.labels`.
POSITIVE, NEGATIVE, UNCERTAIN, UNMENTIONED = 1, 0, -1, -2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """What an uncertain and an unmentioned finding count as.

    Attributes:
      uncertain: "ignore" leaves the record out of that class, "negative" and "positive" count
        it so (U-Ignore, U-Zeros, U-Ones of CheXpert, arXiv:1901.07031, sec. 4).
      unmentioned: the same choices for a finding the report does not speak of; CheXpert's
        convention, and that of its 5x200 subset, is "negative".
    """

    uncertain: Policy
    unmentioned: Policy

    def __post_init__(self):
        """Refuses a policy that does not exist."""
        for field in ("uncertain", "unmentioned"):
            received = getattr(self, field)
            if received not in get_args(Policy):
                raise ConfigError(
                    f"policy.{field}",
                    received=received,
                    accepted=" | ".join(get_args(Policy)),
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """Labels that a metric can count.

    Attributes:
      positive: bool[N, C].
      known: bool[N, C], False where the policy leaves the record out of the class.
      single: bool[N], exactly one class is positive and none is left out for being uncertain.
    """

    positive: np.ndarray
    known: np.ndarray
    single: np.ndarray


def apply_policy(labels: np.ndarray, *, policy: LabelPolicy) -> Truth:
    """Makes the four states of a label two.

    Args:
      labels: int8[N, C], 1 positive, 0 negative, -1 uncertain, -2 not mentioned.
      policy: what the last two count as.

    Returns:
      The truth, [N, C]. An unmentioned finding never keeps a record from being `single`.

    Raises:
      ValueError: if a label is none of the four.
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
    """Takes the columns of the evaluated classes, in their order.

    Args:
      labels: int8[N, C], columns in the order of `label_names`.
      label_names: the data set's names, C of them (its manifest lists them).
      classes: the evaluated classes; case, blanks, underscores and known synonyms
        (`prompts.canonical`) do not matter.
      field: name of the config field that holds `classes`, for the error.

    Returns:
      int8[N, len(classes)].

    Raises:
      ConfigError: if a class is not a label of the data set, or two are the same label.
    """
    column = {prompts.canonical(name): index for index, name in enumerate(label_names)}
    missing = [name for name in classes if prompts.canonical(name) not in column]
    chosen = [prompts.canonical(name) for name in classes]
    if missing or len(set(chosen)) != len(chosen) or not chosen:
        raise ConfigError(
            field,
            received=missing or list(classes),
            accepted=f"different labels of the data set: {', '.join(label_names) or 'it has none'}",
        )
    return np.asarray(labels)[:, [column[name] for name in chosen]]
