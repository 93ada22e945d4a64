"""Published splits by name: rules where a paper computes its split, lists where it ships one.

Sources: GLoRIA's release, gloria/datasets/preprocess_datasets.py; MGCA's,
mgca/preprocess/*.py and mgca/datasets/*.py; LoVT's datasets/*/*.csv; BenchX's
preprocess/datasets/*/*.txt; MRM's and MaCo's DatasetsSplits/.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from data_prep.kit import id_lists
from data_prep.kit.splits import HELD_OUT
from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError, DataError

SEEDED = "seeded"
OFFICIAL = "official"
NAMES = (OFFICIAL, "gloria", "lovt", "mgca", "mgca_detection", "benchx", "mrm", SEEDED)

_MGCA_HELD_OUT = 2 * 5337  # mgca/datasets/detection_dataset.py: test_size of the RSNA boxes
_MOST_NAMED = 3

Members = dict[str, list[int]]
"""Split -> positions of its members in the table, in the order of the paper's list."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published split of one data set.

    Attributes:
      sizes: number of images, or of rows where the paper splits rows, in train, validation and
        test; None where no number is published.
      rule: function from the number of images, in the order that `Split.ids` asks for, to the
        members; None if the split is published as lists.
      overlapping: whether the lists are published with images that stand in several of them.
    """

    sizes: tuple[int, int, int] | None = None
    rule: Callable[[int], Members] | None = None
    overlapping: bool = False


def kept_and_held(count: int, *, held: float | int) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows as scikit-learn's `train_test_split(test_size=held, random_state=0)` does.

    Args:
      count: number of rows.
      held: share of the rows that is held out, rounded up, as a float, or their number as an int.

    Returns:
      int64 rows that are kept and int64 rows that are held out, in the order drawn.

    Raises:
      DataError: if fewer rows than `held` are there.
    """
    number = math.ceil(held * count) if isinstance(held, float) else held
    if not 0 < number < count:
        raise DataError(
            f"{number} images are to be held out of {count}.",
            "Give the whole table, or draw a split with --split=seeded.",
            where="--split",
        )
    order = np.random.RandomState(0).permutation(count)
    return order[number:], order[:number]


def thirds(count: int, *, held: float | int = HELD_OUT) -> Members:
    """Holds rows out of training, and halves them; the *first* half is the test split.

    Source: GLoRIA's release, gloria/datasets/preprocess_datasets.py; MGCA's detection data holds
    out a number instead of a share.
    """
    train, rest = kept_and_held(count, held=held)
    test, validate = kept_and_held(len(rest), held=0.5)
    found = {"train": train, "validate": rest[validate], "test": rest[test]}
    return {split: rows.tolist() for split, rows in found.items()}


def train_and_validate(count: int, *, held: float | int) -> Members:
    """Holds rows out of training to validate on; the test split is a table of its own.

    Source: MGCA's release, mgca/preprocess/object_cxr.py (test_size 0.1).
    """
    train, validate = kept_and_held(count, held=held)
    return {"train": train.tolist(), "validate": validate.tolist()}


def _covidx(count: int) -> Members:
    # mgca/preprocess/covidx.py: train_size 0.8, which is rounded down.
    return train_and_validate(count, held=count - math.floor(0.8 * count))


