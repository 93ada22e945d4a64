"""Attention between an image's patches and a report's sentences, in both directions at once."""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import torch_linear
from prior_jax.nn.transformer import MASKED


@flax.struct.dataclass
class LocalContext:
    """Contexts that patches gather from sentences and sentences gather from patches.

    Attributes:
      image: context of each patch, [B, P, D]: the weighted sum of the sentence values that it
        attends to.
      image_attention: attention of patches over sentences, float32[B, P, S], in [0, 1]; sigmoids do
        not sum to 1 over S.
      text: context of each sentence, [B, S, D]: the weighted sum of the patch values that it
        attends to.
      text_attention: attention of sentences over patches, float32[B, S, P], in [0, 1]; sigmoids do
        not sum to 1 over P.
    """

    image: jax.Array
    image_attention: jax.Array
    text: jax.Array
    text_attention: jax.Array


class LocalCrossAttention(nnx.Module):
    """One head of sigmoid attention in each direction, each with its own linear maps.

    Source: PRIOR, arXiv:2307.12577, section 3.2; release, codes/prior/modules/local_attention.py (1
    is the image, 2 the text). A context grows with the number of keys (quirk P22). The release's
    dropout has rate 0 in every use, so this module has none.
    """

    def __init__(self, embed_dim: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates six D x D linear maps.

        Args:
          embed_dim: size D of the embeddings.
          dtype: compute dtype; parameters and the sigmoid are float32.
          rngs: source of the initial parameters.
        """
        self.query1 = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.key1 = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.value1 = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.query2 = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.key2 = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.value2 = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        patches: jax.Array,
        sentences: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        text_mask: jax.Array | None = None,
    ) -> LocalContext:
        """Attends in both directions.

        Args:
          patches: patch embeddings, [B, P, D].
          sentences: sentence embeddings, [B, S, D].
          image_mask: mask of the sentences that a patch may attend to, bool, [B, P, S] or
            broadcastable to it. For padded sentences, which no patch may attend to:
            `sentence_mask[:, None, :]`.
          text_mask: mask of the patches that a sentence may attend to, bool, [B, S, P] or
            broadcastable to it.

        Returns:
          The contexts; masked pairs have attention 0.

        Raises:
          ValueError: during tracing, if the shapes are inconsistent.
        """
        _check(patches, sentences)
        image_attention = _attention(self.query1(patches), self.key2(sentences), image_mask)
        text_attention = _attention(self.query2(sentences), self.key1(patches), text_mask)
        return LocalContext(
            image=_context(image_attention, self.value2(sentences)),
            image_attention=image_attention,
            text=_context(text_attention, self.value1(patches)),
            text_attention=text_attention,
        )

    def attention(self, patches: jax.Array, sentences: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes the attention of all patches and sentences, also of other reports' sentences.

        No contexts are computed.

        Args:
          patches: patch embeddings, [..., P, D].
          sentences: sentence embeddings, [S, D].

        Returns:
          Attention of patches over sentences, float32[..., P, S], and of sentences over patches,
          float32[..., S, P].
        """
        return (
            _attention(self.query1(patches), self.key2(sentences), None),
            _attention(self.query2(sentences), self.key1(patches), None),
        )


class SharedCrossAttention(nnx.Module):
    """Softmax attention with three linear maps that patches and sentences share.

    Source: LoVT, arXiv:2112.02889, section 3.3; its release, src/models/components/attention.py,
    symmetric. Differs: the output has no batch normalisation, because padded sentences would count
    in its statistics.
    """

    def __init__(self, embed_dim: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates three D x D linear maps.

        Args:
          embed_dim: size D of the embeddings.
          dtype: compute dtype; parameters and the softmax are float32.
          rngs: source of the initial parameters.
        """
        self.key = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.value = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.output = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(
        self, patches: jax.Array, sentences: jax.Array, sentence_mask: jax.Array
    ) -> LocalContext:
        """Attends in both directions.

        Args:
          patches: patch embeddings, [B, P, D].
          sentences: sentence embeddings, [B, S, D].
          sentence_mask: mask of the real sentences, bool[B, S]. No patch attends to the other
            sentences, and they attend to none.

        Returns:
          The contexts, whose attention sums to 1 (0 if there is no sentence).

        Raises:
          ValueError: during tracing, if the shapes are inconsistent.
        """
        _check(patches, sentences)
        keys = self.key(patches), self.key(sentences)
        score = jnp.einsum("bpd,bsd->bps", *keys, preferred_element_type=jnp.float32)
        score = score * keys[0].shape[-1] ** -0.5
        seen = sentence_mask[:, None, :]
        image_attention = jax.nn.softmax(jnp.where(seen, score, jnp.float32(MASKED)), axis=2)
        image_attention = jnp.where(seen, image_attention, jnp.float32(0))
        text_attention = jax.nn.softmax(jnp.swapaxes(score, 1, 2), axis=2)
        text_attention = jnp.where(sentence_mask[:, :, None], text_attention, jnp.float32(0))
        return LocalContext(
            image=self.output(_context(image_attention, self.value(sentences))),
            image_attention=image_attention,
            text=self.output(_context(text_attention, self.value(patches))),
            text_attention=text_attention,
        )


def _attention(queries: jax.Array, keys: jax.Array, mask: jax.Array | None) -> jax.Array:
    score = jnp.einsum("...qd,...kd->...qk", queries, keys, preferred_element_type=jnp.float32)
    attention = jax.nn.sigmoid(score * queries.shape[-1] ** -0.5)
    return attention if mask is None else jnp.where(mask, attention, jnp.float32(0))


def _context(attention: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.einsum(
        "bqk,bkd->bqd",
        attention.astype(values.dtype),
        values,
        preferred_element_type=jnp.float32,
    ).astype(values.dtype)


def _check(patches: jax.Array, sentences: jax.Array) -> None:
    fits = patches.ndim == 3 and sentences.ndim == 3
    if not fits or (patches.shape[0], patches.shape[2]) != (sentences.shape[0], sentences.shape[2]):
        raise ValueError(
            f"patches {patches.shape} and sentences {sentences.shape}: "
            "accepted [B, P, D] and [B, S, D]"
        )
