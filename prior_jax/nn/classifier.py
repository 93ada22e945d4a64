"""A linear classifier on top of a pre-trained image encoder."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import torch_linear


class ImageClassifier(nnx.Module):
    """A linear map on the pooled output of an image encoder, before any projection.

    Source: GLoRIA's release, gloria/models/vision_model.py, `PretrainedImageClassifier`, whose
    encoder is `RegionEncoder` with its enlargement to 299 pixels (quirk G60). Without a pre-trained
    model the release trains a plain ResNet at its input size, which is the same encoder with
    `upsample=None`, not frozen.
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
          encoder: pre-trained encoder, which becomes part of this module.
          pool: function `pool(encoder, image, train=...)` that gives the vector [B, features] of
            each image.
          features: size of the pooled vector; ResNet-50 2048.
          classes: number of labels, each classified independently.
          frozen: whether no gradient reaches the encoder; its batch normalisation then also keeps
            the statistics of pre-training.
          drifting_statistics: whether, as in the release, a frozen encoder is normalised by the
            batch's statistics in training and updates its running ones (quirk G59).
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
          image: normalised images, float32[B, H, W, C].
          train: whether the module is in training mode.

        Returns:
          Logits, float32[B, classes].
        """
        gathers = train and (self.drifting_statistics or not self.frozen)
        pooled = self.pool(self.encoder, image, train=gathers)
        if self.frozen:
            pooled = jax.lax.stop_gradient(pooled)
        return self.classifier(pooled.astype(jnp.float32))
