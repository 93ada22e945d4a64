"""Classifiers of images: a trained one, or a new head on a pre-trained encoder."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx

from prior_jax.data import image as image_lib
from prior_jax.interface import inputs
from prior_jax.interface.image_model import (
    check_classes,
    check_source,
    in_blocks,
    objective_of,
    open_encoder,
    open_image_model,
)
from prior_jax.interface.inputs import ImageSource, ProcessedImages
from prior_jax.nn.classifier import ImageClassifier
from prior_jax.objectives.image_tower import pooled_of

KIND = "classification"
_BLOCK = 64


class Classifier:
    """Images in, log-odds of classes out.

    Attributes:
      module: module with the encoder and the head, to be trained further: a call
        `module(image, train=...)` on normalised images float32[B, H, W, C] gives logits.
      classes: names of the classes; their numbers if the head is new.
      image: settings of the images: size, channels and, unless unknown, mean and std.
    """

    def __init__(
        self,
        module: nnx.Module,
        *,
        classes: tuple[str, ...],
        image: image_lib.ImageConfig,
        odds: Callable[[Any, jax.Array], jax.Array],
    ):
        """Combines the parts; nothing is compiled before its first use.

        Args:
          module: module with the encoder and the head.
          classes: names of the classes.
          image: settings of the images.
          odds: function (module, images) -> log-odds of the classes, float32[B, K].
        """
        self.module, self.classes, self.image = module, classes, image
        # Flax gives the devices among the options of `jit` no types.
        self._odds = nnx.jit(odds)  # pyright: ignore[reportUnknownMemberType]

    def process_images(self, images: ImageSource | Iterable[ImageSource]) -> ProcessedImages:
        """Reads, resizes and normalises images as evaluation does; see `Model.process_images`."""
        return inputs.process_images(images, config=self.image)

    def log_odds(self, images: ImageSource | Iterable[ImageSource] | ProcessedImages) -> np.ndarray:
        """Scores images.

        Args:
          images: images in any form that `process_images` takes, or processed ones.

        Returns:
          Log-odds of the classes, float32[N, K].

        Raises:
          DataError: if an image cannot be read.
          ConfigError: if the mean and std of the images are unknown.
        """
        if not isinstance(images, ProcessedImages):
            images = self.process_images(images)
        parts = in_blocks(self._odds, self.module, images.pixels, block=_BLOCK)
        return np.concatenate(parts)

    def predict(self, images: ImageSource | Iterable[ImageSource] | ProcessedImages) -> np.ndarray:
        """Returns the probabilities of the classes, float32[N, K]; see `log_odds`."""
        return np.asarray(jax.nn.sigmoid(self.log_odds(images)))


def load_classifier(
    source: str | os.PathLike[str],
    num_classes: int | None = None,
    *,
    freeze_encoder: bool = True,
    seed: int = 0,
    step: int | None = None,
) -> Classifier:
    """Loads a trained classifier, or puts a new linear head on a pre-trained image encoder.

    Args:
      source: folder of a run of `launch.train`, of any objective; or the folder
        `finetune/<result>/model` of a training of the evaluation task "finetune"; or a folder of
        weights that `launch.import_weights` or `launch.export --format=nnx` wrote: of an image
        encoder or of a whole model, of which the image encoder is used.
      num_classes: number of classes of the new head; None for the head that a run of the objective
        "classification" has trained.
      freeze_encoder: whether no gradient reaches the encoder under a new head; its batch
        normalisation then keeps the statistics of pre-training as well.
      seed: seed of the new head.
      step: step of the checkpoint. None is, for a training of the task "finetune", the checkpoint
        that its results were measured on, the best on the validation split (`trained_step` in the
        results file). For a run of `launch.train` None is the newest intact checkpoint, also if the
        run keeps its best ones: `launch.evaluate` measures the newest of it as well.

    Returns:
      The classifier.

    Raises:
      DataError, ConfigError, CheckpointError, WeightsError: as `load` raises them; also if the
        source is not the folder of a model, or if `num_classes` is no number of classes, or None
        and the source has no trained head; the message names the fine-tuned models in the folder.

    Source: GLoRIA's release, gloria/gloria.py, `load_img_classification_model(name, device,
    num_cls, freeze_encoder)`, whose encoder stays in training mode (quirk G59).
    """
    folder = pathlib.Path(source)
    check_classes(num_classes)
    check_source(folder, num_classes, kind=KIND, head="head")
    if num_classes is None:
        return _trained(folder, step=step)
    pooled = _pooled_encoder(folder, step=step)
    head = _new_head(pooled, num_classes, frozen=freeze_encoder, seed=seed)
    names = tuple(str(number) for number in range(num_classes))
    return Classifier(head, classes=names, image=pooled.image, odds=_logits)


def _trained(folder: pathlib.Path, *, step: int | None) -> Classifier:
    """Opens a classifier with its trained head."""
    model = open_image_model(folder, step=step)
    objective: Any = model.objective
    return Classifier(
        model.module, classes=objective.classes, image=model.image, odds=objective.classify
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PooledEncoder:
    """An image encoder without a head.

    Attributes:
      encoder: module of the encoder.
      pool: function (encoder, images, train=...) -> pooled vectors, float32[B, F].
      features: number F of features of a vector.
      image: settings of the images.
    """

    encoder: Any
    pool: Callable[..., jax.Array]
    features: int
    image: image_lib.ImageConfig


def _pooled_encoder(folder: pathlib.Path, *, step: int | None) -> _PooledEncoder:
    """Opens the image encoder of a model; of a trained classifier, the classifier but its head."""
    if objective_of(folder) != KIND:
        encoder, image, features = open_encoder(folder, step=step)
        return _PooledEncoder(encoder=encoder, pool=_pooled, features=features, image=image)
    model = open_image_model(folder, step=step)
    objective: Any = model.objective
    return _PooledEncoder(
        encoder=model.module,
        pool=_without_head,
        features=objective.config.image.resnet.features,
        image=model.image,
    )


def _new_head(
    pooled: _PooledEncoder, num_classes: int, *, frozen: bool, seed: int
) -> ImageClassifier:
    """Puts a new linear head on an encoder."""
    return ImageClassifier(
        pooled.encoder,
        pooled.pool,
        features=pooled.features,
        classes=num_classes,
        frozen=frozen,
        rngs=nnx.Rngs(seed),
    )


def _logits(module: ImageClassifier, image: jax.Array) -> jax.Array:
    return module(image, train=False)


def _without_head(module: Any, image: jax.Array, *, train: bool) -> jax.Array:
    return module.pooled(image, train=train)


def _pooled(encoder: Any, image: jax.Array, *, train: bool) -> jax.Array:
    """Returns the pooled vectors of either kind of image encoder."""
    return pooled_of(encoder(image, train=train))
