"""Random changes of the levels of training images: colour jitter, greyness and blur.

No pixel moves, so that boxes and masks stay as they are. On a grey image, of one channel or of
three that are equal, only brightness, contrast and blur change anything.
"""

import dataclasses
import math

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from prior_jax.errors import check_field

_HUES = 255  # Pillow's hue is a byte, and torchvision moves it by a share of 255
_MAXIMUM = 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """Colour jitter: changes of brightness, contrast, saturation and hue in random order.

    Attributes:
      brightness: largest change x of the brightness; its factor is uniform in max(0, 1 - x) ..
        1 + x, and 0 leaves the brightness alone.
      contrast: largest change of the contrast, in the same way.
      saturation: largest change of the saturation, in the same way.
      hue: largest shift x of the hue, in turns of the colour wheel, 0 to 0.5; the shift is uniform
        in -x .. x, and 0 leaves the hue alone.
      probability: probability that an image is changed at all.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    probability: float

    def __post_init__(self):
        """Raises ConfigError for values that are not accepted."""
        for name in ("brightness", "contrast", "saturation"):
            check_field(self, name, 0 <= getattr(self, name) < math.inf, "a number from 0")
        check_field(self, "hue", 0 <= self.hue <= 0.5, "a number from 0 to 0.5")
        holds = 0 <= self.probability <= 1
        check_field(self, "probability", holds, "a probability from 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlurConfig:
    """Gaussian blur.

    Attributes:
      sigma: smallest and largest standard deviation in pixels of the model's image; it is uniform
        between them.
      kernel: side of the kernel in pixels, an odd number: torchvision's blur, with the image
        mirrored at its edges. None for Pillow's blur, which has no kernel and repeats the pixels
        at the edges.
      probability: probability that an image is blurred.
    """

    sigma: tuple[float, float]
    kernel: int | None
    probability: float

    def __post_init__(self):
        """Raises ConfigError for values that are not accepted."""
        low, high = self.sigma
        must_be = "two finite numbers of pixels above 0, the smaller first"
        check_field(self, "sigma", 0 < low <= high < math.inf, must_be)
        odd = self.kernel is None or (self.kernel >= 1 and self.kernel % 2 == 1)
        check_field(self, "kernel", odd, "None or an odd number of pixels")
        holds = 0 <= self.probability <= 1
        check_field(self, "probability", holds, "a probability from 0 to 1")


def recoloured(
    image: Image.Image,
    *,
    jitter: JitterConfig | None,
    grey_probability: float | None,
    blur: BlurConfig | None,
    rng: np.random.Generator,
) -> Image.Image:
    """Changes colours, makes grey and blurs at random.

    What is off leaves the random numbers of the rest as they are.

    Args:
      image: image of mode "L" or "RGB".
      jitter: settings of the jitter; None for no jitter.
      grey_probability: probability of making the image grey; None for never.
      blur: settings of the blur; None for no blur.
      rng: source of random numbers.

    Returns:
      An image of the same mode and size.

    Source: MGCA, release, mgca/datasets/transforms.py, Moco2Transform (the order).
    """
    if jitter is None and grey_probability is None and blur is None:
        return image
    applied = rng.uniform(size=3)
    order, shares = rng.permutation(4), rng.uniform(size=4)
    share = rng.uniform()
    if jitter is not None and applied[0] < jitter.probability:
        image = _jittered(image, jitter, order=order, shares=shares)
    if grey_probability is not None and applied[1] < grey_probability:
        image = image.convert("L").convert(image.mode)
    if blur is not None and applied[2] < blur.probability:
        low, high = blur.sigma
        image = blurred(image, sigma=low + share * (high - low), kernel=blur.kernel)
    return image


def _jittered(
    image: Image.Image, config: JitterConfig, *, order: np.ndarray, shares: np.ndarray
) -> Image.Image:
    """Makes the four changes of a jitter in the given order, with uniform shares of their ranges.

    Source: torchvision, transforms.ColorJitter.
    """
    changes = (adjust_brightness, adjust_contrast, adjust_saturation)
    ranges = (config.brightness, config.contrast, config.saturation)
    for number in order:
        share = float(shares[number])
        if number == 3:
            if config.hue:
                image = adjust_hue(image, (2 * share - 1) * config.hue)
        elif ranges[number]:
            low, high = max(0.0, 1 - ranges[number]), 1 + ranges[number]
            image = changes[number](image, low + share * (high - low))
    return image


def adjust_brightness(image: Image.Image, factor: float) -> Image.Image:
    """Mixes an image with black: 0 is black, 1 leaves it as it is, 2 doubles every level."""
    return ImageEnhance.Brightness(image).enhance(factor)


def adjust_contrast(image: Image.Image, factor: float) -> Image.Image:
    """Mixes an image with the mean of its grey levels: 0 is that level everywhere."""
    return ImageEnhance.Contrast(image).enhance(factor)


def adjust_saturation(image: Image.Image, factor: float) -> Image.Image:
    """Mixes an image with its grey version: 0 is grey."""
    return ImageEnhance.Color(image).enhance(factor)


def adjust_hue(image: Image.Image, shift: float) -> Image.Image:
    """Turns the colours of an image along the colour wheel.

    Args:
      image: image of mode "RGB", or of mode "L", which has no colours and is returned as it is.
      shift: shift in turns, -0.5 to 0.5.

    Source: torchvision, transforms.functional.adjust_hue on PIL images: the hue is a byte, and the
      fraction of the shift in bytes is cut off.
    """
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, np.int32) + int(shift * _HUES)) % (_HUES + 1)
    bands = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", bands).convert(image.mode)


def blurred(image: Image.Image, *, sigma: float, kernel: int | None) -> Image.Image:
    """Blurs an image with a Gaussian.

    Args:
      image: image of mode "L" or "RGB".
      sigma: standard deviation in pixels, > 0.
      kernel: side of the kernel in pixels, an odd number; None for Pillow's blur.

    Source: torchvision, transforms.functional.gaussian_blur, with a kernel; MGCA, release,
      mgca/datasets/transforms.py, GaussianBlur, without one.
    """
    if kernel is None:
        return image.filter(ImageFilter.GaussianBlur(radius=sigma))
    half = kernel // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    pixels = np.asarray(image, np.float32)
    for axis in (0, 1):
        length, before = pixels.shape[axis], pixels
        margins = [(half, half) if axis == place else (0, 0) for place in range(before.ndim)]
        padded = np.pad(before, margins, mode="reflect")
        pixels = np.zeros_like(before)
        for start, weight in enumerate(weights):
            pixels += weight * np.take(padded, np.arange(start, start + length), axis=axis)
    levels = np.clip(np.rint(pixels), 0, _MAXIMUM).astype(np.uint8)
    return Image.fromarray(levels)
