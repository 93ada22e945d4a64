"""Supervised segmentation of findings: an encoder, frozen or fine-tuned, under a decoder."""

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses.classification import log_odds
from prior_jax.losses.segmentation import dice_of_batch, mixed, softmax_cross_entropy
from prior_jax.nn.resnet import ImageEncoder
from prior_jax.nn.unet import LinearDecoder, UNetDecoder
from prior_jax.nn.upernet import UPerNetDecoder
from prior_jax.objectives.on_images import OnImages
from prior_jax.objectives.segmentation_config import SegmentationConfig
from prior_jax.types import Batch, LossTerms

TERM, AUXILIARY = "segmentation", "auxiliary"


class SegmentationModel(nnx.Module):
    """The image encoder of the other objectives, and a decoder on its maps."""

    def __init__(self, config: SegmentationConfig, *, frozen: bool = False, rngs: nnx.Rngs):
        """Creates the encoder and the decoder.

        Args:
          config: configuration with the sizes.
          frozen: whether no gradient ever reaches the encoder, whose batch normalisation then keeps
            its statistics. The objective freezes it by its stage instead.
          rngs: source of the initial parameters.
        """
        dtype, resnet = jnp.dtype(config.dtype), config.image.resnet
        self.image_encoder = ImageEncoder(config.image, dtype=dtype, rngs=rngs)
        self.frozen = frozen
        kind, classes = config.decoder.kind, config.logits
        if kind == "linear":
            self.decoder = LinearDecoder(
                features=resnet.features, classes=classes, dtype=dtype, rngs=rngs
            )
        elif kind == "upernet":
            self.decoder = UPerNetDecoder(
                config.decoder.upernet(), resnet=resnet, classes=classes, dtype=dtype, rngs=rngs
            )
        else:
            self.decoder = UNetDecoder(
                config.decoder.unet(), resnet=resnet, classes=classes, dtype=dtype, rngs=rngs
            )

    def __call__(
        self,
        image: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
        train_encoder: bool | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Predicts masks.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether the decoder is in training mode.
          key: random key of the decoder's dropout.
          train_encoder: whether the encoder is in training mode; by default as the decoder.

        Returns:
          Logits, float32[B, H, W, L], and those of an auxiliary head, None for none.
        """
        gathers = train if train_encoder is None else train_encoder
        _, maps = self.image_encoder.resnet(image, train=gathers and not self.frozen)
        if self.frozen:
            maps = jax.lax.stop_gradient(maps)
        size = image.shape[1], image.shape[2]
        if isinstance(self.decoder, LinearDecoder):
            return self.decoder(maps[-1], size=size), None
        if isinstance(self.decoder, UPerNetDecoder):
            return self.decoder(maps, size=size, train=train, key=key)
        logits, _ = self.decoder(image, maps, train=train)
        return logits, None


class SegmentationObjective(OnImages):
    """Masks of findings, with the encoder frozen (stage "frozen") or trained (stage "finetune").

    A run has one of the stages or both, e.g. some steps of the decoder alone before the encoder is
    released. Implements `objectives.base.TrainObjective`, `HasRates` and `Segments`, and of
    `Objective` the images; it reads no reports.

    Source: GLoRIA's release, gloria/lightning/segmentation_model.py; LoVT's release,
    src/models/downstream/segmentation.py; MGCA's release, mgca/models/ssl_segmenter.py; BenchX's
    release, preprocess/mmsegmentation.
    """

    model_noun = "A segmentation model"

    def __init__(self, config: SegmentationConfig):
        """Keeps the configuration.

        Args:
          config: configuration, the section `config.model`.
        """
        super().__init__(config)
        self.config = config

    def init(self, rngs: nnx.Rngs) -> SegmentationModel:
        """Builds the model with fresh parameters."""
        return SegmentationModel(self.config, rngs=rngs)

    def loss_terms(
        self,
        model: SegmentationModel,
        batch: Batch,
        *,
        stage: str,
        step: jax.Array,
        key: jax.Array | None,
        train: bool = True,
    ) -> LossTerms:
        """Computes the terms of a global batch; see `objectives.base.TrainObjective`."""
        del step
        truth = masks_of(batch).astype(jnp.float32)
        gathers = train and self.gathers(stage)
        logits, beside = model(batch.image, train=train, key=key, train_encoder=gathers)
        terms = {TERM: self._loss(logits, truth, weight=batch.weight)}
        if beside is not None:
            terms[AUXILIARY] = self._loss(beside, truth, weight=batch.weight)
        return LossTerms(terms=terms, metrics={})

    def _loss(self, logits: jax.Array, truth: jax.Array, *, weight: jax.Array) -> jax.Array:
        functions = {"mixed": mixed, "dice": dice_of_batch, "cross_entropy": softmax_cross_entropy}
        return functions[self.config.loss](logits, truth, weight=weight)

    def weights(self, stage: str) -> dict[str, float]:
        """Returns the weights of the terms."""
        self.check_stage(stage)
        auxiliary = self.config.decoder.auxiliary_weight
        return {TERM: 1.0, AUXILIARY: auxiliary} if auxiliary else {TERM: 1.0}

    def segment(self, model: SegmentationModel, image: jax.Array) -> jax.Array:
        """Returns the log-odds of each class at each pixel, in inference mode.

        Args:
          model: model that `init` built.
          image: normalised images, float32[B, H, W, C].

        Returns:
          float32[B, H, W, K], whose sigmoid is a probability. With exclusive classes it is the odds
          against all others, whose sigmoid is the softmax.
        """
        logits, _ = model(image, train=False)
        if not self.config.exclusive:
            return logits
        flat = log_odds(logits.reshape(-1, logits.shape[-1]))
        return flat.reshape(logits.shape)[..., 1:]


def masks_of(batch: Batch) -> jax.Array:
    """Returns the true masks of a batch, bool[B, H, W, K].

    Raises:
      ConfigError: if none are read.
    """
    if batch.masks is None:
        raise ConfigError(
            "The batch has no masks, from which segmentation is learnt.",
            "Read them with the section config.data.regions.",
            where="config.data.regions",
        )
    return batch.masks
