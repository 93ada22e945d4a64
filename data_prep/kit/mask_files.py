"""Reads the file of a mask: an image whose pixels are the region or not."""

import functools
import io
import pathlib
import struct
import warnings
from typing import Any

import numpy as np
from PIL import Image

from data_prep.kit.image_regions import ImageRegion
from prior_jax.data import decode
from prior_jax.data.decode import ImageProblem

MISSING_MASK = "missing_mask"
UNREADABLE_MASK = "undecodable_mask"
# Kinds of files that keep every pixel as it is, but for TIFF with one of these compressions, by
# Pillow's names. WebP and JPEG 2000 may keep every pixel too, but their files do not say so.
_EXACT = ("PNG", "TIFF", "GIF", "BMP")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp", "tiff_sgilog", "tiff_sgilog24")
_PNG_BITS, _PNG_COLOURS = 24, 25  # places in the file, PNG 3rd edition, 5.2 and 11.2.1
_PNG_SEVERAL_CHANNELS = (2, 4, 6)  # colour, grey with transparency, colour with transparency
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8
_TIFF_MIN_IS_WHITE = 0


def read_mask(path: pathlib.Path) -> np.ndarray:
    """Reads a mask: pixels that are not black, where the file stores them.

    The values of a palette are looked up, and a pixel that is wholly transparent counts as black.
    The orientation of a photograph is not applied, since it is not applied to boxes and masks of an
    image either: they follow the image when it is turned. LoVT's release takes the indices of its
    own GIF files for the mask, so that one which covers the whole image becomes empty (quirk L7).

    Returns:
      bool[height, width].

    Raises:
      ImageProblem: `missing_mask`, or `undecodable_mask` if the file is no whole image, is of a
        kind that blurs a mask, or stores what cannot be told from black.
    """
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                _refuse_unfit(image, content, name=path.name)
                return _not_black(decode.loaded_as_stored(image), name=path.name)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ImageProblem(MISSING_MASK, f"there is no {path.name}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageProblem(UNREADABLE_MASK, f"{path.name} is no image that can be read") from error
    except (
        *(OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning),
        # Pillow's readers raise these on damaged files.
        *(EOFError, KeyError, IndexError, TypeError, struct.error, ArithmeticError, RuntimeError),
    ) as error:
        said = f"{type(error).__name__}: {error}"
        raise ImageProblem(UNREADABLE_MASK, f"{path.name}: {said}") from error


def region_of(path: pathlib.Path, *, label: str) -> ImageRegion:
    """Returns the region of a mask's file, which is read when the mask is drawn.

    A mask without a pixel says that the finding is not there, and becomes no region.
    """
    return ImageRegion(label=label, mask=functools.partial(_drawn, path), may_be_empty=True)


def _drawn(path: pathlib.Path, height: int, width: int) -> np.ndarray:
    del height, width  # a mask of another size is refused behind this, an empty one too
    return read_mask(path)


def _refuse_unfit(image: Image.Image, content: bytes, *, name: str) -> None:
    """Refuses an opened file that does not say of each pixel whether it is black."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageProblem(UNREADABLE_MASK, f"{name} has {frames} frames")
    packed = image.info.get("compression") if image.format == "TIFF" else None
    if image.format not in _EXACT or packed in _LOSSY_IN_TIFF:
        kind = f"TIFF with {packed} in it" if packed else image.format
        detail = f"{name} is {kind}, which may blur a mask; write it as PNG, TIFF, GIF or BMP"
        raise ImageProblem(UNREADABLE_MASK, f"{detail}, without loss")
    if _loses_bits(image, content):
        detail = f"{name} has 16 bits a channel in colour or with transparency, of which the lower"
        raise ImageProblem(UNREADABLE_MASK, f"{detail} 8 are not read; write it as 8-bit grey")
    if image.format == "TIFF" and image.mode.startswith(("I", "F")):
        # Pillow inverts only images of 8 bits or fewer.
        if _tag(image, _TIFF_PHOTOMETRIC) == _TIFF_MIN_IS_WHITE:
            detail = f"{name} has more than 8 bits, of which 0 is white; write it as 8-bit grey"
            raise ImageProblem(UNREADABLE_MASK, detail)


def _loses_bits(image: Image.Image, content: bytes) -> bool:
    """Returns whether Pillow keeps 8 of the bits of each channel, so that small values are 0."""
    if image.format == "PNG":
        return content[_PNG_BITS] > 8 and content[_PNG_COLOURS] in _PNG_SEVERAL_CHANNELS
    if image.format == "TIFF":
        bits = np.atleast_1d(_tag(image, _TIFF_BITS))
        return len(bits) > 1 and bool(bits.max() > 8)
    return False


def _tag(image: Image.Image, number: int) -> Any:
    """Returns the value of a TIFF's tag; 1, the default of those that are read here, for none."""
    return getattr(image, "tag_v2", {}).get(number, 1)


def _not_black(image: Image.Image, *, name: str) -> np.ndarray:
    if image.has_transparency_data:
        values = np.asarray(image.convert("RGBA"))
        alpha = values[:, :, 3]
        found = (values[:, :, :3].max(axis=2) > 0) & (alpha > 0)
        if not found.any() and alpha.min() < alpha.max():
            detail = f"{name} is black, and its transparency alone differs from pixel to pixel"
            raise ImageProblem(UNREADABLE_MASK, f"{detail}; write the mask as 8-bit grey")
        return found
    if image.mode.startswith(("I", "F")):  # more than 8 bits, which "RGB" would cut off
        values = np.asarray(image)
        if not (values >= 0).all():  # also of NaN, and of 32 bits of which the highest is set
            detail = f"{name} has values that are below 0, no numbers, or above 2147483647"
            raise ImageProblem(UNREADABLE_MASK, f"{detail}; write it as 8-bit grey")
        return values > 0
    return np.asarray(image.convert("RGB")).max(axis=2) > 0
