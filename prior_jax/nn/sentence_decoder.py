"""The decoder from learned queries to sentence prototypes, with cross-attention to the image."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_least
from prior_jax.nn.dropout import dropout, fold, training_key
from prior_jax.nn.layers import LayerNorm, bert_normal
from prior_jax.nn.transformer import (
    LAYER_NORM_EPSILON,
    StackConfig,
    causal_bias,
    check_length,
    create_layers,
    run_layers,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceDecoderConfig(StackConfig):
    """Sizes of the sentence decoder; see StackConfig for the layers.

    Attributes:
      max_positions: number of rows of the position embedding, at least the number of queries; BERT
        512.
      token_types: number of rows of the token-type embedding, of which only the first is used; BERT
        2.
      causal: whether query j attends only to queries up to j. The paper's decoder is
        non-autoregressive (False); the release's decoder is accidentally causal, through BERT's
        is_decoder (True).
    """

    max_positions: int
    token_types: int
    causal: bool

    def __post_init__(self):
        """Refuses sizes that do not fit together."""
        super().__post_init__()
        check_least(self, max_positions=1, token_types=1)


class SentenceDecoder(nnx.Module):
    """BERT layers with cross-attention from sentence queries to image patches.

    Source: PRIOR, arXiv:2307.12577, sec. 3.4; release, codes/prior/decoders/sentence.py. The
    release's decoder also has a word embedding, which nothing uses; this module leaves it out.
    """

    def __init__(
        self, config: SentenceDecoderConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
    ):
        """Creates the embeddings and the stacked layers.

        Args:
          config: configuration with sizes, dropout rate, causality and execution of the layers.
          dtype: compute dtype; parameters, softmax and LayerNorm are float32.
          rngs: source of the initial parameters.
        """
        size = config.hidden_size

        def embedding(rows):
            return nnx.Param(bert_normal(rngs.params(), (rows, size), jnp.float32))

        self.position_embedding = embedding(config.max_positions)
        self.token_type_embedding = embedding(config.token_types)
        self.embedding_norm = LayerNorm(size, epsilon=LAYER_NORM_EPSILON, dtype=dtype)
        self.layers = create_layers(config, cross=True, dtype=dtype, rngs=rngs)
        self.config = config
        self.dtype = dtype

    def __call__(
        self,
        queries: jax.Array,
        patches: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Decodes the queries.

        Args:
          queries: query embeddings, [B, Q, D]; Q is at most max_positions.
          patches: local features of the image, [B, P, D], all of which are attended to.
          train: whether dropout is applied.
          key: random key of the dropout; required in training unless the dropout rate is 0.

        Returns:
          Predicted sentences, dtype[B, Q, D], one row per sentence.

        Raises:
          ValueError: during tracing, if there are too many queries or the key is missing.
        """
        config = self.config
        key = training_key(key, train=train, rate=config.dropout, module="SentenceDecoder")
        count = check_length(queries.shape[1], config.max_positions, module="SentenceDecoder")
        places = self.position_embedding[:count] + self.token_type_embedding[:1]
        x = self.embedding_norm(queries.astype(jnp.float32) + places[None])
        x = dropout(x, rate=config.dropout, key=fold(key, 0))
        last, _ = run_layers(
            self.layers,
            x,
            config=config,
            bias=causal_bias(count) if config.causal else None,
            memory=patches.astype(self.dtype),
            key=fold(key, 1),
        )
        return last
