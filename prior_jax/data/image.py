"""Encoded radiographs -> normalised arrays, with the augmentation of pre-training."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image

from prior_jax.data.decode import ImageProblem, Mode, decoded
from prior_jax.errors import ConfigError, DataError

PIXEL_MAXIMUM = 255.0
MODES: Mapping[int, Mode] = {1: "L", 3: "RGB"}
# JPEG decoding in the DCT domain may shrink an image, but never below this multiple of the size
# asked for, so that the antialiased resize still decides on the pixels.
DRAFT_MARGIN = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What the image encoder sees.

    Attributes:
      size: pixels of either side; the aspect ratio is not kept (release,
        configs/image_transformation.yaml: 224).
      channels: 1 (release) or 3, gray repeated.
      mean: one number a channel on a scale of 0 to 1, or None for the prepared set's own
        (release: 0.4755 for one channel, 0.4755, 0.4755, 0.406 for three).
      std: likewise (release: 0.3011 for one channel, 0.229, 0.224, 0.225 for three).
    """

    size: int
    channels: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def __post_init__(self):
        """Raises ConfigError for values outside what is accepted."""
        if self.size < 1:
            raise ConfigError("config.data.image.size", received=self.size, accepted=">= 1")
        if self.channels not in MODES:
            raise ConfigError(
                "config.data.image.channels", received=self.channels, accepted=f"{[*MODES]}"
            )
        if (self.mean is None) != (self.std is None):
            raise ConfigError(
                "config.data.image.std", received=self.std, accepted="None if and only if mean is"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is None:
                continue
            finite = all(math.isfinite(value) for value in values)
            if len(values) != self.channels or not finite or (name == "std" and min(values) <= 0):
                raise ConfigError(
                    f"config.data.image.{name}",
                    received=values,
                    accepted=f"{self.channels} finite numbers" + ", > 0" * (name == "std"),
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a training image.

    Attributes:
      rotation_degrees: the angle is uniform in -x .. x, nearest pixel, zeros outside (release,
        configs/image_transformation.yaml: RandomAffine(degrees=5)).
      flip_probability: of a horizontal flip. Release 0.5; paper 0, because reports say left and
        right.
    """

    rotation_degrees: float
    flip_probability: float

    def __post_init__(self):
        """Raises ConfigError for values outside what is accepted."""
        if not 0 <= self.rotation_degrees <= 180:
            raise ConfigError(
                "config.data.augment.rotation_degrees",
                received=self.rotation_degrees,
                accepted="0 to 180",
            )
        if not 0 <= self.flip_probability <= 1:
            raise ConfigError(
                "config.data.augment.flip_probability",
                received=self.flip_probability,
                accepted="0 to 1",
            )


def decode(content: bytes, *, channels: int, size: int, name: str) -> Image.Image:
    """Decodes one image completely, upright; see `prior_jax.data.decode.decoded`.

    Args:
      content: the file: JPEG, PNG, TIFF, DICOM and the like.
      channels: 1 or 3.
      size: side in pixels that it will be resized to; a far larger JPEG is decoded at a fraction.
      name: name of the image, for errors.

    Returns:
      An 8-bit image of mode "L" or "RGB".

    Raises:
      DataError: naming the image, if it is truncated, damaged or of a kind that is not read.
    """
    try:
        return decoded(
            content, mode=MODES[channels], name=name, short_side=DRAFT_MARGIN * size, any_size=True
        )
    except ImageProblem as problem:
        raise DataError(
            name, received=f"{problem.reason}: {problem.detail}", accepted="a whole image"
        ) from problem


def resize(image: Image.Image, *, size: int) -> Image.Image:
    """Resizes to a square, bilinear and antialiased, not keeping the aspect ratio.

    Source: release, configs/image_transformation.yaml (torchvision Resize on PIL images).
    """
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR)


def augment(image: Image.Image, *, config: AugmentConfig, rng: np.random.Generator) -> Image.Image:
    """Rotates and flips at random; draws two numbers whatever the config.

    Source: release, configs/experiments/pre_train/train_prior.yaml (rotation, then flip, after
      the resize).
    """
    angle = rng.uniform(-1.0, 1.0) * config.rotation_degrees
    flip = rng.uniform() < config.flip_probability
    if angle:
        image = image.rotate(angle, resample=Image.Resampling.NEAREST, fillcolor=0)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def normalise(image: Image.Image, *, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Turns an 8-bit image into numbers.

    Args:
      image: mode "L" or "RGB".
      mean: float32[C], on a scale of 0 to 1.
      std: float32[C], > 0.

    Returns:
      float32[H, W, C], (pixel / 255 - mean) / std.
    """
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
    # One multiplication and one addition a pixel.
    scale = (1.0 / (PIXEL_MAXIMUM * std)).astype(np.float32)
    pixels = pixels * scale
    pixels -= (mean / std).astype(np.float32)
    return pixels


def statistics(config: ImageConfig, *, mean: float, std: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32[C] mean and std: the config's, or else the prepared set's.

    Args:
      config: may hold its own numbers.
      mean: the prepared set's, from its manifest.
      std: likewise.
    """
    shape = config.channels
    chosen_mean = np.full(shape, mean) if config.mean is None else np.array(config.mean)
    chosen_std = np.full(shape, std) if config.std is None else np.array(config.std)
    return chosen_mean.astype(np.float32), chosen_std.astype(np.float32)


def with_statistics(config: ImageConfig, *, mean: float, std: float) -> ImageConfig:
    """The same settings with numbers to normalise by: the config's, or else the prepared set's.

    Arguments as `statistics`.
    """
    chosen = statistics(config, mean=mean, std=std)
    return dataclasses.replace(
        config,
        mean=tuple(float(value) for value in chosen[0]),
        std=tuple(float(value) for value in chosen[1]),
    )
