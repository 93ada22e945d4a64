"""Converts encoded radiographs to normalised arrays, with the augmentation of pre-training."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from PIL import Image

from prior_jax.data import affine, colours, crops, levels, regions
from prior_jax.data.decode import ImageProblem, Mode, placed
from prior_jax.data.fitting import Fit, placed_margins, placed_resize
from prior_jax.errors import DataError, check_choice, check_field, check_least

PIXEL_MAXIMUM = 255.0
MODES: Mapping[int, Mode] = {1: "L", 3: "RGB"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The input format of the image encoder.

    Attributes:
      size: side of the square image in pixels (release, configs/image_transformation.yaml: 224).
      channels: number of channels: 1 (release) or 3, with the grey channel repeated.
      mean: mean of each channel on a scale of 0 to 1, or None for that of the prepared set, or of
        equalised images (release: 0.4755 for one channel, 0.4755, 0.4755, 0.406 for three).
      std: standard deviation of each channel, or None as for `mean` (release: 0.3011 for one
        channel, 0.229, 0.224, 0.225 for three).
      fit: how the image becomes a square: "stretch" does not keep the aspect ratio (release); "pad"
        adds black margins and does (LoVT, MaCo); "pad_evenly" is LoVT's release, which forgets a
        pixel of an odd gap (quirk L12).
      equalize: whether the histogram is equalised (LoVT's release, of all sets but RSNA).
      to_white: whether levels are multiplied so that the brightest pixel is white (MGCA's release,
        quirk M16); not together with `equalize`.
      draft_margin: smallest ratio of a decoded image's sides to those it is resized to. The JPEG
        decoder can shrink an image to a half, a quarter or an eighth as it decodes it, which costs
        less than decoding every pixel; at 2 the antialiased resize still determines the pixels, at
        1 the decoder's own average does. None decodes every pixel (release).
    """

    size: int
    channels: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    # Runs of earlier versions have no values for these, and images as the defaults make them.
    fit: Fit = "stretch"
    equalize: bool = False
    to_white: bool = False
    draft_margin: int | None = 2

    def __post_init__(self):
        """Raises ConfigError for values that are not accepted."""
        check_least(self, size=1)
        if self.draft_margin is not None:
            check_least(self, draft_margin=1)
        check_choice(self, "channels", tuple(MODES))
        check_choice(self, "fit", get_args(Fit))
        must_be = "False with equalize, which sets every level anew"
        check_field(self, "to_white", not (self.to_white and self.equalize), must_be)
        both = (self.mean is None) == (self.std is None)
        check_field(self, "std", both, f"None exactly if mean is None, and mean is {self.mean}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is None:
                continue
            finite = all(math.isfinite(value) for value in values)
            holds = len(values) == self.channels and finite and (name == "mean" or min(values) > 0)
            above = " above 0" if name == "std" else ""
            check_field(self, name, holds, f"{self.channels} finite numbers{above}, for channels")

    def given(self) -> dict[str, Any]:
        """Returns the settings without those that have their default.

        They identify a run: what a later version adds is absent from a run of an earlier one.
        """
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if value != fields[name]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random augmentation of a training image.

    Attributes:
      rotation_degrees: largest angle x in degrees: the angle is uniform in -x .. x, with
        nearest-pixel interpolation and zeros outside (release, configs/image_transformation.yaml:
        RandomAffine(degrees=5)).
      flip_probability: probability of a horizontal flip. Release 0.5; paper 0, because reports name
        left and right.
      crop_from: side of the square that the image is resized to, of which a random part of the
        model's size is cut out; None for no such cut.
      resized_crop: random part of the decoded image that is resized to the model's size; None for
        the whole image. It cannot be combined with `crop_from`.
      jitter: colour jitter; None for none.
      grey_probability: probability of making the image grey, which changes only images with
        colours; None for never.
      blur: Gaussian blur; None for none.
      shift_scale_rotate: random shift, scale and rotation, bilinear, behind the other moves (GLoRIA
        and MGCA for segmentation); None for none.
    """

    rotation_degrees: float
    flip_probability: float
    # The values of what is off are None, so that runs of earlier versions can be resumed.
    crop_from: int | None = None
    resized_crop: crops.ResizedCropConfig | None = None
    jitter: colours.JitterConfig | None = None
    grey_probability: float | None = None
    blur: colours.BlurConfig | None = None
    shift_scale_rotate: affine.ShiftScaleRotateConfig | None = None

    def __post_init__(self):
        """Raises ConfigError for values that are not accepted."""
        turns = 0 <= self.rotation_degrees <= 180
        check_field(self, "rotation_degrees", turns, "an angle from 0 to 180")
        flips = 0 <= self.flip_probability <= 1
        check_field(self, "flip_probability", flips, "a probability from 0 to 1")
        grey = self.grey_probability is None or 0 <= self.grey_probability <= 1
        check_field(self, "grey_probability", grey, "None or a probability from 0 to 1")
        if self.crop_from is not None:
            check_least(self, crop_from=1)
            one = self.resized_crop is None
            check_field(self, "crop_from", one, "None with resized_crop, which is a crop as well")

    def decoded_size(self, size: int) -> int:
        """Returns the side in pixels that an image is decoded for: enough for its smallest crop.

        Args:
          size: side of the model's image in pixels.
        """
        if self.resized_crop is not None:
            return math.ceil(size / math.sqrt(self.resized_crop.scale[0]))
        return self.crop_from or size


def decode(
    content: bytes, *, channels: int, size: int, name: str, draft_margin: int | None = 2
) -> Image.Image:
    """Decodes one image completely, upright; see `prior_jax.data.decode.decoded`.

    Args:
      content: content of the file: JPEG, PNG, TIFF, DICOM or similar.
      channels: number of channels, 1 or 3.
      size: side in pixels that the image will be resized to.
      name: name of the image, for error messages.
      draft_margin: how far a larger JPEG is shrunk as it is decoded, see `ImageConfig`.

    Returns:
      An 8-bit image of mode "L" or "RGB".

    Raises:
      DataError: if the image is truncated, damaged or of an unsupported kind; names the image.
    """
    return placed_decode(
        content, channels=channels, size=size, name=name, draft_margin=draft_margin
    )[0]


def placed_decode(
    content: bytes, *, channels: int, size: int, name: str, draft_margin: int | None = 2
) -> tuple[Image.Image, regions.Transform]:
    """Decodes one image as `decode` does, and says where its pixels have gone.

    Args:
      content: content of the file.
      channels: number of channels, 1 or 3.
      size: side in pixels that the image will be resized to.
      name: name of the image, for error messages.
      draft_margin: how far a larger JPEG is shrunk as it is decoded, see `ImageConfig`.

    Returns:
      The image, and the change from the pixels of the file to those of the image.

    Raises:
      DataError: for the reasons that `decode` lists.
    """
    short_side = None if draft_margin is None else draft_margin * size
    try:
        return placed(
            content, mode=MODES[channels], name=name, short_side=short_side, any_size=True
        )
    except ImageProblem as problem:
        raise DataError(
            f"The image cannot be used ({problem.reason}). {problem.detail}",
            "Give an image that is whole and of a supported kind; if it is in a prepared set, "
            "prepare the set again.",
            where=name,
        ) from problem


def placed_input(
    image: Image.Image, *, config: ImageConfig
) -> tuple[Image.Image, regions.Transform]:
    """Makes the model's image of a decoded image, without augmentation.

    Args:
      image: decoded image of mode "L" or "RGB".
      config: settings of the model's images.

    Returns:
      The image before it is normalised, and where the pixels have gone.
    """
    return placed_resize(_levelled(image, config), size=config.size, fit=config.fit)


def _levelled(image: Image.Image, config: ImageConfig) -> Image.Image:
    """Returns the image with the levels that the model's images have."""
    if config.equalize:
        return levels.equalized(image)
    return levels.white_at_most(image) if config.to_white else image


def placed_training_image(
    image: Image.Image,
    *,
    image_config: ImageConfig,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Image.Image, regions.Transform]:
    """Crops, resizes, moves and recolours a decoded image at random; says where its pixels went.

    Crops, colours and the shift with scale and rotation have random numbers beside those of `rng`:
    whatever is switched on, those that follow in `rng` stay the same.

    Args:
      image: decoded image of mode "L" or "RGB".
      image_config: settings of the model's images. Where they pad, a crop is of the padded image.
      config: settings of the augmentation.
      rng: source of random numbers, on its way to draw two of them.
    """
    cropping, colouring, moving = rng.spawn(3)
    image, place = _placed_crop(
        _levelled(image, image_config), image_config=image_config, config=config, rng=cropping
    )
    image, turn = placed_augment(image, config=config, rng=rng)
    place = place.then(turn)
    if config.shift_scale_rotate is not None:
        image, move = affine.placed_shift_scale_rotate(
            image, config=config.shift_scale_rotate, rng=moving
        )
        place = place.then(move)
    image = colours.recoloured(
        image,
        jitter=config.jitter,
        grey_probability=config.grey_probability,
        blur=config.blur,
        rng=colouring,
    )
    return image, place


def _placed_crop(
    image: Image.Image,
    *,
    image_config: ImageConfig,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Image.Image, regions.Transform]:
    """Resizes the image, or a random part of it, to a square, and says where the pixels went."""
    size, fit = image_config.size, image_config.fit
    if config.resized_crop is not None:
        image, place = placed_margins(image, fit=fit)
        sides = {"height": image.height, "width": image.width}
        cut = crops.draw_resized_crop(**sides, config=config.resized_crop, rng=rng)
        image, part = crops.placed_cut(image, cut)
        image, change = placed_resize(image, size=size)
        return image, place.then(part).then(change)
    if config.crop_from is None:
        return placed_resize(image, size=size, fit=fit)
    image, place = placed_resize(image, size=config.crop_from, fit=fit)
    cut = crops.draw_crop(before=config.crop_from, size=size, rng=rng)
    image, change = crops.placed_cut(image, cut)
    return image, place.then(change)


def placed_augment(
    image: Image.Image, *, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Image.Image, regions.Transform]:
    """Rotates and flips at random, and says where the pixels have gone.

    Draws two random numbers whatever the config.

    Source: release, configs/experiments/pre_train/train_prior.yaml (rotation, then flip, after
      the resize).
    """
    angle = rng.uniform(-1.0, 1.0) * config.rotation_degrees
    flip = rng.uniform() < config.flip_probability
    sides = {"height": image.height, "width": image.width}
    place = regions.unchanged(**sides)
    if angle:
        image = image.rotate(angle, resample=Image.Resampling.NEAREST, fillcolor=0)
        place = place.then(regions.rotated(angle, **sides))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        place = place.then(regions.flipped(**sides))
    return image, place


def normalise(image: Image.Image, *, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Converts an 8-bit image to normalised numbers.

    Args:
      image: image of mode "L" or "RGB".
      mean: mean of each channel, float32[C], on a scale of 0 to 1.
      std: standard deviation of each channel, float32[C], > 0.

    Returns:
      Pixels, float32[H, W, C], (pixel / 255 - mean) / std.
    """
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
    # One multiplication and one addition per pixel.
    scale = (1.0 / (PIXEL_MAXIMUM * std)).astype(np.float32)
    pixels = pixels * scale
    pixels -= (mean / std).astype(np.float32)
    return pixels


def statistics(config: ImageConfig, *, mean: float, std: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32[C] mean and std: those of the config, or else of the prepared set.

    Those of equalised images are the same for every set.

    Args:
      config: settings of the images, which may contain their own statistics.
      mean: mean of the prepared set, from its manifest.
      std: standard deviation of the prepared set, from its manifest.
    """
    shape = config.channels
    if config.equalize:
        mean, std = levels.EQUALIZED
    chosen_mean = np.full(shape, mean) if config.mean is None else np.array(config.mean)
    chosen_std = np.full(shape, std) if config.std is None else np.array(config.std)
    return chosen_mean.astype(np.float32), chosen_std.astype(np.float32)


def with_statistics(config: ImageConfig, *, mean: float, std: float) -> ImageConfig:
    """Returns the settings with statistics: those of the config, or else of the prepared set.

    For the arguments see `statistics`.
    """
    chosen = statistics(config, mean=mean, std=std)
    return dataclasses.replace(
        config,
        mean=tuple(float(value) for value in chosen[0]),
        std=tuple(float(value) for value in chosen[1]),
    )
