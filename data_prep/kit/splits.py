"""Names of splits, random splits by patient, and patients that are in two splits."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError

HELD_OUT = 0.3  # GLoRIA's release: share for validation and test together

_ALIASES = {
    "train": "train",
    "training": "train",
    "validate": "validate",
    "validation": "validate",
    "valid": "validate",
    "val": "validate",
    "dev": "validate",
    "test": "test",
    "testing": "test",
}


KNOWN_NAMES = ", ".join(_ALIASES)
"""Usual names of the splits, for messages."""


def split_code(name: str) -> int | None:
    """Returns the index in SPLITS of a split with any usual name ("val", "Valid"), or None."""
    known = _ALIASES.get(name.strip().lower())
    return None if known is None else SPLITS.index(known)


def checked_fractions(values: Sequence[str], *, flag: str) -> tuple[float, ...]:
    """Returns the shares of train, validate and test, which must sum to 1.

    Raises:
      ConfigError: if the shares are invalid; the message names the flag.
    """
    try:
        shares = tuple(float(value) for value in values)
    except ValueError:
        shares = ()
    whole = len(shares) == len(SPLITS) and min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6
    if not whole:  # a NaN is not
        raise ConfigError(
            f"The value is {','.join(values)!r}.",
            f"Give one share for each of {', '.join(SPLITS)}; together they must be 1.",
            where=flag,
        )
    return shares


def drawn_split(subject: str, *, fractions: Sequence[float], seed: int) -> int:
    """Returns the split of a patient by a hash of the id: the same in every run and any order.

    Args:
      subject: id of the patient; all studies of a patient get the same split.
      fractions: share of each split of SPLITS.
      seed: seed of the drawing.
    """
    digest = hashlib.sha256(f"{seed}/{subject}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for code, fraction in enumerate(fractions):
        place -= fraction
        if place < 0:
            return code
    return len(fractions) - 1


def shuffled_splits(groups: Sequence[str], *, held_out: float, seed: int) -> dict[str, np.ndarray]:
    """Splits like scikit-learn's `train_test_split`, then halves the held-out part.

    Args:
      groups: group of each row, [N], e.g. its image; the rows of a group stay together, and the
        shuffle is over groups.
      held_out: share of the groups that is held out from training.
      seed: seed of both shuffles.

    Returns:
      Split -> int64 rows: groups in the order drawn, the rows of each group in their own order.

    Source: GLoRIA's release, gloria/datasets/preprocess_datasets.py (random_state 0; the first
      half of the second cut is the test split).
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    rows = list(members.values())
    order = np.random.RandomState(seed).permutation(len(rows))
    held, train = np.split(order, [math.ceil(held_out * len(rows))])
    halves = np.random.RandomState(seed).permutation(len(held))
    validate, test = np.split(held[halves], [math.ceil(len(held) / 2)])
    return {
        name: np.array([row for group in chosen for row in rows[group]], np.int64)
        for name, chosen in zip(SPLITS, (train, validate, test), strict=True)
    }


def subjects_in_two_splits(subjects: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Returns, for each row, whether its patient is also in another split.

    Args:
      subjects: patient of each row, [N], of any dtype that sorts.
      codes: int[N], split of each row.

    Returns:
      bool[N].
    """
    if not len(subjects):
        return np.zeros(0, bool)
    _, owner = np.unique(subjects, return_inverse=True)
    low = np.full(owner.max() + 1, np.iinfo(np.int64).max)
    high = np.full(owner.max() + 1, -1, np.int64)
    np.minimum.at(low, owner, codes.astype(np.int64))
    np.maximum.at(high, owner, codes.astype(np.int64))
    return (low != high)[owner]


def order_name(split: str) -> str:
    """Returns the name of the file with the ids of a published split, in the paper's order."""
    return f"split_order.{split}.txt"
