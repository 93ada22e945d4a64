"""The CLIP objective: a symmetric contrastive loss over the batch with a learned temperature."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.log_scale import check_learned_temperatures, clamp_from_above, log_scale
from prior_jax.objectives.two_tower import TwoTowerConfig, TwoTowerModel, TwoTowerObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig(TwoTowerConfig):
    """Configuration of CLIP, the section `config.model`.

    Attributes:
      temperature: initial temperature of the contrastive loss, which is then learned; paper 0.07.
    """

    temperature: float

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        super().__post_init__()
        self.check_positive("temperature")
        check_learned_temperatures(self, "temperature")


class ClipModel(TwoTowerModel):
    """Two encoders with heads, and the logarithm of the inverse temperature."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        """Creates the encoders and `logit_scale`, float32[]; for arguments see `TwoTowerModel`."""
        super().__init__(config, rngs=rngs)
        self.logit_scale = log_scale(config.temperature)


class ClipObjective(TwoTowerObjective):
    """The objective of CLIP, arXiv:2103.00020, section 2.

    Differs: BERT replaces the causal transformer, so the embedding of a report is that of [CLS] or
    a pool over tokens, not that of the last token; images are not cropped at random.
    """

    config: ClipConfig

    def init(self, rngs: nnx.Rngs) -> ClipModel:
        """Builds the model with fresh parameters."""
        return ClipModel(self.config, rngs=rngs)

    def scale(self, model: ClipModel) -> jax.Array:
        """Returns the learned inverse temperature, at most 100: float32[]."""
        return jnp.exp(clamp_from_above(model.logit_scale[...]))

    def contrast(
        self, model: ClipModel, image: jax.Array, text: jax.Array, *, weight: jax.Array
    ) -> jax.Array:
        """Computes the mean of both directions of InfoNCE."""
        return self.all_pairs.paired_contrastive(
            image, text, scale=self.scale(model), weight=weight
        )
