"""The BERT text encoder."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_field, check_least
from prior_jax.nn.dropout import dropout, fold, training_key
from prior_jax.nn.layers import LayerNorm, bert_linear, bert_normal
from prior_jax.nn.transformer import (
    LAYER_NORM_EPSILON,
    StackConfig,
    attention_weights,
    check_length,
    create_layers,
    mask_bias,
    run_layers,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(StackConfig):
    """Sizes of a BERT encoder; see StackConfig for the layers.

    Attributes:
      vocab_size: number of rows of the word embedding; Bio_ClinicalBERT 28996.
      max_positions: longest report in tokens; BERT 512.
      token_types: number of rows of the token-type embedding, of which only the first is used; BERT
        2.
      pad_token: id of the token whose embedding receives no gradient; BERT 0.
    """

    vocab_size: int
    max_positions: int
    token_types: int
    pad_token: int

    def __post_init__(self):
        """Refuses sizes that are inconsistent."""
        super().__post_init__()
        check_least(self, vocab_size=1, max_positions=1, token_types=1)
        known = 0 <= self.pad_token < self.vocab_size
        check_field(self, "pad_token", known, f"a token id below vocab_size {self.vocab_size}")


@flax.struct.dataclass
class BertOutput:
    """Output of the encoder.

    Attributes:
      last_hidden_state: token embeddings after the last layer, [B, L, D].
      pooled: report embeddings, [B, D], the tanh of a projection of the first token.
      hidden_states: embeddings and output of every layer, [layers + 1, B, L, D], or None if they
        were not requested.
    """

    last_hidden_state: jax.Array
    pooled: jax.Array
    hidden_states: jax.Array | None


class Bert(nnx.Module):
    """BERT, arXiv:1810.04805, as transformers 4.17.0 computes it.

    Exact GELU, post-norm, LayerNorm epsilon 1e-12, token type 0 everywhere. The release uses this
    encoder with Bio_ClinicalBERT's weights (codes/prior/encoders/language/bert.py).
    """

    def __init__(self, config: BertConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the embeddings, the stacked layers and the pooler.

        Args:
          config: configuration with sizes, dropout rate and execution of the layers.
          dtype: compute dtype; parameters, softmax and LayerNorm are float32.
          rngs: source of the initial parameters.
        """
        size = config.hidden_size

        def embedding(rows):
            return nnx.Param(bert_normal(rngs.params(), (rows, size), jnp.float32))

        self.word_embedding = embedding(config.vocab_size)
        self.position_embedding = embedding(config.max_positions)
        self.token_type_embedding = embedding(config.token_types)
        self.embedding_norm = LayerNorm(size, epsilon=LAYER_NORM_EPSILON, dtype=dtype)
        self.layers = create_layers(config, cross=False, dtype=dtype, rngs=rngs)
        self.pooler = bert_linear(size, size, dtype=dtype, rngs=rngs)
        self.config = config

    def __call__(
        self,
        tokens: jax.Array,
        token_mask: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
        hidden_states: bool = False,
    ) -> BertOutput:
        """Encodes reports.

        Args:
          tokens: token ids, int32[B, L]; L is at most max_positions. An id outside the vocabulary
            gives NaN.
          token_mask: mask of the real tokens, bool[B, L]; no token attends to the others.
          train: whether dropout is applied.
          key: random key of the dropout; required in training unless the dropout rate is 0.
          hidden_states: whether the output of every layer is returned.

        Returns:
          BertOutput in the compute dtype. Rows outside the mask have no meaning.

        Raises:
          ValueError: during tracing, if the report is too long or the key is missing.
        """
        config = self.config
        key = training_key(key, train=train, rate=config.dropout, module="Bert")
        x = self._embed(tokens)
        x = dropout(x, rate=config.dropout, key=fold(key, 0))
        last, hidden = run_layers(
            self.layers,
            x,
            config=config,
            bias=mask_bias(token_mask),
            key=fold(key, 1),
            keep_hidden=hidden_states,
        )
        if hidden is not None:
            hidden = jnp.concatenate([x[None], hidden])
        pooled = jnp.tanh(self.pooler(last[:, 0]))
        return BertOutput(last_hidden_state=last, pooled=pooled, hidden_states=hidden)

    def first_token_attention(self, output: BertOutput, token_mask: jax.Array) -> jax.Array:
        """Computes the last layer's attention from the first token to each token, without dropout.

        Args:
          output: output of the encoder for the same tokens, with hidden states.
          token_mask: mask of the real tokens, bool[B, L].

        Returns:
          Attention, float32[B, L], the mean over heads; sums to 1, 0 on padding.

        Raises:
          ValueError: if the output holds no hidden states.
        """
        if output.hidden_states is None:
            raise ValueError("first_token_attention needs hidden_states, got None")
        graph, state = nnx.split(self.layers.self_attention)
        last = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[-1], nnx.as_pure(state)))
        hidden = output.hidden_states[-2]
        weights = attention_weights(
            last.query(hidden[:, :1]), last.key(hidden), heads=last.heads,
            bias=mask_bias(token_mask),
        )  # fmt: skip
        return jnp.mean(weights, axis=1)[:, 0]

    def _embed(self, tokens: jax.Array) -> jax.Array:
        length = check_length(tokens.shape[1], self.config.max_positions, module="Bert")
        # Gathers before casting: casting the table would touch every row of the vocabulary.
        words = jnp.take(self.word_embedding[...], tokens, axis=0)
        is_pad = (tokens == self.config.pad_token)[..., None]
        words = jnp.where(is_pad, jax.lax.stop_gradient(words), words)
        places = self.position_embedding[:length] + self.token_type_embedding[:1]
        return self.embedding_norm(words + places[None])
