"""BERT's post-norm transformer layer and stacks of it, for the text encoder and the decoder."""

import dataclasses
import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_choice, check_field, check_least
from prior_jax.nn.dropout import dropout, fold
from prior_jax.nn.layers import LayerNorm, bert_linear

Remat = Literal["none", "elementwise", "layer"]

# What each setting of `remat` keeps beside the inputs. Products with weights are the ones without a
# batch dimension.
_KEPT = {
    "elementwise": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "layer": jax.checkpoint_policies.nothing_saveable,
}

# Bias of the logits of masked keys: their softmax weight is exactly 0 in float32, and a row without
# any real key still has a finite softmax.
MASKED = -1e9

# BERT, transformers 4.17.0: layer_norm_eps.
LAYER_NORM_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig:
    """Sizes of a stack of transformer layers, and its execution.

    Attributes:
      hidden_size: number of features of a token; BERT-base 768.
      layers: number of layers; BERT-base 12, the release's decoder 8.
      heads: number of attention heads; BERT-base 12.
      intermediate_size: number of features inside the feed-forward part; BERT-base 3072.
      dropout: dropout rate of attention weights and of every sublayer's output; BERT 0.1.
      scan_layers: True compiles one layer and loops over it; False unrolls the loop, so that XLA
        optimises across layers but compiles longer.
      remat: "layer" rematerialises layers: only each layer's input is kept for the backward pass.
        "elementwise" also keeps the products with weights, so that only attention and what is
        computed element by element is rematerialised. "none" keeps all activations.
    """

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    dropout: float
    scan_layers: bool
    remat: Remat

    def __post_init__(self):
        """Refuses sizes that do not fit together."""
        check_least(self, hidden_size=1, layers=1, heads=1, intermediate_size=1)
        divides = self.hidden_size % self.heads == 0
        check_field(self, "heads", divides, f"a divisor of hidden_size {self.hidden_size}")
        check_field(self, "dropout", 0 <= self.dropout < 1, "a rate in [0, 1)")
        check_choice(self, "remat", get_args(Remat))


def mask_bias(mask: jax.Array) -> jax.Array:
    """Returns the bias of attention logits that gives masked keys no weight.

    Args:
      mask: mask of the real keys, bool[B, K].

    Returns:
      Bias, float32[B, 1, 1, K].
    """
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)[:, None, None, :]


def causal_bias(length: int) -> jax.Array:
    """Returns the bias of self-attention logits that hides later tokens from each token.

    Args:
      length: number of tokens.

    Returns:
      Bias, float32[1, 1, length, length].
    """
    seen = jnp.tril(jnp.ones((length, length), bool))
    return jnp.where(seen, 0.0, MASKED).astype(jnp.float32)[None, None]


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    heads: int,
    bias: jax.Array | None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Computes scaled dot-product attention with several heads and a float32 softmax.

    Args:
      query: queries, [B, Q, D].
      key: keys, [B, K, D].
      value: values, [B, K, D].
      heads: number of heads, a divisor of D.
      bias: additive bias, float32, broadcastable to [B, heads, Q, K], added to the logits.
      dropout_rate: share of attention weights dropped.
      dropout_key: random key of the dropout; None disables dropout.

    Returns:
      Attended values, [B, Q, D], in the dtype of `value`.

    Source: arXiv:1706.03762, sec. 3.2.
    """
    logits = _attention_logits(query, key, heads=heads, bias=bias)
    value = _split_heads(value, heads)
    weights = _softmax(logits, value.dtype)
    weights = dropout(weights, rate=dropout_rate, key=dropout_key)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return mixed.reshape(*mixed.shape[:2], -1)


def attention_weights(
    query: jax.Array, key: jax.Array, *, heads: int, bias: jax.Array | None
) -> jax.Array:
    """Computes the attention weights of `attend`, before dropout.

    Args:
      query: queries, [B, Q, D].
      key: keys, [B, K, D].
      heads: number of heads, a divisor of D.
      bias: additive bias, float32, broadcastable to [B, heads, Q, K], added to the logits.

    Returns:
      Weights, float32[B, heads, Q, K]; rows sum to 1.
    """
    return jax.nn.softmax(_attention_logits(query, key, heads=heads, bias=bias), axis=-1)


def _attention_logits(
    query: jax.Array, key: jax.Array, *, heads: int, bias: jax.Array | None
) -> jax.Array:
    query, key = _split_heads(query, heads), _split_heads(key, heads)
    # Queries are fewer numbers than logits, and on a CPU XLA writes a factor of the logits into an
    # array of their size.
    query = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    return logits if bias is None else logits + bias


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(logits: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Computes the softmax of float32 logits over the last axis, rounded to a dtype.

    The gradient is computed from the rounded weights, which are what the values are multiplied by:
    in bfloat16, weights in float32 would be the largest arrays of a layer.
    """
    return jax.nn.softmax(logits, axis=-1).astype(dtype)


