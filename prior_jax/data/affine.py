"""Random shift, scale and rotation of training images, and where they move boxes and masks."""

import dataclasses

import numpy as np
from PIL import Image

from prior_jax.data import regions
from prior_jax.errors import check_field


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftScaleRotateConfig:
    """A random rotation, scale and shift at once; what lies outside of the image is black.

    Attributes:
      shift: largest shift x in each direction, as a share of the image's side; it is uniform in
        -x .. x.
      scale: largest change x of the scale, below 1; the scale is uniform in 1 - x .. 1 + x.
      degrees: largest angle x in degrees; the angle is uniform in -x .. x.
      probability: probability that an image is changed at all.
    """

    shift: float
    scale: float
    degrees: float
    probability: float

    def __post_init__(self):
        """Raises ConfigError for values that are not accepted."""
        check_field(self, "shift", 0 <= self.shift < 1, "a share from 0 to below 1")
        check_field(self, "scale", 0 <= self.scale < 1, "a number from 0 to below 1")
        check_field(self, "degrees", 0 <= self.degrees <= 180, "an angle from 0 to 180")
        must_be = "a probability from 0 to 1"
        check_field(self, "probability", 0 <= self.probability <= 1, must_be)


def placed_shift_scale_rotate(
    image: Image.Image, *, config: ShiftScaleRotateConfig, rng: np.random.Generator
) -> tuple[Image.Image, regions.Transform]:
    """Shifts, scales and rotates an image at random, and says where its pixels have gone.

    Draws five random numbers, whatever the config.

    Args:
      image: image of mode "L" or "RGB".
      config: ranges of the change.
      rng: source of random numbers.

    Source: albumentations 0.5.2, ShiftScaleRotate, as GLoRIA (gloria/datasets/image_dataset.py) and
      MGCA (mgca/datasets/segmentation_dataset.py) use it for segmentation. Differs: the image turns
      about its centre, not about a point half a pixel to the lower right of it (quirk M27), and its
      edge is not mixed with the black beyond it.
    """
    applied, *drawn = rng.uniform(size=5).tolist()
    angle, scale, right, down = (2 * share - 1 for share in drawn)
    height, width = image.height, image.width
    if applied >= config.probability:
        return image, regions.unchanged(height=height, width=width)
    place = regions.rotated(
        angle * config.degrees, height=height, width=width, scale=1 + scale * config.scale
    )
    place = regions.shifted(
        place, right=right * config.shift * width, down=down * config.shift * height
    )
    return warped(image, place), place


def warped(image: Image.Image, place: regions.Transform) -> Image.Image:
    """Moves the pixels of an image, bilinear and without antialiasing; black beyond its edge.

    Args:
      image: image of mode "L" or "RGB", of the size `place.before`.
      place: the change.
    """
    bands = image.split()
    first = _moved(bands[0], place)
    if len(bands) == 1:
        return first
    # A grey image in three channels is moved once.
    content = bands[0].tobytes()
    rest = (first if band.tobytes() == content else _moved(band, place) for band in bands[1:])
    return Image.merge(image.mode, (first, *rest))


def _moved(band: Image.Image, place: regions.Transform) -> Image.Image:
    height, width = place.after
    # Pillow would cut the fraction of a level off in 8 bits.
    moved = band.convert("F").transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(place.inverse_matrix().reshape(-1).tolist()),
        resample=Image.Resampling.BILINEAR,
        fillcolor=0,
    )
    return Image.fromarray(np.rint(np.asarray(moved)).astype(np.uint8))
