"""Sums word pieces into words from token ids, inside jit."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.nn.sentence_gather import sentence_membership
from prior_jax.vocabulary import Vocabulary


@flax.struct.dataclass
class WordPlaces:
    """The word that each token belongs to; words are counted from [CLS], which is word 0.

    Attributes:
      index: word of each token, int32[B, L]; -1 after [SEP], which is a word of its own.
      real: mask of the real words, bool[B, L]: True for word w if it is neither [CLS], [SEP] nor
        padding.
      unbracketed: number of words that do not begin with "[", int32[B]: the real words except [UNK]
        (and [MASK]).
    """

    index: jax.Array
    real: jax.Array
    unbracketed: jax.Array


def find_words(
    tokens: jax.Array, token_mask: jax.Array, *, vocabulary: Vocabulary, pieces: bool = False
) -> WordPlaces:
    """Finds the words of tokenised texts.

    A word begins at every token that starts one; the first token always begins word 0. Text ends at
    its first [SEP] or, if it was truncated, with its last real token.

    Args:
      tokens: token ids, int32[B, L].
      token_mask: mask of the real tokens, bool[B, L].
      vocabulary: vocabulary, which tells which tokens begin a word.
      pieces: whether every token is a word of its own.

    Returns:
      Positions of at most L words.

    Raises:
      ValueError: during tracing, if the shapes differ.

    Source: release, gloria/models/text_model.py, `aggregate_tokens`; gloria/models/gloria_model.py,
      `_calc_local_loss`, for the count (quirk G3).
    """
    if tokens.ndim != 2 or tokens.shape != token_mask.shape:
        raise ValueError(
            f"tokens {tokens.shape} and token_mask {token_mask.shape}: accepted [B, L] twice"
        )
    starts = np.ones(vocabulary.size, bool) if pieces else vocabulary.starts_word
    begins = jnp.asarray(starts)[tokens].at[:, 0].set(True)
    ends = (tokens == vocabulary.sep).astype(jnp.int32)
    inside = token_mask & (jnp.cumsum(ends, axis=1) - ends == 0)
    index = jnp.where(inside, jnp.cumsum(begins.astype(jnp.int32), axis=1) - 1, jnp.int32(-1))
    special = (tokens == vocabulary.cls) | (tokens == vocabulary.sep) | (tokens == vocabulary.pad)
    member = sentence_membership(index, num_sentences=tokens.shape[1])
    opens = begins & inside & ~jnp.asarray(vocabulary.bracketed)[tokens]
    return WordPlaces(
        index=index,
        real=jnp.any(member & ~special[:, :, None], axis=1),
        unbracketed=jnp.sum(opens, axis=1, dtype=jnp.int32),
    )


def sum_pieces(pieces: jax.Array, places: WordPlaces) -> jax.Array:
    """Sums the pieces of each word, with one matrix product per text.

    Args:
      pieces: embeddings of word pieces, [B, L, D], one row per token.
      places: positions of the words among the same tokens.

    Returns:
      Word embeddings, [B, L, D], in the dtype of `pieces`; row w is the sum over word w, or 0 where
      there is no word. [CLS] and [SEP] keep their rows.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: release, gloria/models/text_model.py, `aggregate_tokens`: a sum, so that words of many
      pieces have embeddings with a large norm (quirk G7).
    """
    if pieces.ndim != 3 or places.index.shape != pieces.shape[:2]:
        raise ValueError(
            f"pieces {pieces.shape} and places of {places.index.shape}: accepted [B, L, D] and "
            "[B, L]"
        )
    member = sentence_membership(places.index, num_sentences=pieces.shape[1])
    return jnp.einsum(
        "blw,bld->bwd",
        member.astype(pieces.dtype),
        pieces,
        preferred_element_type=jnp.float32,
        precision=jax.lax.Precision.HIGHEST,
    ).astype(pieces.dtype)


def leading_words(count: jax.Array, *, length: int, first: int) -> jax.Array:
    """Returns the mask of words first .. first + count - 1 of `length`: bool[B, length].

    Args:
      count: number of words, int32[B].
      length: length L of the mask.
      first: first word: 0 starts at [CLS], 1 after it.
    """
    word = jnp.arange(length, dtype=jnp.int32)[None, :]
    return (word >= first) & (word < first + count[:, None])
