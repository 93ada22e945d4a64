"""Supervised detection of findings: an encoder, frozen or fine-tuned, under YOLOv3's head."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError, check_choice, check_field
from prior_jax.losses import yolo
from prior_jax.near_names import check_classes
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig
from prior_jax.nn.yolo_head import SCALES, YoloConfig, YoloHead, decode
from prior_jax.objectives import boxes
from prior_jax.objectives.on_images import OnImages
from prior_jax.objectives.two_tower import ComputeDtype
from prior_jax.types import Batch, Detections, LossTerms


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """Configuration of the objective "detection", the section `config.model`.

    Attributes:
      dtype: dtype of the computation of encoder and head; parameters, raw outputs and losses are
        float32.
      image: configuration of the image encoder, as for the other objectives, with the pool "mean"
        and three stages or more.
      head: shape of the head.
      loss: weights and rules of the loss.
      post: rules by which the predicted boxes are chosen.
      classes: names of the classes, each the label of regions of the set, or one name for all
        labels of `config.data.regions.any_of`.
      encoder_rate: factor on the learning rate of the encoder; 1 for the rate of the head, as in
        LoVT's release.
      drifting_statistics: whether the encoder's batch normalisation stays in training mode while
        the encoder is frozen, so that its statistics drift (MGCA's release, quirk M31). LoVT's
        release keeps them as they are.
    """

    dtype: ComputeDtype
    image: ImageEncoderConfig
    head: YoloConfig
    loss: yolo.YoloLossConfig
    post: boxes.PostConfig
    classes: tuple[str, ...]
    encoder_rate: float
    drifting_statistics: bool

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        check_choice(self, "dtype", get_args(ComputeDtype))
        resnet = self.image.resnet
        mean = self.image.pool == "mean"
        if not mean:
            raise ConfigError.of_value("image.pool", self.image.pool, "'mean'")
        if len(resnet.depths) < SCALES:
            raise ConfigError.of_value(
                "image.resnet.depths", resnet.depths, f"{SCALES} or more numbers, one a stage"
            )
        if self.image.image_size % resnet.stride:
            raise ConfigError.of_value(
                "image.image_size",
                self.image.image_size,
                f"a multiple of {resnet.stride}, the pixels of a cell of the encoder's last map",
            )
        if self.head.width_on(resnet.features) % 4 or resnet.features < 16:
            raise ConfigError.of_value(
                "head.width",
                self.head.width,
                f"a multiple of 4, for a quarter of the encoder's {resnet.features} channels is "
                "none",
            )
        check_classes(self.classes, where="classes")
        check_field(self, "encoder_rate", self.encoder_rate > 0, "a number above 0")


class DetectionModel(nnx.Module):
    """The image encoder of the other objectives, and YOLOv3's head on its last three maps."""

    def __init__(self, config: DetectionConfig, *, frozen: bool = False, rngs: nnx.Rngs):
        """Creates the encoder and the head.

        Args:
          config: configuration with the sizes.
          frozen: whether no gradient ever reaches the encoder, whose batch normalisation then keeps
            its statistics. The objective freezes it by its stage instead.
          rngs: source of the initial parameters.
        """
        dtype = jnp.dtype(config.dtype)
        self.frozen = frozen
        self.image_encoder = ImageEncoder(config.image, dtype=dtype, rngs=rngs)
        third, fourth, fifth = config.image.resnet.stage_features[-SCALES:]
        self.head = YoloHead(
            config.head,
            features=(third, fourth, fifth),
            classes=len(config.classes),
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self, image: jax.Array, *, train: bool, train_encoder: bool | None = None
    ) -> tuple[jax.Array, ...]:
        """Predicts raw numbers for each anchor of each cell.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether the head is in training mode.
          train_encoder: whether the encoder is in training mode; by default as the head.

        Returns:
          Output of `YoloHead`, from the coarse scale to the fine one.
        """
        gathers = train if train_encoder is None else train_encoder
        _, maps = self.image_encoder.resnet(image, train=gathers and not self.frozen)
        if self.frozen:
            maps = jax.lax.stop_gradient(maps)
        return self.head(maps[-SCALES:], train=train)


class DetectionObjective(OnImages):
    """Boxes of findings, with the encoder frozen (stage "frozen") or trained (stage "finetune").

    A run has one of the stages or both, e.g. some steps of the head alone before the encoder is
    released. Implements `objectives.base.TrainObjective`, `HasRates` and `Detects`, and of
    `Objective` the images; it reads no reports.

    Source: LoVT's release, src/models/downstream/detection.py; MGCA's release,
    mgca/models/ssl_detector.py.
    """

    model_noun = "A detector"

    def __init__(self, config: DetectionConfig):
        """Scales the anchors to the model's images.

        Args:
          config: configuration, the section `config.model`.
        """
        super().__init__(config)
        self.config = config
        self.anchors = config.head.scaled_anchors(config.image.image_size)

    def init(self, rngs: nnx.Rngs) -> DetectionModel:
        """Builds the model with fresh parameters."""
        return DetectionModel(self.config, rngs=rngs)

    def loss_terms(
        self,
        model: DetectionModel,
        batch: Batch,
        *,
        stage: str,
        step: jax.Array,
        key: jax.Array | None,
        train: bool = True,
    ) -> LossTerms:
        """Computes the terms of a global batch; see `objectives.base.TrainObjective`.

        They are those of `losses.yolo.total_terms`, which have their weights already.
        """
        del step, key
        truth = batch.boxes
        if truth is None:
            raise ConfigError(
                "The batch has no boxes, from which detection is learnt.",
                "Read them with the section config.data.regions.",
                where="config.data.regions",
            )
        terms = yolo.total_terms(
            model(batch.image, train=train, train_encoder=train and self.gathers(stage)),
            truth.corners,
            truth.real,
            truth.classes,
            weight=batch.weight,
            anchors=self.anchors,
            image_size=_size(batch.image),
            config=self.config.loss,
        )
        return LossTerms(terms=terms, metrics={})

    def weights(self, stage: str) -> dict[str, float]:
        """Returns the weight of each term: 1, for the terms have their weights already."""
        self.check_stage(stage)
        return dict.fromkeys(yolo.TERMS, 1.0)

    def detect(self, model: DetectionModel, image: jax.Array) -> Detections:
        """Finds boxes, in inference mode; see `objectives.boxes.chosen`.

        Args:
          model: model that `init` built.
          image: normalised images, float32[B, H, W, C].

        Returns:
          The boxes in pixels of these images. If `found` of an image is above their number, some
          were left out, which a caller must not pass over.
        """
        decoded = self.decoded(model, image)
        return boxes.chosen(decoded, image_size=_size(image), config=self.config.post)

    def decoded(self, model: DetectionModel, image: jax.Array) -> jax.Array:
        """Returns all boxes that the head predicts, in inference mode; see `yolo_head.decode`.

        Args:
          model: model that `init` built.
          image: normalised images, float32[B, H, W, C].

        Returns:
          float32[B, N, 5 + K]: centre, width and height in pixels, objectness, probabilities of the
          classes, none left out yet.
        """
        raw = model(image, train=False)
        return decode(raw, anchors=self.anchors, image_size=_size(image))


def _size(image: jax.Array) -> tuple[int, int]:
    """Returns the height and the width of images in pixels."""
    return image.shape[1], image.shape[2]
