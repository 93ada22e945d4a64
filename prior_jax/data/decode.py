"""Decodes image files of any kind to upright 8-bit grey or colour images.

It is the project's only decoder: preparation, training and the Python interface all use it, so that
they accept the same files and get the same pixels.
"""

import io
import math
import re
import struct
from typing import Literal

import numpy as np
from PIL import Image, ImageFile

from prior_jax.data import codestream, dicom, regions
from prior_jax.data.dicom_decoders import DicomProblem
from prior_jax.data.quiet import without_warnings
from prior_jax.errors import InputProblem

Mode = Literal["L", "RGB"]

# No radiograph has sides outside this range; above it, decoding could exhaust the memory.
MIN_SIDE = 32
MAX_SIDE = 16_384
MAX_ASPECT = 8.0

_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4 A
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Cameras append previews to the picture; Pillow calls such a file MPO.
_ONE_PICTURE = ("MPO",)
_COLOUR = ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "P", "PA")
_GREY = ("1", "L", "LA", "La")
_ALPHA = ("A", "a")
_SIXTEEN_BITS = re.compile(r";16[BLN]$")  # Pillow's names of such channels, but not of 5-6-5 bits
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_FORMAT = 258, 262, 339  # TIFF 6.0, sections 8 and 19
_TIFF_MIN_IS_WHITE = 0
_TIFF_UNSIGNED, _TIFF_SIGNED = 1, 2


class ImageProblem(InputProblem):
    """An image that cannot be used."""


def decoded(
    content: bytes, *, mode: Mode, name: str, short_side: int | None = None, any_size: bool = False
) -> Image.Image:
    """Decodes an image completely, upright, to 8 bits per channel.

    The EXIF orientation is applied; damaged EXIF is ignored. Images of more than 8 bits, and of
    floats, are stretched from their smallest to their largest value: a division by 65,535 would
    turn 12-bit images black. Of 16-bit colour, and 16-bit grey with transparency, Pillow keeps the
    highest 8 bits; if the highest bits are not in use, the image is refused. Transparency is
    ignored: a pixel has the grey or colour that is stored. DICOM is rendered as `dicom.shown`
    describes.

    Args:
      content: content of a JPEG, PNG, TIFF, DICOM or other file that Pillow or pydicom reads.
      mode: mode of the result: "L" for grey, "RGB" for colour; a grey image becomes three equal
        channels.
      name: name of the file; DICOM without its preamble is recognised by it.
      short_side: shorter side in pixels that is needed; a JPEG whose sides are several times longer
        is decoded at a half, a quarter or an eighth, never below this side, by averaging in the
        frequency domain. None decodes all pixels.
      any_size: whether sides that no radiograph has are accepted too.

    Returns:
      The image.

    Raises:
      ImageProblem: with one of the kinds zero_byte_image, truncated_image, undecodable_image,
        absurd_image_size, several_frames, colour_dicom or dicom_without_decoder.
    """
    return placed(content, mode=mode, name=name, short_side=short_side, any_size=any_size)[0]


def placed(
    content: bytes, *, mode: Mode, name: str, short_side: int | None = None, any_size: bool = False
) -> tuple[Image.Image, regions.Transform]:
    """Decodes an image as `decoded` does, and says where its pixels have gone.

    Args:
      content: content of the file, as for `decoded`.
      mode: mode of the result.
      name: name of the file.
      short_side: shorter side in pixels that is needed.
      any_size: whether sides that no radiograph has are accepted too.

    Returns:
      The image, and the change from the pixels as the file stores them, before the EXIF orientation
      is applied, to those of the image.

    Raises:
      ImageProblem: for the reasons that `decoded` lists.
    """
    if not content:
        raise ImageProblem("zero_byte_image", "The file is empty.")
    # Another library may have switched this on. The release switches it on, and so trains on images
    # whose lower half is grey (codes/prior/data/pretrain/mimiccxr.py).
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with without_warnings():
            if dicom.is_dicom(content, name=name):
                image = Image.fromarray(dicom.grey(content, name=name))
                _check_size(image, any_size=any_size)
                place = regions.unchanged(height=image.height, width=image.width)
                return image.convert(mode), place
            return _opened(content, mode=mode, short_side=short_side, any_size=any_size)
    except ImageProblem:
        raise
    except DicomProblem as problem:
        raise ImageProblem(problem.reason, problem.detail) from problem
    except Image.DecompressionBombError as error:
        raise ImageProblem("absurd_image_size", _described(error)) from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError) as error:
        # Pillow's readers raise all of these on damaged files.
        kind = "truncated_image" if "truncated" in str(error).lower() else "undecodable_image"
        raise ImageProblem(kind, _described(error)) from error
    except (struct.error, ArithmeticError, MemoryError, RuntimeError, AttributeError) as error:
        raise ImageProblem("undecodable_image", _described(error)) from error


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split("<_io.BytesIO")[0].split())
    return f"The file cannot be decoded ({type(error).__name__}: {text})."


