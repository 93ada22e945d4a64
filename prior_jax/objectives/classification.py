"""Supervised classification of images: an encoder, frozen or fine-tuned, under a small head."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses.classification import binary_losses, exclusive_loss, log_odds
from prior_jax.near_names import check_classes
from prior_jax.nn.classification_head import ClassificationHead, HeadConfig
from prior_jax.nn.layers import resize_align_corners
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig
from prior_jax.objectives.label_targets import (
    POLICIES,
    LabelTargets,
    columns_of,
    one_class,
    policies_of,
)
from prior_jax.objectives.on_images import ENCODER, OnImages, pooled_alone
from prior_jax.objectives.two_tower import ComputeDtype
from prior_jax.types import Batch, ImageFeatures, LossTerms

TERM = "classification"
ClassLoss = Literal["binary", "exclusive"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """Configuration of the objective "classification", the section `config.model`.

    Attributes:
      dtype: dtype of the encoder's computation; parameters, head and losses are float32.
      image: configuration of the image encoder, as for the other objectives.
      upsample: side in pixels to which the images are first resized, with corners aligned; the
        pre-trained classifiers of GLoRIA (quirk G60) and MGCA have 299, None does not resize them.
      head: shape of the head.
      classes: names of the classes, each the name of a label of the set, in the order of the
        logits.
      loss: "binary" asks about each class by itself (binary cross-entropy); "exclusive" expects
        exactly one of them to hold (softmax and cross-entropy), and leaves out rows where none or
        several do. A single class with "exclusive" has two logits, absent and present (BenchX:
        RSNA, SIIM, COVIDx).
      uncertain: what an uncertain label counts as: "positive", "negative", or "ignore" to leave it
        out of the loss; one for all classes, or one by the name of each class. CheXpert's five
        competition classes as GLoRIA and MGCA read them: positive for Atelectasis, Edema and
        Pleural Effusion, negative for Cardiomegaly and Consolidation.
      not_mentioned: the same for a label that is not mentioned; "negative" in every release.
      encoder_rate: factor on the learning rate of the encoder, BenchX 0.1 (`lr_multiplier_ve`); 1
        for the rate of the head.
      layer_decay: factor on the learning rate for each step from the head to the stem: the last
        stage of the ResNet (and its pool) has this factor, the one before it the square, and so on;
        None for one rate. BEiT, arXiv:2106.08254, appendix H; MRM has 0.65 and MaCo 0.7 on their
        transformers.
      drifting_statistics: whether the encoder's batch normalisation stays in training mode while
        the encoder is frozen, so that its statistics drift (GLoRIA's release, quirk G59). MGCA's
        release keeps them as they are in classification.
    """

    dtype: ComputeDtype
    image: ImageEncoderConfig
    upsample: int | None
    head: HeadConfig
    classes: tuple[str, ...]
    loss: ClassLoss
    uncertain: str | Mapping[str, str]
    not_mentioned: str
    encoder_rate: float
    layer_decay: float | None
    drifting_statistics: bool

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        for name, kind in (("dtype", ComputeDtype), ("loss", ClassLoss)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError.of_value(name, getattr(self, name), f"one of {get_args(kind)}")
        if self.upsample is not None and (self.upsample < 1 or self.image.pool == "attention"):
            raise ConfigError.of_value(
                "upsample", self.upsample, "None, or with image.pool 'mean' a number of pixels"
            )
        check_classes(self.classes, where="classes")
        policies_of(self.uncertain, self.classes)
        if self.not_mentioned not in POLICIES:
            raise ConfigError.of_value("not_mentioned", self.not_mentioned, f"one of {POLICIES}")
        if not self.encoder_rate > 0:
            raise ConfigError.of_value("encoder_rate", self.encoder_rate, "a number above 0")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ConfigError.of_value(
                "layer_decay", self.layer_decay, "above 0 and at most 1, or None"
            )

    @property
    def logits(self) -> int:
        """Returns the number of logits: one for each class, two for a single exclusive class."""
        return 2 if self.loss == "exclusive" and len(self.classes) == 1 else len(self.classes)


class ClassificationModel(nnx.Module):
    """The image encoder of the other objectives, and a head on its pooled vector."""

    def __init__(self, config: ClassificationConfig, *, rngs: nnx.Rngs):
        """Creates the encoder and the head.

        Args:
          config: configuration with the sizes.
          rngs: source of the initial parameters.
        """
        self.image_encoder = ImageEncoder(config.image, dtype=jnp.dtype(config.dtype), rngs=rngs)
        self.head = ClassificationHead(
            config.head, features=config.image.resnet.features, logits=config.logits, rngs=rngs
        )
        self.upsample = config.upsample

    def pooled(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Returns the encoder's pooled vectors [B, F] of images float32[B, H, W, C]."""
        if self.upsample is not None:
            image = resize_align_corners(image, size=(self.upsample, self.upsample))
        _, pooled = self.image_encoder(image, train=train)
        return pooled

    def __call__(
        self,
        image: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
        train_encoder: bool | None = None,
    ) -> jax.Array:
        """Classifies images.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether the head is in training mode.
          key: random key of the head's dropout.
          train_encoder: whether the encoder is in training mode; by default as the head.

        Returns:
          Logits, float32[B, L].
        """
        pooled = self.pooled(image, train=train if train_encoder is None else train_encoder)
        return self.head(pooled, train=train, key=key)


class ClassificationObjective(OnImages):
    """Labels of images, with the encoder frozen (stage "frozen") or trained (stage "finetune").

    A run has one of the stages or both, e.g. some steps of the head alone before the encoder is
    released. Implements `objectives.base.TrainObjective`, `HasRates` and `Classifies`, and of
    `Objective` the images; it reads no reports.
    """

    model_noun = "A classifier"

    def __init__(self, config: ClassificationConfig, *, labels: tuple[str, ...] = ()):
        """Finds the classes among the labels.

        Args:
          config: configuration, the section `config.model`.
          labels: names of the labels of the set, in the order of `Batch.labels`; () for a model
            that sees no labels.

        Raises:
          ConfigError: for a class that the set does not have.
        """
        super().__init__(config)
        self.config = config
        self._targets = None
        if labels:
            self._targets = LabelTargets(
                columns=columns_of(config.classes, labels),
                uncertain=policies_of(config.uncertain, config.classes),
                not_mentioned=config.not_mentioned,
            )

    def init(self, rngs: nnx.Rngs) -> ClassificationModel:
        """Builds the model with fresh parameters."""
        return ClassificationModel(self.config, rngs=rngs)

    def targets(self, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns targets and the mask of the known ones, float32[B, K] each.

        Args:
          labels: labels of the set, int8[B, C].
        """
        if self._targets is None:
            raise ConfigError(
                "The objective was built without the labels of a set.",
                "Name them where it is built.",
                where="labels",
            )
        return self._targets(labels)

    def loss_terms(
        self,
        model: ClassificationModel,
        batch: Batch,
        *,
        stage: str,
        step: jax.Array,
        key: jax.Array | None,
        train: bool = True,
    ) -> LossTerms:
        """Computes the one term of a global batch; see `objectives.base.TrainObjective`."""
        del step
        gathers = train and self.gathers(stage)
        logits = model(batch.image, train=train, key=key, train_encoder=gathers)
        target, known = self.targets(batch.labels)
        if self.config.loss == "binary":
            loss = binary_losses(logits, target, known=known, weight=batch.weight)
        else:
            index, single = one_class(target, known)
            loss = exclusive_loss(logits, index, known=single, weight=batch.weight)
        return LossTerms(terms={TERM: loss}, metrics={})

    def weights(self, stage: str) -> dict[str, float]:
        """Returns the weight of the one term."""
        self.check_stage(stage)
        return {TERM: 1.0}

    def rate(self, stage: str, path: tuple[str, ...]) -> float:
        """Returns the factor on the learning rate of the parameter at `path`."""
        rate = super().rate(stage, path)
        if path[0] != ENCODER or self.config.layer_decay is None:
            return rate
        return rate * self.config.layer_decay ** self._steps_to_head(path)

    def _steps_to_head(self, path: tuple[str, ...]) -> int:
        """Returns how many layers lie between a parameter of the encoder and the head, plus 1."""
        last = len(self.config.image.resnet.depths)
        if path[1:3] == ("resnet", "stages"):
            return last - int(path[3].removeprefix("stage")) + 1
        return last + 1 if path[1] == "resnet" else 1  # the stem; the pool

    def classify(self, model: ClassificationModel, image: jax.Array) -> jax.Array:
        """Returns the log-odds of each class, in inference mode; their sigmoid is a probability.

        Args:
          model: model that `init` built.
          image: normalised images, float32[B, H, W, C].

        Returns:
          float32[B, K]. With exclusive classes it is the odds against all others, whose sigmoid is
          the softmax.
        """
        logits = model(image, train=False)
        if self.config.loss == "binary":
            return logits
        odds = log_odds(logits)
        return odds[:, 1:] if len(self.classes) == 1 else odds

    def encode_image(self, model: ClassificationModel, image: jax.Array) -> ImageFeatures:
        """Returns the encoder's pooled vectors of images, in inference mode, without patches."""
        return pooled_alone(model.pooled(image, train=False))
