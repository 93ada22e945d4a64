"""Finds patients and images that are in two splits, for `data_prep.verify`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from data_prep.kit import values
from prior_jax.data import schema


class Report(Protocol):
    """What is read of the report of a shard.

    Attributes:
      subjects: ids of the patients.
      images: digest of each stored image -> description of its place.
    """

    @property
    def subjects(self) -> frozenset[str]:
        """Returns the ids of the patients."""
        ...

    @property
    def images(self) -> Mapping[bytes, str]:
        """Returns digest of each stored image -> description of its place."""
        ...


R = TypeVar("R", bound=Report)


def by_split(reports: Mapping[str, R]) -> dict[str, list[R]]:
    """Returns split -> reports of its shards, from shard -> its report."""
    return {
        split: [
            report
            for name, report in reports.items()
            if name.startswith(f"{schema.DATASET_NAME}-{split}.")
        ]
        for split in schema.SPLITS
    }


def leaks(of_split: Mapping[str, Sequence[R]]) -> Iterator[str]:
    """Yields the patients and the images that are in more than one split."""
    patients: dict[str, dict[str, str]] = {}
    images: dict[bytes, dict[str, str]] = {}
    for split, found in of_split.items():
        for report in found:
            for subject in report.subjects:
                patients.setdefault(values.comparable_id(subject), {})[split] = subject
            for digest, place in report.images.items():
                images.setdefault(digest, {})[split] = place
    for places in sorted((found for found in patients.values() if len(found) > 1), key=str):
        written = " or ".join(sorted(set(places.values())))
        yield f"Patient {written} is in {' and '.join(places)}."
    for places in sorted((found for found in images.values() if len(found) > 1), key=str):
        where = " and ".join(f"{place} ({split})" for split, place in places.items())
        yield f"One image is in two splits: {where}. Leave one of them out."
