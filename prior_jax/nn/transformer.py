"""The post-norm transformer layer of BERT, stacked: shared by the text encoder and the decoder."""

import dataclasses
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn.dropout import dropout, fold
from prior_jax.nn.layers import LayerNorm, bert_linear

Remat = Literal["none", "layer"]

# Added to the logits of masked keys: their softmax weight is exactly 0 in float32, and a row
# without any real key still has a finite softmax.
MASKED = -1e9

# BERT, transformers 4.17.0: layer_norm_eps.
LAYER_NORM_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig:
    """Sizes of a stack of transformer layers, and how to run it.

    Attributes:
      hidden_size: features of a token; BERT-base 768.
      layers: number of layers; BERT-base 12, the release's decoder 8.
      heads: attention heads; BERT-base 12.
      intermediate_size: features inside the feed-forward; BERT-base 3072.
      dropout: rate for attention weights and every sublayer's output; BERT 0.1.
      scan_layers: True compiles one layer and loops over it; False unrolls, which XLA optimises
        across layers at the price of compile time.
      remat: "layer" keeps only each layer's input for the backward pass; "none" keeps all.
    """

    SECTION: ClassVar[str] = "config.model.text"

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    dropout: float
    scan_layers: bool
    remat: Remat

    def __post_init__(self):
        """Refuses sizes that do not fit together."""
        for name in ("hidden_size", "layers", "heads", "intermediate_size"):
            self.check(name, getattr(self, name), getattr(self, name) >= 1, "a positive integer")
        self.check(
            "heads", self.heads, self.hidden_size % self.heads == 0,
            f"a divisor of hidden_size {self.hidden_size}",
        )  # fmt: skip
        self.check("dropout", self.dropout, 0 <= self.dropout < 1, "a rate in [0, 1)")
        self.check("remat", self.remat, self.remat in get_args(Remat), f"one of {get_args(Remat)}")

    def check(self, field: str, received: object, good: bool, accepted: str) -> None:
        """Raises a ConfigError that names the field in its section, unless `good`."""
        if not good:
            raise ConfigError(f"{self.SECTION}.{field}", received=received, accepted=accepted)


def mask_bias(mask: jax.Array) -> jax.Array:
    """What to add to attention logits so that masked keys weigh nothing.

    Args:
      mask: bool[B, K], True on real keys.

    Returns:
      float32[B, 1, 1, K].
    """
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)[:, None, None, :]


def causal_bias(length: int) -> jax.Array:
    """What to add to self-attention logits so that a token sees itself and what is before it.

    Args:
      length: number of tokens.

    Returns:
      float32[1, 1, length, length].
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
    """Scaled dot-product attention over several heads, softmax in float32.

    Args:
      query: [B, Q, D].
      key: [B, K, D].
      value: [B, K, D].
      heads: divisor of D.
      bias: float32, broadcastable to [B, heads, Q, K], added to the logits.
      dropout_rate: share of attention weights dropped.
      dropout_key: key of that draw; None for none.

    Returns:
      [B, Q, D], the value's dtype.

    Source: arXiv:1706.03762, sec. 3.2.
    """
    weights = attention_weights(query, key, heads=heads, bias=bias)
    value = _split_heads(value, heads)
    weights = dropout(weights, rate=dropout_rate, key=dropout_key).astype(value.dtype)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return mixed.reshape(*mixed.shape[:2], -1)


def attention_weights(
    query: jax.Array, key: jax.Array, *, heads: int, bias: jax.Array | None
) -> jax.Array:
    """The weights of `attend`, before dropout.

    Args:
      query: [B, Q, D].
      key: [B, K, D].
      heads: divisor of D.
      bias: float32, broadcastable to [B, heads, Q, K], added to the logits.

    Returns:
      float32[B, heads, Q, K]; rows sum to 1.
    """
    query, key = _split_heads(query, heads), _split_heads(key, heads)
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32) * scale
    if bias is not None:
        logits = logits + bias
    return jax.nn.softmax(logits, axis=-1)


def _split_heads(x: jax.Array, heads: int) -> jax.Array:
    """[B, N, D] to [B, N, heads, D / heads]."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)


def check_length(length: int, limit: int, *, module: str) -> int:
    """Returns the length; raises ValueError if it is above the number of position embeddings."""
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
        """[B, Q, D] attends to memory [B, K, D]; bias as in `attend`; key None: no dropout."""
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
        """[B, L, D] to [B, L, D]; key None: no dropout."""
        y = self.outer(jax.nn.gelu(self.inner(x), approximate=False))
        return self.norm(x + dropout(y, rate=self.dropout, key=key))


class TransformerLayer(nnx.Module):
    """Self-attention, cross-attention where `cross`, feed-forward."""

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
        """[B, L, D] to [B, L, D]; bias on the self-attention; memory [B, K, D] where `cross`."""
        x = self.self_attention(x, x, bias=bias, key=fold(key, 0))
        if self.cross_attention is not None:
            if memory is None:
                raise ValueError("a layer with cross-attention needs a memory")
            x = self.cross_attention(x, memory, bias=None, key=fold(key, 1))
        return self.feed_forward(x, key=fold(key, 2))


def create_layers(
    config: StackConfig, *, cross: bool, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
) -> TransformerLayer:
    """A stack of layers as one module whose parameters have a leading [layers] axis.

    Args:
      config: sizes.
      cross: whether the layers have cross-attention.
      dtype: compute dtype; parameters are float32.
      rngs: source of the initial parameters; every layer draws its own.

    Returns:
      A TransformerLayer to be handed to `run_layers`, not called.
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
    """Runs a stack made by `create_layers`.

    Args:
      layers: the stacked module.
      x: [B, L, D].
      config: the configuration the stack was made with.
      bias: added to the self-attention's logits, broadcastable to [B, heads, L, L].
      memory: [B, K, D] where the layers have cross-attention.
      key: dropout key, folded with the layer's index; None: no dropout.
      keep_hidden: whether to return the output of every layer.

    Returns:
      The last output [B, L, D], and all outputs [layers, B, L, D] or None.
    """
    graphdef, state = nnx.split(layers)
    state = nnx.as_pure(state)

    def run(x, layer_state, index):
        layer = nnx.merge(graphdef, layer_state)
        return layer(x, bias=bias, memory=memory, key=fold(key, index))

    if config.remat == "layer":
        run = jax.checkpoint(run, prevent_cse=not config.scan_layers)

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