# "Official" splits need no rule: the data set's own tables or folders say them.
_OFFICIAL = Published()
PUBLISHED: Mapping[str, Mapping[str, Published]] = {
    "rsna": {
        "gloria": Published(sizes=(18_678, 4_003, 4_003), rule=thirds),
        "mgca": Published(sizes=(18_678, 4_003, 4_003), rule=thirds),
        "mgca_detection": Published(
            sizes=(16_010, 5_337, 5_337),
            rule=functools.partial(thirds, held=_MGCA_HELD_OUT),
        ),
        "lovt": Published(sizes=(16_010, 5_337, 5_337)),
        "benchx": Published(sizes=(18_678, 4_003, 4_003)),
        "mrm": Published(sizes=(25_184, 1_500, 3_000)),
    },
    "siim": {
        "gloria": Published(rule=thirds),
        "mgca": Published(rule=thirds),
        "lovt": Published(sizes=(7_229, 2_409, 2_409)),
        "benchx": Published(sizes=(9_303, 1_372, 1_372)),
        # Of the 10,675 images 478 are in train and val, 494 in train and test, 124 in val and test.
        "mrm": Published(sizes=(7_969, 1_898, 1_904), overlapping=True),
    },
    # chexpert.py has the rules of GLoRIA and MGCA, which look at labels.
    "chexpert": {OFFICIAL: _OFFICIAL, "gloria": Published(), "mgca": Published()},
    "nih": {
        OFFICIAL: _OFFICIAL,
        "benchx": Published(sizes=(78_468, 11_219, 22_433)),
        "mrm": Published(sizes=(78_468, 11_219, 22_433)),
        "lovt": Published(sizes=(588, 196, 196)),
    },
    "covidx": {
        OFFICIAL: _OFFICIAL,
        "mgca": Published(rule=_covidx),
        "benchx": Published(sizes=(67_862, 8_472, 8_481)),
    },
    "covid_rural": {"lovt": Published(sizes=(133, 44, 44))},
    "object_cxr": {
        OFFICIAL: Published(sizes=(8_000, 1_000, 1_000)),
        "lovt": Published(sizes=(6_400, 1_600, 1_000)),
        "mgca": Published(rule=functools.partial(train_and_validate, held=0.1)),
        "benchx": Published(sizes=(8_000, 1_000, 1_000)),
    },
    "ms_cxr": {OFFICIAL: _OFFICIAL},
    "vindr": {OFFICIAL: _OFFICIAL, "benchx": Published(sizes=(12_000, 3_000, 3_000))},
    "tbx11k": {
        OFFICIAL: Published(sizes=(6_600, 1_800, 0)),
        "benchx": Published(sizes=(5_879, 1_260, 1_260)),
    },
}
"""Data set -> name of a split -> how it is made."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """The splits of the images of a table.

    Attributes:
      members: split -> positions of its images, in the order of the published split.
      unknown: ids that a list names and the table does not have, with the split of the list.
      notes: sentences for the user: sizes beside the published ones, and patients in two splits.
    """

    members: Mapping[str, Sequence[int]]
    unknown: Sequence[tuple[str, str]] = ()
    notes: tuple[str, ...] = ()

    def of_position(self) -> dict[int, tuple[str, ...]]:
        """Returns position -> splits that it stands in, usually one."""
        found: dict[int, tuple[str, ...]] = {}
        for split, rows in self.members.items():
            for row in rows:
                if split not in found.get(row, ()):
                    found[row] = (*found.get(row, ()), split)
        return found


def checked_name(name: str, *, data_set: str) -> Published | None:
    """Returns the published split of a data set, None for "seeded".

    Raises:
      ConfigError: if the data set has no split of this name; the message lists those that it has.
    """
    if name == SEEDED:
        return None
    known = PUBLISHED[data_set]
    if name not in known:
        must_be = f"one of {', '.join((SEEDED, *known))} for this data set"
        raise ConfigError.of_value("--split", name, must_be)
    return known[name]


def by_lists(
    ids: Sequence[str],
    lists: Mapping[str, Sequence[str]],
    *,
    key: Callable[[str], str] = id_lists.plain_id,
    overlapping: bool = False,
) -> tuple[Members, list[tuple[str, str]]]:
    """Assigns images to the lists that name them.

    Args:
      ids: ids of the images of the table.
      lists: split -> ids of the list.
      key: form of an id in which table and lists are compared.
      overlapping: whether an id may stand in several lists; its image is then in all their splits.

    Returns:
      Members in the order of the lists, and (id, split) of what the table does not have. A second
      row of one id in a list, in whatever form, is passed over.

    Raises:
      DataError: if no id of the lists is in the table, or if one stands in two lists that may not
        overlap.
    """
    places = {key(name): place for place, name in enumerate(ids)}
    members: Members = {}
    unknown: list[tuple[str, str]] = []
    owner: dict[str, str] = {}
    for split, names in lists.items():
        members[split] = []
        first: dict[str, str] = {}
        for name in names:
            first.setdefault(key(name), name)
        for plain, name in first.items():
            if owner.setdefault(plain, split) != split and not overlapping:
                raise DataError(
                    f"{name!r} is in the list of {owner[plain]} and in that of {split}.",
                    "Give lists of one split, each image in one of them.",
                    where="--split_lists",
                )
            if plain in places:
                members[split].append(places[plain])
            else:
                unknown.append((name, split))
    if not any(members.values()):
        example = unknown[0][0] if unknown else ""
        raise DataError(
            f"No id of the lists, such as {example!r}, is in the table, which has ids such as "
            f"{ids[0] if ids else ''!r}.",
            "Give the lists of this data set, with the ids that its table has.",
            where="--split_lists",
        )
    return members, unknown


def size_notes(
    name: str,
    members: Mapping[str, Sequence[int]],
    *,
    count: int,
    sizes: Sequence[int] | None,
    rejected: Collection[int] = (),
) -> list[str]:
    """Returns sentences on the sizes of a split beside the published ones.

    Different sizes are told and do not stop the program, since a part of a data set is a sound set:
    what it is not is comparable with the paper.

    Args:
      name: name of the split.
      members: split -> positions.
      count: number of images, or rows, of the table.
      sizes: published sizes of train, validate and test, None if no size is published.
      rejected: positions that are rejected for what the table says, and are not counted.
    """
    found = [sum(row not in rejected for row in members.get(split, ())) for split in SPLITS]
    said = f"Split {name!r}: {_numbers(found)} images for {', '.join(SPLITS)}"
    if sizes is None:
        return [f"{said}; no sizes are published to compare with."]
    if found == list(sizes):
        return [f"{said}, as published."]
    whole, lost = sum(sizes), sum(map(len, members.values())) - sum(found)
    reasons = [f"{lost:,} images of it are rejected"] if lost else []
    if count != whole and (not lost or sum(found) + lost != whole):
        reasons.append(f"the table has {count:,} images, the published split {whole:,}")
    if not reasons:
        reasons.append("the table is as long as the published one, but its members differ")
    notes = [f"Warning: {said}; published are {_numbers(sizes)} ({', and '.join(reasons)})."]
    pairs = zip(SPLITS, sizes, strict=True)
    empty = [split for split, size in pairs if size and not members.get(split)]
    if empty:
        notes.append(
            f"Warning: Nothing is in {' and '.join(empty)}, since no image of the table is in a "
            "list of it. Give a table that has these images, or, where the paper's list alone has "
            "their labels, make a set of them with data_prep.manifest (see docs/data.md)."
        )
    return notes


def leak_notes(
    name: str, members: Mapping[str, Sequence[int]], patients: Sequence[str]
) -> list[str]:
    """Returns a sentence on the patients that stand in two splits of a published split, if any.

    Args:
      name: name of the split.
      members: split -> positions.
      patients: patient of each position.
    """
    where: dict[str, set[str]] = collections.defaultdict(set)
    for split, rows in members.items():
        for row in rows:
            where[patients[row]].add(split)
    leaking = sorted(patient for patient, splits in where.items() if len(splits) > 1)
    if not leaking:
        return []
    named = ", ".join(leaking[:_MOST_NAMED]) + (", ..." if len(leaking) > _MOST_NAMED else "")
    return [
        f"Warning: {len(leaking):,} patients stand in two splits of {name!r}, as it is published: "
        f"{named}."
    ]


def _numbers(sizes: Sequence[int]) -> str:
    return " / ".join(f"{size:,}" for size in sizes)
