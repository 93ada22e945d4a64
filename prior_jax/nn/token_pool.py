"""Pools the tokens of a report, or the patches of an image, into one vector."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import torch_linear
from prior_jax.nn.transformer import attend, attention_weights, mask_bias

TokenPool = Literal["first", "mean", "max"]


def pool_tokens(tokens: jax.Array, mask: jax.Array, *, pool: TokenPool) -> jax.Array:
    """Pools tokens without parameters.

    Args:
      tokens: token embeddings, [B, N, D].
      mask: mask of the real tokens, bool[B, N]; other tokens change neither output nor gradient.
      pool: pooling operation: "first" takes the first token ([CLS]), "mean" and "max" pool each
        feature over all real tokens.

    Returns:
      Pooled vectors, [B, D], in the dtype of `tokens`; "mean" and "max" give 0 where no token is
      real.

    Raises:
      ValueError: for another pool.
    """
    if pool == "first":
        return tokens[:, 0]
    present = mask[..., None]
    if pool == "mean":
        total = jnp.sum(jnp.where(present, tokens, 0), axis=1, dtype=jnp.float32)
        count = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)
        return (total / jnp.maximum(count, 1)).astype(tokens.dtype)
    if pool == "max":
        lowest = jnp.asarray(jnp.finfo(tokens.dtype).min, tokens.dtype)
        most = jnp.max(jnp.where(present, tokens, lowest), axis=1)
        return jnp.where(jnp.any(mask, axis=1)[:, None], most, jnp.zeros((), tokens.dtype))
    raise ValueError(f"pool {pool!r}: accepted 'first', 'mean', 'max'")


class MeanQueryPool(nnx.Module):
    """Attention pooling with the mean row as query, which also returns the weight of each row.

    Source: LoVT, arXiv:2112.02889, section 3.2; its release, src/models/components/aggregation.py,
    `GlobalAvgAttentionAggregator`. Differs: the release's mean counts padding, as zeros, in the
    divisor. Differs from `attention_pool`: the mean is not a key, and the weights are returned.
    """

    def __init__(self, features: int, *, heads: int, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the four maps.

        Args:
          features: size D of rows and output.
          heads: number of attention heads, a divisor of D; LoVT 8.
          dtype: compute dtype; parameters and the softmax are float32.
          rngs: source of the initial parameters.

        Raises:
          ValueError: if heads do not divide features.
        """
        if features % heads:
            raise ValueError(f"features {features} must be a multiple of heads {heads}")
        self.query = torch_linear(features, features, dtype=dtype, rngs=rngs)
        self.key = torch_linear(features, features, dtype=dtype, rngs=rngs)
        self.value = torch_linear(features, features, dtype=dtype, rngs=rngs)
        self.output = torch_linear(features, features, dtype=dtype, rngs=rngs)
        self.heads = heads

    def __call__(self, rows: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pools the real rows.

        Args:
          rows: input rows, [B, N, D].
          mask: mask of the real rows, bool[B, N].

        Returns:
          Pooled vectors, dtype[B, D], and the weight of each row, float32[B, N]: the mean over
          heads, which sums to 1 over the real rows and is 0 on the others.
        """
        rows = jnp.where(mask[..., None], rows, jnp.zeros((), rows.dtype))
        mean = pool_tokens(rows, mask, pool="mean")[:, None]
        query, key, bias = self.query(mean), self.key(rows), mask_bias(mask)
        pooled = self.output(attend(query, key, self.value(rows), heads=self.heads, bias=bias))
        weights = attention_weights(query, key, heads=self.heads, bias=bias)
        share = jnp.where(mask, jnp.mean(weights, axis=1)[:, 0], jnp.float32(0))
        return pooled[:, 0], share