def _opened(
    content: bytes, *, mode: Mode, short_side: int | None, any_size: bool
) -> tuple[Image.Image, regions.Transform]:
    with Image.open(io.BytesIO(content)) as image:
        _check_size(image, any_size=any_size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in _ONE_PICTURE:
            raise ImageProblem(
                "several_frames", f"The file has {frames} frames. Give each as an image."
            )
        drafted, before = None, image.size
        if short_side is not None:
            drafted = image.draft("L" if mode == "L" else None, (short_side, short_side))
        deep = _has_sixteen_bits(image, content)
        turned_by_pillow = _orientation(image) if image.format == "TIFF" else 1
        image.load()
        if deep:
            _refuse_unused_bits(image)
        orientation = _orientation(image)
        plain = _eight_bit(image).convert(mode)
    turn = _TURNS.get(orientation)
    height, width = plain.height, plain.width
    if turn is None and turned_by_pillow > 1:
        orientation = turned_by_pillow
        if orientation >= 5:
            height, width = width, height
    stored = (height, width)
    place = regions.unchanged(height=height, width=width)
    if drafted is not None:
        # The last block may be filled up beyond the image, so the scale is not the ratio of sizes.
        _, (_, _, right, down) = drafted
        whole = (before[1], before[0])
        place = regions.scaled(
            down=down / whole[0], right=right / whole[1], before=whole, after=stored
        )
    place = place.then(regions.turned(orientation, before=stored))
    return plain if turn is None else plain.transpose(turn), place


def loaded_as_stored(image: Image.Image) -> Image.Image:
    """Loads an opened image, and returns it with its pixels where the file stores them.

    Pillow turns TIFF upright by itself when it loads it, and no other kind of file.
    """
    turned_by_pillow = _orientation(image) if image.format == "TIFF" else 1
    image.load()
    if _orientation(image) > 1:  # an orientation that still stands was not applied
        return image
    turn = _TURNS.get({6: 8, 8: 6}.get(turned_by_pillow, turned_by_pillow))
    return image if turn is None else image.transpose(turn)


def _check_size(image: Image.Image, *, any_size: bool) -> None:
    low, high = sorted(image.size)
    if not any_size and (low < MIN_SIDE or high > MAX_SIDE or high > MAX_ASPECT * low):
        raise ImageProblem(
            "absurd_image_size",
            f"The image has {image.width}x{image.height} pixels. The sides of a radiograph have "
            f"{MIN_SIDE} to {MAX_SIDE} pixels, and a ratio of at most {MAX_ASPECT:g}.",
        )


def _orientation(image: Image.Image) -> int:
    """Returns the value of the EXIF orientation, 1 for none.

    It is read after loading: PNG may store it after the pixels, and Pillow rotates TIFF itself.
    """
    try:
        value = image.getexif().get(_ORIENTATION) or 1
        # Pillow returns bytes as bytes, and several numbers as a tuple.
        return int(value[0] if isinstance(value, bytes | tuple) else value)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error, EOFError):
        return 1


def _has_sixteen_bits(image: Image.Image, content: bytes) -> bool:
    """Returns whether channels of 16 bits are stored.

    It must be called before loading, which discards this information.
    """
    if image.format == "JPEG2000":
        return codestream.read_header(content).precision > 15
    for codec, _, _, settings in getattr(image, "tile", ()):
        settings = settings if isinstance(settings, tuple) else (settings,)
        if codec == "SGI16" or (codec == "sgi_rle" and settings[-1] == 2):
            return True
        if codec in ("ppm", "ppm_plain") and settings[-1] > 0x7FFF:
            return True
        if any(_SIXTEEN_BITS.search(name) for name in settings if isinstance(name, str)):
            return True
    return False


def _refuse_unused_bits(image: Image.Image) -> None:
    """Refuses images that Pillow made almost black by keeping 8 bits of which few are in use."""
    if image.mode.startswith(("I", "F")):
        return  # Pillow kept all bits
    channels = zip(image.getbands(), image.split(), strict=True)
    shown = [np.asarray(channel) for name, channel in channels if name not in _ALPHA]
    if max(int(channel.max()) for channel in shown) < 128:
        raise ImageProblem(
            "undecodable_image",
            "The image has 16 bits a channel, of which the highest are not used, so that it would "
            "come out almost black. Store it as grey of 16 bits without transparency, or with 8 "
            "bits a channel.",
        )


def _eight_bit(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    kind = np.atleast_1d(tags.get(_TIFF_FORMAT, _TIFF_UNSIGNED))[0]
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image)
        bits = np.atleast_1d(tags.get(_TIFF_BITS, 0))[0]
        if tags and image.mode == "I" and bits == 32 and kind == _TIFF_UNSIGNED:
            pixels = pixels.view(np.uint32)  # Pillow has no unsigned 32-bit type
        # Pillow inverts only images of 8 bits or fewer.
        inverted = tags.get(_TIFF_PHOTOMETRIC) == _TIFF_MIN_IS_WHITE
        return _stretched(pixels, inverted=inverted)
    if image.mode == "L" and kind == _TIFF_SIGNED:
        return _stretched(np.asarray(image).view(np.int8), inverted=False)
    if image.mode in _GREY:
        return image.convert("L")
    if image.mode in _COLOUR:
        return image if image.mode == "RGB" else image.convert("RGB")
    raise ImageProblem("undecodable_image", f"Colours of the mode {image.mode} are not supported.")


def _stretched(pixels: np.ndarray, *, inverted: bool) -> Image.Image:
    """Stretches the range in use to 0 to 255, or to 255 to 0 if `inverted`."""
    pixels = pixels.astype(np.float64) * (-1 if inverted else 1)
    low, high = float(pixels.min()), float(pixels.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ImageProblem("undecodable_image", "The image has pixels that are not finite.")
    if high == low:
        return Image.new("L", pixels.shape[::-1])
    return Image.fromarray(np.rint((pixels - low) * (255.0 / (high - low))).astype(np.uint8))
