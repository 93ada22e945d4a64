"""A linear classifier on top of a pre-trained image encoder."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import torch_linear


class ImageClassifier(nnx.Module):
    """The encoder's pooled vector, before any projection, and one linear map.

    Source: GLoRIA's release, gloria/models/vision_model.py, `PretrainedImageClassifier`, whose
    encoder is `RegionEncoder` with its enlargement to 299 pixels (quirk G60); without a
    pre-trained model the release trains a plain ResNet at its input size, which is the same
    encoder with `upsample=None`, not frozen.
    """

    def __init__(
        self,
        encoder: nnx.Module,
        pool: Callable[..., jax.Array],
        *,
        features: int,
        classes: int,
        frozen: bool,
        drifting_statistics: bool = False,
        rngs: nnx.Rngs,
    ):
        """Wraps the encoder and creates the linear map, in float32.

        Args:
          encoder: the pre-trained encoder; it becomes part of this module.
          pool: `pool(encoder, image, train=...)` gives the vector [B, features] of each image.
          features: size of that vector; ResNet-50 2048.
          classes: labels to tell, each on its own.
          frozen: whether no gradient reaches the encoder, whose batch norm then also keeps the
            statistics of pre-training.
          drifting_statistics: whether, as in the release, a frozen encoder is normalised by the
            batch's statistics in training, and gathers them (quirk G59).
          rngs: source of the initial parameters.
        """
        self.encoder = encoder
        self.classifier = torch_linear(features, classes, dtype=jnp.float32, rngs=rngs)
        self.pool = pool
        self.frozen = frozen
        self.drifting_statistics = drifting_statistics

    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Classifies images.

        Args:
          image: float32[B, H, W, C], normalised.
          train: whether this is training.

        Returns:
          float32[B, classes], logits.
        """
        gathers = train and (self.drifting_statistics or not self.frozen)
        pooled = self.pool(self.encoder, image, train=gathers)
        if self.frozen:
            pooled = jax.lax.stop_gradient(pooled)
        return self.classifier(pooled.astype(jnp.float32))
