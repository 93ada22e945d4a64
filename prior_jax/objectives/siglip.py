"""The SigLIP objective: a sigmoid loss that classifies every pair of the batch separately."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_field
from prior_jax.losses.limits import LARGEST
from prior_jax.nn.log_scale import log_scale
from prior_jax.objectives.two_tower import TwoTowerConfig, TwoTowerModel, TwoTowerObjective
from prior_jax.types import ImageFeatures, ReportFeatures


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiglipConfig(TwoTowerConfig):
    """Configuration of SigLIP, the section `config.model`.

    Attributes:
      temperature: initial temperature of the logits, which is then learned; paper 0.1.
      bias: initial bias of the logits, which is then learned; paper -10.
    """

    temperature: float
    bias: float

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        super().__post_init__()
        self.check_positive("temperature")
        fits = abs(self.bias) <= LARGEST
        check_field(self, "bias", fits, f"a number from {-LARGEST:g} to {LARGEST:g}")


class SiglipModel(TwoTowerModel):
    """Two encoders with heads, the logarithm of the inverse temperature, and the bias."""

    def __init__(self, config: SiglipConfig, *, rngs: nnx.Rngs):
        """Creates the encoders, `logit_scale` and `logit_bias`, float32[] each."""
        super().__init__(config, rngs=rngs)
        self.logit_scale = log_scale(config.temperature)
        self.logit_bias = nnx.Param(jnp.full((), config.bias, jnp.float32))


class SiglipObjective(TwoTowerObjective):
    """The objective of SigLIP, arXiv:2303.15343, section 3.2.

    Differs: ResNet and BERT replace the vision and text transformers.
    """

    config: SiglipConfig

    def init(self, rngs: nnx.Rngs) -> SiglipModel:
        """Builds the model with fresh parameters."""
        return SiglipModel(self.config, rngs=rngs)

    def scale(self, model: SiglipModel) -> jax.Array:
        """Returns the learned inverse temperature, which has no limit: float32[]."""
        return jnp.exp(model.logit_scale[...])

    def metrics(self, model: SiglipModel) -> dict[str, jax.Array]:
        """Returns the learned scale and bias."""
        return {**super().metrics(model), "logit_bias": model.logit_bias[...]}

    def contrast(
        self, model: SiglipModel, image: jax.Array, text: jax.Array, *, weight: jax.Array
    ) -> jax.Array:
        """Computes the sigmoid loss."""
        bias = model.logit_bias[...]
        return self.all_pairs.paired_sigmoid(
            image, text, scale=self.scale(model), bias=bias, weight=weight
        )

    def similarity(
        self, model: SiglipModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns the logit of each pair, float32[Bi, Br]; its sigmoid is the probability."""
        return super().similarity(model, images, reports) + model.logit_bias[...]
