"""The ConVIRT objective: a contrastive loss that weighs the image-to-report direction more."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_field
from prior_jax.objectives.two_tower import TwoTowerConfig, TwoTowerModel, TwoTowerObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvirtConfig(TwoTowerConfig):
    """Configuration of ConVIRT, the section `config.model`.

    Attributes:
      temperature: fixed temperature of the contrastive loss; paper 0.1 (tau).
      image_share: weight of the direction from image to report; paper 0.75 (lambda).
    """

    temperature: float
    image_share: float

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        super().__post_init__()
        self.check_positive("temperature")
        check_field(self, "image_share", 0 <= self.image_share <= 1, "a share from 0 to 1")


class ConvirtObjective(TwoTowerObjective):
    """The objective of ConVIRT, arXiv:2010.00747, section 2.

    Differs: the paper draws one sentence of the report for each view of the image (here
    `config.data.caption`), and crops, flips, jitters and blurs the image, of which the data
    pipeline implements rotation and flip; the paper freezes BERT's embeddings and first six layers.
    """

    config: ConvirtConfig

    def init(self, rngs: nnx.Rngs) -> TwoTowerModel:
        """Builds the model with fresh parameters."""
        return TwoTowerModel(self.config, rngs=rngs)

    def scale(self, model: TwoTowerModel) -> jax.Array:
        """Returns the constant inverse temperature: float32[]."""
        del model
        return jnp.float32(1 / self.config.temperature)

    def contrast(
        self, model: TwoTowerModel, image: jax.Array, text: jax.Array, *, weight: jax.Array
    ) -> jax.Array:
        """Computes both directions of InfoNCE, the image's weighted by `image_share`."""
        share = self.config.image_share
        return self.all_pairs.paired_contrastive(
            image, text, scale=self.scale(model), weight=weight, image_share=share
        )
