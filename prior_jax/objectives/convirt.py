"""The ConVIRT objective: image and report find each other, the image's choice weighs more."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.objectives.two_tower import TwoTowerConfig, TwoTowerModel, TwoTowerObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvirtConfig(TwoTowerConfig):
    """ConVIRT, the section `config.model`.

    Attributes:
      temperature: of the contrast, fixed; paper 0.1 (tau).
      image_share: share of the direction from image to report; paper 0.75 (lambda).
    """

    temperature: float
    image_share: float

    def __post_init__(self):
        """Refuses values that do not fit together."""
        super().__post_init__()
        self.check_positive("temperature")
        self.check("image_share", 0 <= self.image_share <= 1, "a share, 0 to 1")


class ConvirtObjective(TwoTowerObjective):
    """ConVIRT, arXiv:2010.00747, section 2.

    Differs: the paper draws one sentence of the report for each view of the image (here
    `config.data.caption`), and crops, flips, jitters and blurs the image, of which the data
    pipeline has rotation and flip; it freezes BERT's embeddings and first six layers.
    """

    config: ConvirtConfig

    def init(self, rngs: nnx.Rngs) -> TwoTowerModel:
        """Builds the model with fresh parameters."""
        return TwoTowerModel(self.config, rngs=rngs)

    def scale(self, model: TwoTowerModel) -> jax.Array:
        """Inverse temperature, a constant: float32[]."""
        del model
        return jnp.float32(1 / self.config.temperature)

    def contrast(
        self, model: TwoTowerModel, image: jax.Array, text: jax.Array, *, weight: jax.Array
    ) -> jax.Array:
        """Both directions of InfoNCE, the image's with `image_share`."""
        share = self.config.image_share
        return self.all_pairs.paired_contrastive(
            image, text, scale=self.scale(model), weight=weight, image_share=share
        )
