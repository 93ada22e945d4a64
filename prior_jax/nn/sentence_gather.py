"""Pools token embeddings into sentence embeddings, and moves absent sentences to the end."""

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import torch_linear


def sentence_membership(sentence_index: jax.Array, *, num_sentences: int) -> jax.Array:
    """Returns which token belongs to which sentence.

    Args:
      sentence_index: sentence of each token, int32[B, L], 0..num_sentences-1 or -1; other values
        belong to no sentence.
      num_sentences: number S of sentences.

    Returns:
      Membership, bool[B, L, S].
    """
    slots = jnp.arange(num_sentences, dtype=sentence_index.dtype)
    return sentence_index[:, :, None] == slots[None, None, :]


def mean_sentences(
    tokens: jax.Array, sentence_index: jax.Array, *, num_sentences: int
) -> tuple[jax.Array, jax.Array]:
    """Averages the tokens of each sentence, with one matrix product per report.

    Args:
      tokens: token embeddings, [B, L, D].
      sentence_index: sentence that owns each token, int32[B, L]; -1 for none.
      num_sentences: number S of sentences.

    Returns:
      Sentence embeddings [B, S, D] in the dtype of `tokens`, 0 where the sentence owns no token,
      and the mask bool[B, S] of sentences that own a token.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: release, codes/prior/modules/gather.py ('avg'). Differs: an absent sentence is masked
      rather than skipped (quirk P23; `compact_sentences` skips it).
    """
    _check(tokens, sentence_index)
    member = sentence_membership(sentence_index, num_sentences=num_sentences)
    count = jnp.sum(member, axis=1, dtype=jnp.float32)
    share = member.astype(jnp.float32) / jnp.maximum(count, 1.0)[:, None, :]
    return _weighted_sums(share, tokens), count > 0


def compact_sentences(sentences: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves the present sentences to the front and keeps their order.

    Args:
      sentences: sentence embeddings, [B, S, D].
      mask: mask, bool[B, S], True where the sentence exists.

    Returns:
      Both arrays, reordered along S; absent rows, which are now last, are 0.

    Source: release, codes/prior/modules/gather.py: an index without a token is skipped, so the
      numbers of later sentences shift (quirk P23). This is needed before cutting to a fixed number.
    """
    order = jnp.argsort(jnp.logical_not(mask), axis=1, stable=True)
    mask = jnp.take_along_axis(mask, order, axis=1)
    sentences = jnp.take_along_axis(sentences, order[:, :, None], axis=1)
    return jnp.where(mask[:, :, None], sentences, jnp.zeros((), sentences.dtype)), mask


def fit_sentences(
    sentences: jax.Array, mask: jax.Array, *, num_sentences: int
) -> tuple[jax.Array, jax.Array]:
    """Cuts or zero-pads compacted sentences to a fixed number.

    Args:
      sentences: sentence embeddings, [B, S, D], present sentences first.
      mask: mask of the present sentences, bool[B, S].
      num_sentences: number Q of sentences to return.

    Returns:
      Embeddings, [B, Q, D], and mask, bool[B, Q].

    Source: release, codes/prior/models/prior.py, `trancated_sentence_stack` and
      `padding_sentence_stacks`.
    """
    missing = max(0, num_sentences - sentences.shape[1])
    sentences = jnp.pad(sentences[:, :num_sentences], ((0, 0), (0, missing), (0, 0)))
    return sentences, jnp.pad(mask[:, :num_sentences], ((0, 0), (0, missing)))


class SentenceAttention(nnx.Module):
    """Weights a sentence's tokens by their summed dot products with all tokens of the sentence.

    Source: release, codes/prior/modules/gather.py, `AttentionPool` ('attention', not the default;
    unscaled energies, quirk P45). This version is linear in the number of tokens: it takes the sum
    over keys first.
    """

    def __init__(self, embed_dim: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the query and key maps.

        Args:
          embed_dim: size D of the embeddings; queries and keys have D // 8 features.
          dtype: compute dtype; parameters are float32.
          rngs: source of the initial parameters.
        """
        self.query = torch_linear(embed_dim, embed_dim // 8, dtype=dtype, rngs=rngs)
        self.key = torch_linear(embed_dim, embed_dim // 8, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: jax.Array, sentence_index: jax.Array, *, num_sentences: int
    ) -> tuple[jax.Array, jax.Array]:
        """Pools as `mean_sentences` does, with learned weights.

        Shapes and errors are the same.
        """
        _check(tokens, sentence_index)
        member = sentence_membership(sentence_index, num_sentences=num_sentences)
        keys = _weighted_sums(member.astype(jnp.float32), self.key(tokens))
        energy = jnp.einsum(
            "bld,bsd->bls", self.query(tokens), keys, preferred_element_type=jnp.float32
        )
        lowest = jnp.finfo(jnp.float32).min
        share = jax.nn.softmax(jnp.where(member, energy, lowest), axis=1)
        share = jnp.where(member, share, jnp.float32(0))
        return _weighted_sums(share, tokens), jnp.any(member, axis=1)


def _weighted_sums(weight: jax.Array, tokens: jax.Array) -> jax.Array:
    return jnp.einsum(
        "bls,bld->bsd", weight.astype(tokens.dtype), tokens, preferred_element_type=jnp.float32
    ).astype(tokens.dtype)


def _check(tokens: jax.Array, sentence_index: jax.Array) -> None:
    if tokens.ndim != 3 or sentence_index.shape != tokens.shape[:2]:
        raise ValueError(
            f"tokens {tokens.shape} and sentence_index {sentence_index.shape}: "
            "accepted [B, L, D] and [B, L]"
        )
