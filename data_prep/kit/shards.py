"""Divides the studies of a set into shards."""

from collections.abc import Sequence
from typing import Any

from data_prep.kit.outcomes import Job
from prior_jax.data import schema
from prior_jax.errors import DataError


def shard_jobs(
    codes: Sequence[int], subjects: Sequence[Any], *, studies_per_shard: int
) -> list[Job]:
    """Divides studies, sorted by split and patient, into one job for each shard.

    Args:
      codes: index in schema.SPLITS of each study, [N], sorted.
      subjects: patient of each study, [N], sorted within a split.
      studies_per_shard: largest number of studies in a shard, unless a single patient has more: a
        patient's studies are never divided, so that patients can be counted by shard.

    Raises:
      DataError: if a code is invalid, which is a fault of the preparer.
    """
    wrong = [int(code) for code in codes if not 0 <= code < len(schema.SPLITS)]
    if wrong:
        raise DataError(
            f"The split of an image is {wrong[0]}.",
            f"Correct the preparer: give a number from 0 to {len(schema.SPLITS) - 1}, which stand "
            f"for {', '.join(schema.SPLITS)}.",
        )
    jobs = []
    begin = 0
    for position in range(1, len(codes) + 1):
        ends = position == len(codes) or codes[position] != codes[begin]
        if not ends:
            if subjects[position] == subjects[position - 1]:
                continue
            behind = position + 1
            while behind < len(codes) and subjects[behind] == subjects[position]:
                behind += 1
            ends = behind - begin > studies_per_shard
        if ends:
            split = schema.SPLITS[int(codes[begin])]
            jobs.append(Job(name=f"{split}-{begin:07d}", split=split, begin=begin, end=position))
            begin = position
    return jobs
