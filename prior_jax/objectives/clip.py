"""The CLIP objective: symmetric contrast of the batch with a learned temperature."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.log_scale import clamp_from_above, log_scale
from prior_jax.objectives.two_tower import TwoTowerConfig, TwoTowerModel, TwoTowerObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig(TwoTowerConfig):
    """CLIP, the section `config.model`.

    Attributes:
      temperature: of the contrast at the start, then learned; paper 0.07.
    """

    temperature: float

    def __post_init__(self):
        """Refuses values that do not fit together."""
        super().__post_init__()
        self.check_positive("temperature")


class ClipModel(TwoTowerModel):
    """Two towers and the logarithm of the inverse temperature."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        """Creates the towers and `logit_scale`, float32[]; arguments as `TwoTowerModel`."""
        super().__init__(config, rngs=rngs)
        self.logit_scale = log_scale(config.temperature)


class ClipObjective(TwoTowerObjective):
    """CLIP, arXiv:2103.00020, section 2.

    Differs: BERT in place of a causal transformer, so a report's vector is [CLS]'s or a pool over
    tokens, not the last token's; images are not cropped at random.
    """

    config: ClipConfig

    def init(self, rngs: nnx.Rngs) -> ClipModel:
        """Builds the model with fresh parameters."""
        return ClipModel(self.config, rngs=rngs)

    def scale(self, model: ClipModel) -> jax.Array:
        """Inverse temperature, learned, at most 100: float32[]."""
        return jnp.exp(clamp_from_above(model.logit_scale[...]))

    def contrast(
        self, model: ClipModel, image: jax.Array, text: jax.Array, *, weight: jax.Array
    ) -> jax.Array:
        """The mean of both directions of InfoNCE."""
        return self.all_pairs.paired_contrastive(
            image, text, scale=self.scale(model), weight=weight
        )
