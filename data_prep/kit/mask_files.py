"""Reads the file of a mask: an image whose pixels are the region or not."""

import functools
import pathlib
import warnings

import numpy as np
from PIL import Image

from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.images import ImageProblem

MISSING_MASK = "missing_mask"
UNREADABLE_MASK = "undecodable_mask"
_LOSSY = ("JPEG", "MPO")


def read_mask(path: pathlib.Path) -> np.ndarray:
    """Reads a mask: pixels that are not black.

    The values of a palette are looked up, and a pixel that is wholly transparent counts as black.
    LoVT's release takes the indices of its own GIF files for the mask, so that one which covers the
    whole image becomes empty (quirk L7).

    Returns:
      bool[height, width].

    Raises:
      ImageProblem: `missing_mask`, or `undecodable_mask` if the file is no whole image, or a JPEG,
        which is not black where it should be.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1:
                    raise ImageProblem(UNREADABLE_MASK, f"{path.name} has {frames} frames")
                if image.format in _LOSSY:
                    detail = f"{path.name} is a JPEG, which blurs a mask; write it as PNG"
                    raise ImageProblem(UNREADABLE_MASK, detail)
                image.load()
                if image.has_transparency_data:
                    values = np.asarray(image.convert("RGBA"))
                    return (values[:, :, :3].max(axis=2) > 0) & (values[:, :, 3] > 0)
                if image.mode.startswith(("I", "F")):  # more than 8 bits, which "RGB" would cut off
                    return np.asarray(image) > 0
                return np.asarray(image.convert("RGB")).max(axis=2) > 0
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ImageProblem(MISSING_MASK, f"there is no {path.name}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        said = str(error).replace(str(path), path.name)
        raise ImageProblem(UNREADABLE_MASK, f"{path.name}: {said}") from error


def region_of(path: pathlib.Path, *, label: str) -> ImageRegion:
    """Returns the region of a mask's file, which is read when the mask is drawn.

    A mask without a pixel says that the finding is not there, and becomes no region.
    """
    return ImageRegion(label=label, mask=functools.partial(_drawn, path), may_be_empty=True)


def _drawn(path: pathlib.Path, height: int, width: int) -> np.ndarray:
    del height, width  # a mask of another size is refused behind this, an empty one too
    return read_mask(path)
