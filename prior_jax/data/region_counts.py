"""The findings of each record of a split, counted once, and the records that they select."""

import concurrent.futures
import hashlib
import io
import json
import os
import pathlib

import numpy as np

from prior_jax.data.array_file import read_array
from prior_jax.data.reader import RecordReader
from prior_jax.data.region_targets import RegionConfig, most_findings
from prior_jax.data.schema import write_atomically
from prior_jax.errors import ConfigError, DataError, first_line

_FORMAT = 1


def measure(
    reader: RecordReader,
    config: RegionConfig,
    *,
    cache_dir: str | os.PathLike[str],
    threads: int,
) -> np.ndarray:
    """Counts the findings of every record of a split, or reads the counts of an earlier call.

    Args:
      reader: reader of the split.
      config: labels that count as findings.
      cache_dir: folder of the stored counts, created if absent; the file's name is a hash of the
        shards and the labels.
      threads: number of threads that read.

    Returns:
      Largest number of findings on one image of each record, int32[N].

    Raises:
      DataError: for a damaged record, or a damaged file in the cache.
    """
    shards = {shard: reader.manifest.shards.get(shard) for shard in reader.shards}
    content = json.dumps([_FORMAT, reader.split, sorted(config.class_of), shards])
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    path = pathlib.Path(cache_dir) / f"findings-{digest}.npy"
    if path.is_file():
        return _load(path, count=len(reader))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        counts = pool.map(
            lambda index: most_findings(reader.read(index), config), range(len(reader))
        )
        found = np.fromiter(counts, np.int32, count=len(reader))
    buffer = io.BytesIO()
    np.save(buffer, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return found


def trained(
    candidates: np.ndarray, findings: np.ndarray, config: RegionConfig, *, seed: int
) -> np.ndarray:
    """Returns the records that are trained on, by `RegionConfig.train_images`.

    Args:
      candidates: numbers of the records that the rest of the config keeps, int64[n], ascending.
      findings: largest number of findings on an image of each record, int32[N].
      config: the choice.
      seed: seed of the choice of images without findings.

    Returns:
      int64[k], ascending.

    Raises:
      ConfigError: if no record has a finding.
    """
    positive = candidates[findings[candidates] > 0]
    if len(candidates) and not len(positive):
        what = "box" if config.kind == "boxes" else "mask"
        raise ConfigError(
            f"None of the {len(candidates)} training records has a {what} of the classes "
            f"{', '.join(config.classes)}, so that nothing can be learnt.",
            "Train on more records, as by config.data.fraction, or on a set that has them in its "
            "split train.",
            where="config.data.regions",
        )
    if config.train_images == "all":
        return candidates
    if config.train_images == "with_regions":
        return positive
    others = candidates[findings[candidates] == 0]
    chosen = np.random.default_rng(seed).permutation(others)[: len(positive)]
    return np.sort(np.concatenate([positive, chosen]))


def tested(findings: np.ndarray, config: RegionConfig) -> np.ndarray:
    """Returns the records that are validated and tested on, int64[k], ascending."""
    if config.test_images == "all":
        return np.arange(len(findings))
    return np.flatnonzero(findings > 0)


def _load(path: pathlib.Path, *, count: int) -> np.ndarray:
    try:
        found = read_array(path)
        if found.shape != (count,) or found.dtype != np.int32:
            raise ValueError(f"it holds {found.dtype}{list(found.shape)}, not int32[{count}]")
    except (OSError, ValueError) as error:
        raise DataError(
            f"The file of the counted findings is damaged ({first_line(error)}).",
            "Delete the file; the findings are then counted again.",
            where=str(path),
        ) from error
    return found