@_softmax.defjvp
def _softmax_jvp(
    dtype: jax.typing.DTypeLike, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    weights = _softmax(*primals, dtype)
    share = weights.astype(jnp.float32)
    (change,) = tangents
    change = share * (change - jnp.sum(share * change, axis=-1, keepdims=True))
    return weights, change.astype(dtype)


def _split_heads(x: jax.Array, heads: int) -> jax.Array:
    """Reshapes [B, N, D] to [B, N, heads, D / heads]."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)


def check_length(length: int, limit: int, *, module: str) -> int:
    """Returns the length; raises ValueError if it exceeds the number of position embeddings."""
    if length > limit:
        raise ValueError(f"{module} has {limit} positions, the input has {length}")
    return length


class Attention(nnx.Module):
    """Multi-head attention with BERT's output projection, residual and normalisation."""

    def __init__(self, config: StackConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the four projections and the normalisation."""
        size = config.hidden_size
        self.query = bert_linear(size, size, dtype=dtype, rngs=rngs)
        self.key = bert_linear(size, size, dtype=dtype, rngs=rngs)
        self.value = bert_linear(size, size, dtype=dtype, rngs=rngs)
        self.output = bert_linear(size, size, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(size, epsilon=LAYER_NORM_EPSILON, dtype=dtype)
        self.heads = config.heads
        self.dropout = config.dropout

    def __call__(
        self, x: jax.Array, memory: jax.Array, *, bias: jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        """Attends from x [B, Q, D] to memory [B, K, D].

        For the bias see `attend`; a key of None disables dropout.
        """
        mixed = attend(
            self.query(x),
            self.key(memory),
            self.value(memory),
            heads=self.heads,
            bias=bias,
            dropout_rate=self.dropout,
            dropout_key=fold(key, 0),
        )
        return self.norm(x + dropout(self.output(mixed), rate=self.dropout, key=fold(key, 1)))


class FeedForward(nnx.Module):
    """BERT's two-layer perceptron with the exact (erf) GELU, residual and normalisation."""

    def __init__(self, config: StackConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the two projections and the normalisation."""
        size, inner = config.hidden_size, config.intermediate_size
        self.inner = bert_linear(size, inner, dtype=dtype, rngs=rngs)
        self.outer = bert_linear(inner, size, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(size, epsilon=LAYER_NORM_EPSILON, dtype=dtype)
        self.dropout = config.dropout

    def __call__(self, x: jax.Array, *, key: jax.Array | None) -> jax.Array:
        """Maps [B, L, D] to [B, L, D]; a key of None disables dropout."""
        y = self.outer(jax.nn.gelu(self.inner(x), approximate=False))
        return self.norm(x + dropout(y, rate=self.dropout, key=key))


class TransformerLayer(nnx.Module):
    """Self-attention, cross-attention if `cross`, and feed-forward."""

    def __init__(
        self, config: StackConfig, *, cross: bool, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
    ):
        """Creates the sublayers."""
        self.self_attention = Attention(config, dtype=dtype, rngs=rngs)
        self.cross_attention = Attention(config, dtype=dtype, rngs=rngs) if cross else None
        self.feed_forward = FeedForward(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        *,
        bias: jax.Array | None,
        memory: jax.Array | None,
        key: jax.Array | None,
    ) -> jax.Array:
        """Maps [B, L, D] to [B, L, D], with `bias` on the self-attention.

        If `cross`, it attends to the memory [B, K, D].
        """
        x = self.self_attention(x, x, bias=bias, key=fold(key, 0))
        if self.cross_attention is not None:
            if memory is None:
                raise ValueError("a layer with cross-attention needs a memory")
            x = self.cross_attention(x, memory, bias=None, key=fold(key, 1))
        return self.feed_forward(x, key=fold(key, 2))


def create_layers(
    config: StackConfig, *, cross: bool, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
) -> TransformerLayer:
    """Creates a stack of layers as one module with a leading [layers] axis on its parameters.

    Args:
      config: configuration with the sizes.
      cross: whether the layers have cross-attention.
      dtype: compute dtype; parameters are float32.
      rngs: source of the initial parameters; every layer draws its own parameters.

    Returns:
      A TransformerLayer that must be passed to `run_layers`, not called.
    """

    @nnx.split_rngs(splits=config.layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs):
        return TransformerLayer(config, cross=cross, dtype=dtype, rngs=rngs)

    return create(rngs)


def run_layers(
    layers: TransformerLayer,
    x: jax.Array,
    *,
    config: StackConfig,
    bias: jax.Array | None,
    memory: jax.Array | None = None,
    key: jax.Array | None = None,
    keep_hidden: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs a stack created by `create_layers`.

    Args:
      layers: stacked module.
      x: input tokens, [B, L, D].
      config: configuration that the stack was created with.
      bias: bias added to the self-attention's logits, broadcastable to [B, heads, L, L].
      memory: keys and values of the cross-attention, [B, K, D], where the layers have one.
      key: dropout key, folded with the index of the layer; None disables dropout.
      keep_hidden: whether the output of every layer is returned.

    Returns:
      The last output, [B, L, D], and all outputs, [layers, B, L, D], or None.
    """
    graphdef, state = nnx.split(layers)
    state = nnx.as_pure(state)

    def run(x, layer_state, index):
        layer = nnx.merge(graphdef, layer_state)
        return layer(x, bias=bias, memory=memory, key=fold(key, index))

    if config.remat != "none":
        run = jax.checkpoint(run, prevent_cse=not config.scan_layers, policy=_KEPT[config.remat])

    if config.scan_layers:

        def body(x, layer):
            x = run(x, *layer)
            return x, (x if keep_hidden else None)

        return jax.lax.scan(body, x, (state, jnp.arange(config.layers)))

    hidden = []
    for index in range(config.layers):
        x = run(x, jax.tree.map(lambda leaf, i=index: leaf[i], state), jnp.asarray(index))
        hidden.append(x)
    return x, (jnp.stack(hidden) if keep_hidden else None)
