"""A batch of drawn images and token ids, with reports of a given length."""

import dataclasses
from typing import Any

import jax
import numpy as np

from launch.start.without_data import abstract_batch
from prior_jax.data.pipeline import DataConfig
from prior_jax.types import Batch
from prior_jax.vocabulary import Vocabulary

# Reports of MIMIC-CXR may not be passed on, and their lengths depend on the tokenizer. These are
# assumed: a log-normal distribution with the mean length of a report and of one of its sentences,
# as in the comparison with the authors' code (docs/step_time.md).
_MEAN = {"report": 68.0, "sentence": 16.0}
_SPREAD = 0.45
_LEAST = 20
SENTENCE_TOKENS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """The lengths of the reports of a batch.

    Attributes:
      tokens: int64[B], real tokens of each report, with [CLS] and [SEP].
      padded: length L that all are padded to.
    """

    tokens: np.ndarray
    padded: int


def full_lengths(data: DataConfig) -> Lengths:
    """Returns reports of which every token up to the longest length is real."""
    return Lengths(tokens=np.full(data.batch_size, data.max_tokens), padded=data.max_tokens)


def real_lengths(data: DataConfig, *, seed: int = 0) -> Lengths:
    """Returns the lengths of a typical batch of real reports, padded as training pads it.

    As in training, a window of batches is sorted by length; the batch in the middle is taken.

    Args:
      data: section `config.data`, which determines rows, buckets, window and the longest report.
      seed: seed of the draw.
    """
    draw = np.random.default_rng(seed)
    count = data.batch_size * data.bucket_window
    middle = np.log(_MEAN[data.caption]) - _SPREAD**2 / 2
    drawn = draw.lognormal(middle, _SPREAD, count)
    least = min(_LEAST if data.caption == "report" else 5, data.max_tokens)
    lengths = np.sort(np.clip(drawn.astype(np.int64), least, data.max_tokens))
    start = data.bucket_window // 2 * data.batch_size
    tokens = draw.permutation(lengths[start : start + data.batch_size])
    return Lengths(tokens=tokens, padded=next(b for b in data.buckets if b >= tokens.max()))


def batch_of(
    data: DataConfig, lengths: Lengths, *, vocabulary: Vocabulary, labels: int, seed: int = 0
) -> Batch:
    """Returns a batch on the host with every row real.

    Args:
      data: section `config.data`.
      lengths: lengths of its reports.
      vocabulary: vocabulary of the token ids.
      labels: number of labels of a record.
      seed: seed of images and tokens.

    Returns:
      Images are normal noise, tokens uniform over the vocabulary without its special ones, and
      sentences have 16 tokens; with caption "sentence" a report is one sentence.
    """
    draw = np.random.default_rng(seed)
    shapes: Any = abstract_batch(data, length=lengths.padded, labels=labels)
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    places = np.arange(lengths.padded)[None, :]
    real = places < lengths.tokens[:, None]
    inner = (places > 0) & (places < lengths.tokens[:, None] - 1)
    sentence = (places - 1) // SENTENCE_TOKENS if data.caption == "report" else 0 * places
    owner = np.where(inner, np.minimum(sentence, data.max_sentences - 1), -1)
    drawn = draw.integers(_specials(vocabulary), vocabulary.size, real.shape)
    tokens = np.where(inner, drawn, vocabulary.pad)
    tokens[:, 0] = vocabulary.cls
    np.put_along_axis(tokens, lengths.tokens[:, None] - 1, vocabulary.sep, axis=1)
    return dataclasses.replace(
        empty,
        image=draw.standard_normal(shapes.image.shape, np.float32),
        tokens=tokens.astype(np.int32),
        token_mask=real,
        sentence_index=owner.astype(np.int32),
        sentence_mask=np.arange(data.max_sentences)[None, :] <= owner.max(axis=1)[:, None],
        weight=np.ones(data.batch_size, np.float32),
        record=np.arange(data.batch_size, dtype=np.int32),
    )


def _specials(vocabulary: Vocabulary) -> int:
    """Returns the first id above those of [PAD], [CLS] and [SEP]."""
    return max(vocabulary.pad, vocabulary.cls, vocabulary.sep) + 1
