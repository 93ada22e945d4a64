"""Image processing of GLoRIA: images are shrunk by area, padded to a square and cropped.

Unlike PRIOR's images (image.py), they keep their aspect ratio and are normalised to -1 to 1.

Source: GLoRIA's release, gloria/datasets/image_dataset.py and pretraining_dataset.py
(_resize_img, three copies), gloria/models/gloria_model.py (process_img).
"""

from typing import Literal

import numpy as np

from prior_jax.data import regions, resample
from prior_jax.errors import ConfigError, DataError

SIZE = 256  # release, configs: imsize
CROP = 224  # release, configs: random_crop.crop_size
CHANNELS = 3
_MIDDLE = 0.5  # mean and std of norm "half"
_WHITE = 255


def fit(pixels: np.ndarray, *, size: int) -> np.ndarray:
    """Resizes the longer side to `size` by area and pads the shorter one with zeros.

    Args:
      pixels: image, uint8[H, W] or float32[H, W].
      size: side of the square result in pixels.

    Returns:
      Image, [size, size], same dtype; if the padding is odd, the larger part is right or below.

    Raises:
      DataError: for another dtype or rank, or an image so narrow that it vanishes.
    """
    shape, margins = _fitted(pixels.shape if pixels.ndim == 2 else (0, 0), size=size)
    resized = resample.area(pixels, height=shape[0], width=shape[1])
    padding = [(m, size - side - m) for m, side in zip(margins, shape, strict=True)]
    return np.pad(resized, padding)


def fit_transform(shape: tuple[int, int], *, size: int) -> regions.Transform:
    """Returns where `fit` moves the pixels of an image.

    Args:
      shape: height and width of the image in pixels.
      size: side of the square result in pixels.
    """
    after, (top, left) = _fitted(shape, size=size)
    resize = regions.resized(before=shape, after=after)
    return resize.then(regions.placed(top=top, left=left, before=after, after=(size, size)))


def _fitted(shape: tuple[int, int], *, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the size of the image within the square, and the margins above and on the left."""
    height, width = shape
    scale = size / float(max(height, width, 1))
    # The release cuts off the fraction of a pixel (quirk G40).
    after = (size, int(width * scale)) if height >= width else (int(height * scale), size)
    return after, ((size - after[0]) // 2, (size - after[1]) // 2)


def encoder_input(pixels: np.ndarray, *, size: int = SIZE, crop: int = CROP) -> np.ndarray:
    """Prepares one image for inference.

    Args:
      pixels: grey image, uint8[H, W].
      size: side of the square that the image is fitted to, in pixels.
      crop: side of the centre crop, in pixels.

    Returns:
      Image, float32[crop, crop, 3], -1 to 1, three equal channels.

    Raises:
      DataError: for the reasons that `fit` lists.
      ConfigError: if the crop is larger than the image.
    """
    first = _first_of_crop(size=size, crop=crop)
    middle = fit(pixels, size=size)[first : first + crop, first : first + crop]
    return _normalised(middle)


def encoder_input_transform(
    shape: tuple[int, int], *, size: int = SIZE, crop: int = CROP
) -> regions.Transform:
    """Returns where `encoder_input` moves the pixels of an image.

    Args:
      shape: height and width of the image in pixels.
      size: side of the square that the image is fitted to, in pixels.
      crop: side of the centre crop, in pixels.

    Raises:
      ConfigError: if the crop is larger than the image.
    """
    first = _first_of_crop(size=size, crop=crop)
    cut = regions.placed(top=-first, left=-first, before=(size, size), after=(crop, crop))
    return fit_transform(shape, size=size).then(cut)


def _first_of_crop(*, size: int, crop: int) -> int:
    if not 1 <= crop <= size:
        raise ConfigError.of_value("crop", crop, f"from 1 to {size}, the side of the image")
    return round((size - crop) / 2)


def segmentation_sample(
    pixels: np.ndarray, mask: np.ndarray, *, size: int, mode: Literal["paper", "release"]
) -> tuple[np.ndarray, np.ndarray]:
    """Prepares an image and its mask for segmentation.

    Mode "release" (PneumothoraxImageDataset; quirk G45) stretches the image, fits the mask, and
    leaves the mask soft where shrinking by area made it so. Mode "paper" fits both and keeps the
    mask binary.

    Args:
      pixels: grey image, uint8[H, W].
      mask: mask, bool[H, W] or float32[H, W] of 0 and 1.
      size: side of the square results in pixels.
      mode: mode of the processing, "paper" or "release".

    Returns:
      Image, float32[size, size, 3], -1 to 1, and mask, float32[size, size], 0 to 1.

    Raises:
      DataError: if the two differ in shape, or for the reasons that `fit` lists.
      ConfigError: if the mode is unknown.
    """
    if mode not in ("paper", "release"):
        raise ConfigError.of_value("mode", mode, "'paper' or 'release'")
    if mask.shape != pixels.shape:
        raise DataError(
            f"The mask has the shape {mask.shape}, but the image has {pixels.shape}.",
            "Give a mask of the image's shape.",
            where="mask",
        )
    soft = fit(mask.astype(np.float32), size=size)
    if mode == "release":
        return _normalised(resample.linear(pixels, height=size, width=size)), soft
    return _normalised(fit(pixels, size=size)), (soft >= _MIDDLE).astype(np.float32)


def _normalised(pixels: np.ndarray) -> np.ndarray:
    scaled = (pixels.astype(np.float32) / np.float32(_WHITE) - np.float32(_MIDDLE)) / np.float32(
        _MIDDLE
    )
    return np.repeat(scaled[:, :, None], CHANNELS, axis=2)
