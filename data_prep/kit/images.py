"""Decodes a radiograph strictly, once, and re-encodes it at its stored size."""

import dataclasses
import io
import math
import struct
import warnings

import numpy as np
from PIL import Image, ImageFile

# Sides outside this range are no radiograph; beyond it a decode could eat the memory.
MIN_SIDE = 32
MAX_SIDE = 16_384
MAX_ASPECT = 8.0


class ImageProblem(Exception):
    """An image that cannot be used: `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str):
        """Keeps the reason and, in words, the detail."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class PixelSums:
    """Exact sums over pixels of 0..255, so that merging them in any order gives one result."""

    count: int = 0
    total: int = 0
    squares: int = 0

    def __add__(self, other: "PixelSums") -> "PixelSums":
        """Returns the sums over both sets of pixels."""
        return PixelSums(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def mean_and_std(self) -> tuple[float, float]:
        """Returns mean and standard deviation on a scale of 0 to 1.

        The deviation is at least one grey level, so that dividing by it is always possible.
        """
        mean = self.total / self.count
        variance = max(self.squares * self.count - self.total**2, 0) / self.count**2
        return mean / 255, max(math.sqrt(variance), 1.0) / 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image as it is stored.

    Attributes:
      encoded: grey JPEG.
      pixels: sums over the pixels that were encoded.
    """

    encoded: bytes
    pixels: PixelSums


def prepare_image(content: bytes, *, short_side: int, quality: int) -> PreparedImage:
    """Decodes an image to grey, shrinks it and encodes it as JPEG.

    Args:
      content: a JPEG, PNG or other file Pillow reads.
      short_side: pixels; a larger image is shrunk to it, its aspect ratio kept. A smaller one
        stays as it is: enlarging adds bytes and no information.
      quality: of the JPEG, 1 to 100.

    Raises:
      ImageProblem: zero_byte_image, truncated_image, undecodable_image or absurd_image_size.
    """
    if not content:
        raise ImageProblem("zero_byte_image", "the file is empty")
    # Another library may have switched this on; the release itself does, and so trains on images
    # whose lower half is grey (codes/prior/data/pretrain/mimiccxr.py).
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _decoded(content, short_side=short_side)
    except ImageProblem:
        raise
    except Image.DecompressionBombError as error:
        raise ImageProblem("absurd_image_size", str(error)) from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError) as error:
        # Pillow's readers let all of these escape on damaged files.
        kind = "truncated_image" if "truncated" in str(error).lower() else "undecodable_image"
        raise ImageProblem(kind, _described(error)) from error
    except (struct.error, ArithmeticError, MemoryError, RuntimeError) as error:
        raise ImageProblem("undecodable_image", _described(error)) from error
    return _encoded(image, short_side=short_side, quality=quality)


def _described(error: BaseException) -> str:
    text = str(error).split("<_io.BytesIO")[0].strip()
    return f"{type(error).__name__}: {text}"


def _decoded(content: bytes, *, short_side: int) -> Image.Image:
    """Returns the image in mode "L", at least twice `short_side` if it was that large."""
    with Image.open(io.BytesIO(content)) as image:
        low, high = sorted(image.size)
        if low < MIN_SIDE or high > MAX_SIDE or high > MAX_ASPECT * low:
            raise ImageProblem("absurd_image_size", f"{image.width}x{image.height} pixels")
        # libjpeg shrinks while decoding, four times faster; twice the target keeps the
        # following antialiased resize exact enough. Every byte is still read.
        image.draft("L", (2 * short_side, 2 * short_side))
        image.load()
        if image.mode.startswith(("I", "F")):
            return _windowed(np.asarray(image))
        if image.mode in ("LA", "RGBA", "PA"):
            image = image.convert("RGB") if image.mode == "RGBA" else image
        return image.convert("L")


def _windowed(pixels: np.ndarray) -> Image.Image:
    """Stretches the range in use of an image of more than 8 bits over 0..255.

    Dividing by 65535 would turn a 12-bit image black.
    """
    pixels = pixels.astype(np.float64)
    low, high = float(pixels.min()), float(pixels.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ImageProblem("undecodable_image", "pixels that are not finite")
    scaled = (pixels - low) * (255.0 / max(high - low, 1.0))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _encoded(image: Image.Image, *, short_side: int, quality: int) -> PreparedImage:
    scale = short_side / min(image.size)
    if scale < 1:
        width, height = (max(round(side * scale), short_side) for side in image.size)
        # Averaging whole blocks first (reducing_gap) is what makes a large factor cheap.
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    levels = image.histogram()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return PreparedImage(
        encoded=buffer.getvalue(),
        pixels=PixelSums(
            count=sum(levels),
            total=sum(level * count for level, count in enumerate(levels)),
            squares=sum(level * level * count for level, count in enumerate(levels)),
        ),
    )
