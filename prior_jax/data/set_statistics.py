"""Measures the length of each report in tokens, once per prepared set and tokenizer."""

import dataclasses
import hashlib
import io
import os
import pathlib

import grain
import numpy as np

from prior_jax.data import workers as workers_lib
from prior_jax.data.array_file import read_arrays
from prior_jax.data.reader import RecordReader
from prior_jax.data.schema import TEXT_SOURCES, write_atomically
from prior_jax.data.text import count_tokens
from prior_jax.data.tokenizer import Tokenizer
from prior_jax.errors import DataError, first_line

_FORMAT = 2
_CHUNK = 256  # records; a few chunks are in memory at a time
_MEASURE_AGAIN = "Delete the file and run the same command again, which measures the reports again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
    """Measurements of the reports of one split.

    Attributes:
      tokens: number of tokens of each report, int32[N], including [CLS] and [SEP], not truncated; 0
        where no sentence has a token.
      sentence: number of tokens of the report's longest sentence alone, int32[N], counted in the
        same way.
      source: source of the text, int8[N], as position in schema.TEXT_SOURCES.
    """

    tokens: np.ndarray
    sentence: np.ndarray
    source: np.ndarray


def measure(
    reader: RecordReader,
    *,
    tokenizer: Tokenizer,
    cache_dir: str | os.PathLike[str],
    workers: int,
    threads: int,
) -> Measurements:
    """Measures every report of a split, or reads the stored result of an earlier call.

    Args:
      reader: reader of the split.
      tokenizer: tokenizer that counts the tokens.
      cache_dir: directory of the stored results, created if absent; the file's name is a hash of
        the shards and the tokenizer.
      workers: number of worker processes that read; 0 for none.
      threads: number of threads that read in each process.

    Raises:
      DataError: for a damaged record, or a damaged file in the cache.
    """
    path = pathlib.Path(cache_dir) / f"token_counts-{_key(reader, tokenizer)[:32]}.npz"
    if path.is_file():
        return _load(path, count=len(reader))
    measured = _measure_all(reader, tokenizer=tokenizer, workers=workers, threads=threads)
    buffer = io.BytesIO()
    np.savez(buffer, **vars(measured))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return measured


def _key(reader: RecordReader, tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {tokenizer.fingerprint} {reader.split}\n".encode())
    for shard in reader.shards:
        if shard not in reader.manifest.shards:
            raise DataError(
                "The shard is not listed in manifest.json, which must contain its sha256.",
                "Prepare the set again.",
                where=f"{reader.directory / shard}",
            )
        digest.update(f"{shard} {reader.manifest.shards[shard]}\n".encode())
    return digest.hexdigest()


def _load(path: pathlib.Path, *, count: int) -> Measurements:
    try:
        arrays = read_arrays(path)
        names = [field.name for field in dataclasses.fields(Measurements)]
        measured = Measurements(**{name: arrays[name] for name in names})
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The file of the reports' lengths is damaged ({first_line(error)}).",
            _MEASURE_AGAIN,
            where=str(path),
        ) from error
    shapes = {array.shape for array in vars(measured).values()}
    if shapes != {(count,)}:
        raise DataError(
            f"The arrays have the shapes {sorted(shapes)}, but the split has {count} records.",
            _MEASURE_AGAIN,
            where=str(path),
        )
    return measured


def _measure_all(
    reader: RecordReader, *, tokenizer: Tokenizer, workers: int, threads: int
) -> Measurements:
    chunks = -(-len(reader) // _CHUNK)
    # Starting a process costs seconds, which is not worth it for a few chunks.
    workers = workers if chunks > 8 * workers else 0
    dataset = grain.MapDataset.range(chunks).map(_MeasureChunk(reader, tokenizer))
    iterator = workers_lib.start(dataset, workers=workers, threads=threads, prefetch=threads)
    try:
        parts = list(iterator)
    finally:
        iterator.close()
    table = np.concatenate(parts)
    return Measurements(
        tokens=table[:, 0], sentence=table[:, 1], source=table[:, 2].astype(np.int8)
    )


class _MeasureChunk:
    """Maps a chunk number to int32[n, 3], the fields of `Measurements`, in worker processes."""

    def __init__(self, reader: RecordReader, tokenizer: Tokenizer):
        self._reader = reader
        self._tokenizer = tokenizer

    def __call__(self, chunk: int) -> np.ndarray:
        start = chunk * _CHUNK
        stop = min(start + _CHUNK, len(self._reader))
        table = np.zeros((stop - start, 3), np.int32)
        for row, index in enumerate(range(start, stop)):
            record = self._reader.read(index)
            counts = count_tokens(record.sentences, tokenizer=self._tokenizer)
            source = TEXT_SOURCES.index(record.text_source)
            table[row] = counts.report, counts.sentence, source
        return table
