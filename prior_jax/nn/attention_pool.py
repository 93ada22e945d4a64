"""Attention pooling: the mean of a set of tokens is a query to the mean and all the tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import torch_linear
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.transformer import attend, mask_bias


class _AttentionPool(nnx.Module):
    """The part shared by pooling over patches and over sentences."""

    def __init__(
        self,
        features: int,
        *,
        out_features: int,
        heads: int,
        positions: int | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        if features % heads:
            raise ValueError(f"features {features} must be a multiple of heads {heads}")
        if positions is None:
            self.position_embedding = None
        else:
            noise = jax.random.normal(rngs.params(), (positions + 1, features), jnp.float32)
            self.position_embedding = nnx.Param(noise / features**0.5)
        self.key = torch_linear(features, features, dtype=dtype, rngs=rngs)
        self.query = torch_linear(features, features, dtype=dtype, rngs=rngs)
        self.value = torch_linear(features, features, dtype=dtype, rngs=rngs)
        self.output = torch_linear(features, out_features, dtype=dtype, rngs=rngs)
        self.heads = heads
        self.positions = positions

    def _positioned(self, tokens: jax.Array, *, first: int) -> jax.Array:
        """Adds the positions `first`, `first` + 1, ... to [B, N, D], if there are any."""
        if self.position_embedding is None:
            return tokens
        last = first + tokens.shape[1]
        if last > self.position_embedding.shape[0]:
            raise ValueError(
                f"pool has positions for {self.positions} tokens, the input has {last - 1}"
            )
        return tokens + self.position_embedding[first:last].astype(tokens.dtype)[None]

    def _pool(self, tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Pools [B, N, D] to [B, out] with the mask bool[B, N], or None if all rows are real."""
        bias = None
        if mask is None:
            mean = jnp.mean(tokens, axis=1, keepdims=True, dtype=jnp.float32)
        else:
            # Zeroing keeps the content of the padding, NaN included, out of every product.
            tokens = jnp.where(mask[..., None], tokens, jnp.zeros_like(tokens))
            count = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)
            total = jnp.sum(tokens, axis=1, keepdims=True, dtype=jnp.float32)
            mean = total / jnp.maximum(count, 1)[..., None]
            bias = mask_bias(jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True))
        tokens = jnp.concatenate([mean.astype(tokens.dtype), tokens], axis=1)
        tokens = self._positioned(tokens, first=0)
        # Only the mean's output is used, so the mean is the only query.
        pooled = attend(
            self.query(tokens[:, :1]),
            self.key(tokens),
            self.value(tokens),
            heads=self.heads,
            bias=bias,
        )
        return self.output(pooled)[:, 0]


class AttentionPool2d(_AttentionPool):
    """Attention pooling of a feature map with learned positions.

    Source: CLIP, arXiv:2103.00020, sec. 2.4; release, codes/prior/encoders/image/resnet.py,
    AttentionPool2d (8 heads, output as wide as the input).
    """

    def __init__(
        self,
        features: int,
        *,
        out_features: int,
        heads: int,
        grid: tuple[int, int],
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the projections and `position_embedding` float32[1 + h * w, features].

        Args:
          features: number of channels of the map.
          out_features: size of the output; in the release the same as `features`.
          heads: number of attention heads, a divisor of `features`; release 8.
          grid: size (h, w) of the map; 7 x 7 for ResNet-50 at 224 pixels.
          dtype: compute dtype; parameters are float32.
          rngs: source of the initial parameters.

        Raises:
          ValueError: if heads do not divide features.
        """
        super().__init__(
            features,
            out_features=out_features,
            heads=heads,
            positions=grid[0] * grid[1],
            dtype=dtype,
            rngs=rngs,
        )
        self.grid = grid

    def __call__(self, feature_map: jax.Array) -> jax.Array:
        """Pools a feature map to one vector per image.

        Args:
          feature_map: feature map, [B, h, w, features], where (h, w) is the grid.

        Returns:
          Pooled vectors, dtype[B, out_features].

        Raises:
          ValueError: during tracing, if the map has another grid.
        """
        return self._pool(self._locations(feature_map), None)

    def each(self, feature_map: jax.Array) -> jax.Array:
        """Returns, of each location, what the pool would return if it attended to it alone.

        Args:
          feature_map: feature map as for the pool.

        Returns:
          dtype[B, h * w, out_features], in the space of the pooled vectors, row-major.

        Source: MaskCLIP, arXiv:2112.01071, sec. 3.3, which takes the values of CLIP's attention
        pool for dense features.
        """
        return self.output(self.value(self._positioned(self._locations(feature_map), first=1)))

    def _locations(self, feature_map: jax.Array) -> jax.Array:
        """Returns the locations of a map, [B, h * w, features]."""
        grid = feature_map.shape[1:3]
        if grid != self.grid:
            raise ValueError(f"pool of a {self.grid} grid received a {grid} map")
        return spatial_patches(feature_map)


class SentenceAttentionPool(_AttentionPool):
    """Attention pooling of a report's sentences, without padding.

    Source: release, codes/prior/modules/sentence_pool.py (8 heads, no positions, so the order of
    sentences does not matter). Differs: a mask replaces one call per report.
    """

    def __init__(
        self,
        features: int,
        *,
        out_features: int,
        heads: int,
        positions: int | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the projections.

        Args:
          features: size of a sentence embedding.
          out_features: size of the output; in the release the same as `features`.
          heads: number of attention heads, a divisor of `features`; release 8.
          positions: largest number of sentences in a report, for which an embedding of their order
            is learned; None, as in the release, learns none.
          dtype: compute dtype; parameters are float32.
          rngs: source of the initial parameters.

        Raises:
          ValueError: if heads do not divide features.
        """
        super().__init__(
            features,
            out_features=out_features,
            heads=heads,
            positions=positions,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, sentences: jax.Array, sentence_mask: jax.Array) -> jax.Array:
        """Pools the sentences of each report to one vector.

        Args:
          sentences: sentence embeddings, [B, S, features].
          sentence_mask: mask of the real sentences, bool[B, S]. Other sentences change neither the
            output nor any gradient. A report without sentences pools a zero vector, which stays
            finite.

        Returns:
          Pooled vectors, dtype[B, out_features].

        Raises:
          ValueError: during tracing, if there are more sentences than positions.
        """
        return self._pool(sentences, sentence_mask)
