"""Models that find masks: a trained one, or a new decoder on a pre-trained encoder."""

import dataclasses
import numbers
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, get_args

import jax
import numpy as np
from flax import nnx

from prior_jax.data.image import ImageConfig
from prior_jax.errors import ConfigError
from prior_jax.evaluate.features import not_finite
from prior_jax.interface import inputs
from prior_jax.interface.image_model import (
    ImageModel,
    check_classes,
    check_source,
    in_blocks,
    on_encoder,
    open_encoder,
    open_image_model,
)
from prior_jax.interface.inputs import ImageSource, ProcessedImages
from prior_jax.interface.original import values_on_original
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.objectives.base import Segments
from prior_jax.objectives.segmentation import SegmentationModel, SegmentationObjective
from prior_jax.objectives.segmentation_config import Decoder, DecoderConfig, SegmentationConfig

KIND = "segmentation"
_BLOCK = 8

# Sources: segmentation_models_pytorch 0.2.0, Unet; LoVT's release,
# src/models/image/resunet.py; mmsegmentation 1.2.2, configs/_base_/models/upernet_r50.py.
_CHANNELS: dict[Decoder, tuple[int, ...]] = {
    "unet": (256, 128, 64, 32, 16),
    "unet_transposed": (1024, 512, 256, 128, 64),
    "linear": (),
    "upernet": (512,),
}
_DROPOUT = {"upernet": 0.1}


class Segmenter:
    """Images in, masks of classes out, in the pixels of the images that are given.

    Attributes:
      module: module with the encoder and the decoder, to be trained further: a call
        `module(image, train=...)` on normalised images float32[B, H, W, C] gives logits
        float32[B, H, W, L] and those of an auxiliary head, None for none.
      classes: names of the K classes; their numbers if the decoder is new.
      image: settings of the images: size, channels, how they become a square and, unless unknown,
        mean and std.
    """

    def __init__(
        self,
        module: nnx.Module,
        *,
        classes: tuple[str, ...],
        image: ImageConfig,
        odds: Callable[[Any, jax.Array], jax.Array],
    ):
        """Combines the parts; nothing is compiled before its first use.

        Args:
          module: module with the encoder and the decoder.
          classes: names of the classes.
          image: settings of the images.
          odds: function (module, images) -> log-odds of the classes, float32[B, H, W, K].
        """
        self.module, self.classes, self.image = module, classes, image
        # Flax gives the devices among the options of `jit` no types.
        self._odds = nnx.jit(odds)  # pyright: ignore[reportUnknownMemberType]

    def process_images(self, images: ImageSource | Iterable[ImageSource]) -> ProcessedImages:
        """Reads, resizes and normalises images as evaluation does; see `Model.process_images`."""
        return inputs.process_images(images, config=self.image)

    def probabilities(
        self, images: ImageSource | Iterable[ImageSource] | ProcessedImages
    ) -> list[np.ndarray]:
        """Finds the probability of each class at each pixel.

        The model sees images of one size; its probabilities are interpolated between its pixels,
        and margins that made an image a square are cut off.

        Args:
          images: images of any sizes in any form that `process_images` takes, or processed ones.

        Returns:
          One array for each image, float32[H, W, K], of the height and width of the image as it was
          given: of a file those that it stores, before an EXIF orientation turns them.

        Raises:
          DataError: if an image cannot be read, or a probability is not a number.
          ConfigError: if the mean and std of the images are unknown.
        """
        if not isinstance(images, ProcessedImages):
            images = self.process_images(images)
        odds = np.concatenate(in_blocks(self._odds, self.module, images.pixels, block=_BLOCK))
        if np.isnan(odds).any():
            raise not_finite("The log-odds of the masks")
        chances = np.asarray(jax.nn.sigmoid(odds))
        return [
            values_on_original(chance, place)
            for chance, place in zip(chances, images.places, strict=True)
        ]

    def predict(
        self,
        images: ImageSource | Iterable[ImageSource] | ProcessedImages,
        *,
        threshold: float = 0.5,
    ) -> list[np.ndarray]:
        """Finds the masks of the classes.

        Args:
          images: images, see `probabilities`.
          threshold: probability above which a pixel is inside.

        Returns:
          One array for each image, bool[H, W, K], see `probabilities`.

        Raises:
          DataError, ConfigError: as `probabilities`; also if the threshold is none.
        """
        if not isinstance(threshold, numbers.Real) or not 0 < threshold < 1:
            raise ConfigError.of_value("threshold", threshold, "a number above 0 and below 1")
        return [chance > np.float32(threshold) for chance in self.probabilities(images)]


