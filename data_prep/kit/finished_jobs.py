"""Finds the jobs of a killed run that need not be done again, and names the shards of a set."""

import json
import pathlib
from collections.abc import Mapping, Sequence

from data_prep.kit.outcomes import Job, Part
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema


def shard_path(parts: pathlib.Path, job: str) -> pathlib.Path:
    """Returns the path of a job's shard until the set is finished.

    Args:
      parts: folder of unfinished work.
      job: name of the job.
    """
    return parts / f"{job}.array_record"


def placed_shards(jobs: Sequence[Job], results: Mapping[str, Part]) -> dict[str, str]:
    """Returns job name -> name of its shard in the finished set, for the jobs that have a record.

    Args:
      jobs: all jobs of the set.
      results: job name -> results of the job, for every job.
    """
    found = {}
    for split in schema.SPLITS:
        kept = [job.name for job in jobs if job.split == split and results[job.name].studies]
        for index, name in enumerate(kept):
            found[name] = schema.shard_name(split, shard=index, shards=len(kept))
    return found


def finished(jobs: Sequence[Job], *, parts: pathlib.Path, out: pathlib.Path) -> dict[str, Part]:
    """Returns job name -> results, for the jobs that are done and whose shards are there and whole.

    A run that was killed while it finished has done all jobs and removed the manifest of the set
    that it replaces, and may have moved shards to their places in the finished set.

    Args:
      jobs: all jobs of the set.
      parts: folder of unfinished work.
      out: directory of the set.
    """
    found = {}
    for job in jobs:
        path = parts / f"{job.name}.json"
        if path.is_file():
            found[job.name] = Part(**json.loads(path.read_text(encoding="utf-8")))
    finishing = len(found) == len(jobs) and not (out / manifest_lib.MANIFEST_NAME).exists()
    placed = placed_shards(jobs, found) if finishing else {}
    shards = {name: [shard_path(parts, name)] for name in found}
    for name, shard in placed.items():
        shards[name].append(out / shard)
    return {name: part for name, part in found.items() if _is_whole(part, shards[name])}


def _is_whole(part: Part, places: Sequence[pathlib.Path]) -> bool:
    """Tells whether the first file among the places has the size of the job's shard."""
    sizes = [path.stat().st_size for path in places if path.is_file()]
    return not part.size or sizes[:1] == [part.size]
