"""Random crops of training images, and where they move boxes and masks."""

import dataclasses
import math

import numpy as np
from PIL import Image

from prior_jax.data import regions
from prior_jax.errors import check_field

_TRIES = 10  # torchvision's number of draws before it takes the centre


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResizedCropConfig:
    """A random crop of random size and shape, which is then resized to the model's image.

    Attributes:
      scale: smallest and largest area of the crop, as shares of the image's area; at most 1.
      ratio: smallest and largest width of the crop divided by its height.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]

    def __post_init__(self):
        """Raises ConfigError for values that are not accepted."""
        low, high = self.scale
        must_be = "two shares of the area, above 0 and at most 1, the smaller first"
        check_field(self, "scale", 0 < low <= high <= 1, must_be)
        low, high = self.ratio
        must_be = "two finite ratios of width to height above 0, the smaller first"
        check_field(self, "ratio", 0 < low <= high < math.inf, must_be)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """A part of an image.

    Attributes:
      top: rows above the part.
      left: columns on the left of the part.
      height: rows of the part.
      width: columns of the part.
    """

    top: int
    left: int
    height: int
    width: int


def draw_resized_crop(
    *, height: int, width: int, config: ResizedCropConfig, rng: np.random.Generator
) -> Cut:
    """Draws the part of an image that is kept.

    The area is uniform in `scale`, and the logarithm of the ratio is uniform in `ratio`. A part
    that does not fit into the image is drawn again. After ten draws it is the middle of the image,
    as large as the ratio allows.

    Args:
      height: height of the image in pixels.
      width: width of the image in pixels.
      config: accepted areas and ratios.
      rng: source of random numbers.

    Source: torchvision, transforms.RandomResizedCrop.
    """
    low, high = config.ratio
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*config.scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return _at_random(height=height, width=width, tall=tall, wide=wide, rng=rng)
    tall, wide = height, width
    if width / height < low:
        tall = max(round(width / low), 1)
    elif width / height > high:
        wide = max(round(height * high), 1)
    return Cut(top=(height - tall) // 2, left=(width - wide) // 2, height=tall, width=wide)


def draw_crop(*, before: int, size: int, rng: np.random.Generator) -> Cut:
    """Draws a square of `size` pixels, every place of it in a square of `before` alike.

    Source: torchvision, transforms.RandomCrop.
    """
    return _at_random(height=before, width=before, tall=size, wide=size, rng=rng)


def placed_cut(image: Image.Image, cut: Cut) -> tuple[Image.Image, regions.Transform]:
    """Cuts a part out of an image, and says where the pixels have gone."""
    right, below = cut.left + cut.width, cut.top + cut.height
    place = regions.placed(
        top=-cut.top,
        left=-cut.left,
        before=(image.height, image.width),
        after=(cut.height, cut.width),
    )
    return image.crop((cut.left, cut.top, right, below)), place


def _at_random(*, height: int, width: int, tall: int, wide: int, rng: np.random.Generator) -> Cut:
    top = int(rng.integers(height - tall + 1))
    left = int(rng.integers(width - wide + 1))
    return Cut(top=top, left=left, height=tall, width=wide)