def load_segmenter(
    source: str | os.PathLike[str],
    num_classes: int | None = None,
    decoder: Decoder = "unet",
    *,
    freeze_encoder: bool = True,
    seed: int = 0,
    step: int | None = None,
) -> Segmenter:
    """Loads a trained segmentation, or puts a new decoder on the maps of a pre-trained encoder.

    Args:
      source: folder of a run of `launch.train`, of any objective; or the folder
        `finetune/<result>/model` of a training of an evaluation task; or a folder of weights that
        `launch.import_weights` or `launch.export --format=nnx` wrote.
      num_classes: number of classes of the new decoder; None for the decoder that a run of the
        objective "segmentation" has trained.
      decoder: form of the new decoder: "unet", that of segmentation_models_pytorch (GLoRIA, MGCA);
        "unet_transposed" (LoVT), "linear" (LoVT) or "upernet" (BenchX). A smaller encoder leaves
        out the widest blocks of a U-Net. A trained decoder has the form that it was trained in.
      freeze_encoder: whether a new decoder leaves the encoder as it is, see `load_classifier`.
      seed: seed of the new decoder.
      step: step of the checkpoint; None is chosen as by `load_classifier`.

    Returns:
      The model. One logit of a new decoder is one class, and they do not exclude each other.

    Raises:
      DataError, ConfigError, CheckpointError, WeightsError: as `load` raises them; also if the
        source is not the folder of a model, or if `num_classes` is None and the source has no
        trained decoder; the message names the fine-tuned models in the folder.

    Source: GLoRIA's release, gloria/gloria.py, `load_img_segmentation_model(name, device)`: the
      encoder under the Unet of segmentation_models_pytorch with one class, all of it trained.
    """
    folder = pathlib.Path(source)
    check_classes(num_classes)
    if decoder not in get_args(Decoder):
        raise ConfigError.of_value("decoder", decoder, f"one of {', '.join(get_args(Decoder))}")
    check_source(folder, num_classes, kind=KIND, head="decoder")
    if num_classes is None:
        model = open_image_model(folder, step=step)
    else:
        encoder, image, _ = open_encoder(folder, step=step)
        config = _new_config(encoder.resnet.config, image, num_classes, decoder)
        model = _new_model(config, encoder, image, frozen=freeze_encoder, seed=seed)
    found = model.objective
    if not isinstance(found, Segments):
        raise TypeError(f"{type(found).__name__} finds no masks")
    return Segmenter(model.module, classes=found.classes, image=model.image, odds=found.segment)


def _new_model(
    config: SegmentationConfig, encoder: Any, image: ImageConfig, *, frozen: bool, seed: int
) -> ImageModel:
    """Puts a new decoder on an encoder."""
    module = on_encoder(
        lambda: SegmentationModel(config, frozen=frozen, rngs=nnx.Rngs(seed)),
        encoder,
        head="decoder",
    )
    return ImageModel(objective=SegmentationObjective(config), module=module, image=image)


def _new_config(
    resnet: ResNetConfig, image: ImageConfig, num_classes: int, decoder: Decoder
) -> SegmentationConfig:
    """Returns the sizes of an encoder under a new decoder."""
    channels = _CHANNELS[decoder]
    if decoder in ("unet", "unet_transposed"):
        channels = channels[-(len(resnet.depths) + resnet.stem_pool) :]
    return SegmentationConfig(
        dtype="float32",
        image=ImageEncoderConfig(
            resnet=dataclasses.replace(resnet, remat="none"),
            pool="mean",
            pool_heads=1,
            image_size=image.size,
        ),
        decoder=DecoderConfig(
            kind=decoder,
            channels=channels,
            auxiliary_weight=0.0,
            dropout=_DROPOUT.get(decoder, 0.0),
        ),
        classes=tuple(str(number) for number in range(num_classes)),
        loss="mixed",
        encoder_rate=1.0,
        drifting_statistics=False,
    )
