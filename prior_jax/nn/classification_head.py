"""Heads that turn the pooled vector of an image into the logits of classes."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn.dropout import dropout, fold, training_key
from prior_jax.nn.layers import BatchNorm, LayerNorm, torch_linear, torch_uniform

HeadKind = Literal["linear", "mlp", "layer_norm"]
LAYER_NORM_EPSILON = 1e-6
"""Constant added to the variance by BenchX (release, unifier/blocks/classifier; timm's value)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of a classification head; the section `config.model.head`.

    Attributes:
      kind: "linear" is one linear map (GLoRIA, MGCA, CXR-CLIP); "mlp" is linear without bias, batch
        normalisation, ReLU, linear (LoVT, release, src/models/downstream/classification.py, which
        MGCA's `SSLEvaluator` in mgca/models/ssl_finetuner.py equals); "layer_norm" is layer
        normalisation with epsilon 1e-6, then linear (BenchX, `use_fc_norm`).
      hidden: inner width of the "mlp", LoVT 512; None for the other kinds.
      dropout: rate of dropout in front of each linear map: LoVT 0.2; MGCA, GLoRIA and BenchX 0.
    """

    kind: HeadKind
    hidden: int | None
    dropout: float

    def __post_init__(self):
        """Refuses shapes that do not define a head."""
        if self.kind not in get_args(HeadKind):
            raise ConfigError.of_value("kind", self.kind, f"one of {get_args(HeadKind)}")
        if self.kind == "mlp" and (self.hidden is None or self.hidden < 1):
            raise ConfigError.of_value("hidden", self.hidden, "a positive integer with kind 'mlp'")
        if self.kind != "mlp" and self.hidden is not None:
            raise ConfigError.of_value("hidden", self.hidden, f"None with kind {self.kind!r}")
        if not 0 <= self.dropout < 1:
            raise ConfigError.of_value("dropout", self.dropout, "at least 0 and below 1")


class ClassificationHead(nnx.Module):
    """Normalisation or a hidden layer, if any, and a linear map to logits, in float32."""

    def __init__(self, config: HeadConfig, *, features: int, logits: int, rngs: nnx.Rngs):
        """Creates the layers, initialised as in torch.

        Args:
          config: configuration of the head.
          features: size F of the pooled vectors; ResNet-50 2048.
          logits: number of logits.
          rngs: source of the initial parameters.
        """
        width, hidden, norm = features, None, None
        if config.kind == "mlp" and config.hidden is not None:
            width = config.hidden
            hidden = linear_without_bias(features, width, rngs=rngs)
            norm = BatchNorm(width, dtype=jnp.float32)
        elif config.kind == "layer_norm":
            norm = LayerNorm(features, epsilon=LAYER_NORM_EPSILON, dtype=jnp.float32)
        # A module's attribute is of one kind for good, so that each is set once.
        self.hidden, self.norm = hidden, norm
        self.classifier = torch_linear(width, logits, dtype=jnp.float32, rngs=rngs)
        self.dropout = config.dropout

    def __call__(
        self, pooled: jax.Array, *, train: bool, key: jax.Array | None = None
    ) -> jax.Array:
        """Classifies pooled vectors.

        Args:
          pooled: pooled vectors, [B, F].
          train: whether dropout is applied and batch normalisation uses the batch's statistics.
          key: random key of the dropout; required in training unless the rate is 0.

        Returns:
          Logits, float32[B, logits].

        Raises:
          ValueError: in training with dropout and no key.
        """
        key = training_key(key, train=train, rate=self.dropout, module="ClassificationHead")
        x = pooled.astype(jnp.float32)
        if self.hidden is not None and isinstance(self.norm, BatchNorm):
            x = self.hidden(dropout(x, rate=self.dropout, key=fold(key, 0)))
            # The layer normalises maps [B, H, W, C]: a vector is a map of one pixel.
            x = jax.nn.relu(self.norm(x[:, None, None, :], train=train)[:, 0, 0, :])
        elif isinstance(self.norm, LayerNorm):
            x = self.norm(x)
        return self.classifier(dropout(x, rate=self.dropout, key=fold(key, 1)))


def linear_without_bias(features: int, width: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Creates a linear map without bias, float32, initialised as `torch.nn.Linear`."""
    return nnx.Linear(
        features,
        width,
        use_bias=False,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        kernel_init=torch_uniform,
        rngs=rngs,
    )
