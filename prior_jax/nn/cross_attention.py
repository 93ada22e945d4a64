"""Attention between an image's patches and a report's sentences, both ways at once."""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import torch_linear
from prior_jax.nn.transformer import MASKED


@flax.struct.dataclass
class LocalContext:
    """What patches see of sentences and sentences of patches.

    Attributes:
      image: [B, P, D], for each patch the sum of sentence values it attends to.
      image_attention: float32[B, P, S], in [0, 1]; sigmoids do not sum to 1 over S.
      text: [B, S, D], for each sentence the sum of patch values it attends to.
      text_attention: float32[B, S, P], in [0, 1]; sigmoids do not sum to 1 over P.
    """

    image: jax.Array
    image_attention: jax.Array
    text: jax.Array
    text_attention: jax.Array


class LocalCrossAttention(nnx.Module):
    """One head of sigmoid attention in each direction, with maps of its own.

    Source: PRIOR, arXiv:2307.12577, section 3.2; release, codes/prior/modules/local_attention.py
    (1 is the image, 2 the text). A context grows with the number of keys (quirk P22). Its dropout
    has rate 0 in every use, so there is none here.
    """

    def __init__(self, embed_dim: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Builds six D x D maps.

        Args:
          embed_dim: D.
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
        """Attends both ways.

        Args:
          patches: [B, P, D].
          sentences: [B, S, D].
          image_mask: bool, [B, P, S] or broadcastable to it: which sentences a patch may see.
            A padded sentence is one that none sees: `sentence_mask[:, None, :]`.
          text_mask: bool, [B, S, P] or broadcastable to it: which patches a sentence may see.

        Returns:
          The contexts; hidden pairs have attention 0.

        Raises:
          ValueError: while tracing, if the shapes do not fit together.
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
        """Every patch against every sentence of other reports, without contexts.

        Args:
          patches: [..., P, D].
          sentences: [S, D].

        Returns:
          float32[..., P, S] of patches over sentences and float32[..., S, P] of the reverse.
        """
        return (
            _attention(self.query1(patches), self.key2(sentences), None),
            _attention(self.query2(sentences), self.key1(patches), None),
        )


class SharedCrossAttention(nnx.Module):
    """Softmax attention whose three maps patches and sentences share.

    Source: LoVT, arXiv:2112.02889, section 3.3; its release, src/models/components/attention.py,
    symmetric. Differs: the output is not batch-normalised, as padded sentences would count in its
    statistics.
    """

    def __init__(self, embed_dim: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Builds three D x D maps.

        Args:
          embed_dim: D.
          dtype: compute dtype; parameters and the softmax are float32.
          rngs: source of the initial parameters.
        """
        self.key = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.value = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        self.output = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(
        self, patches: jax.Array, sentences: jax.Array, sentence_mask: jax.Array
    ) -> LocalContext:
        """Attends both ways.

        Args:
          patches: [B, P, D].
          sentences: [B, S, D].
          sentence_mask: bool[B, S], True on real sentences. The others are attended by none, and
            attend to none.

        Returns:
          The contexts, whose attention sums to 1 (0 if there is no sentence).

        Raises:
          ValueError: while tracing, if the shapes do not fit together.
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
