"""Fixed changes of the grey levels of an image: equalisation, and stretching to white.

They are part of the model's input (`image.ImageConfig`), not of the augmentation: training,
evaluation and the Python interface make them alike.
"""

import numpy as np
from PIL import Image

EQUALIZED = (0.5, 12**-0.5)
"""Mean and standard deviation of equalised images, on a scale of 0 to 1: of a uniform number."""

_LEVELS = 256
_WHITE = 255


def equalized(image: Image.Image) -> Image.Image:
    """Equalises the histogram of an image: a pixel's level becomes the share of pixels up to it.

    Channels have one histogram together, so that grey in three channels stays grey.

    Args:
      image: image of mode "L" or "RGB".

    Returns:
      An image of the same mode and size, whose levels are 255 times `shares`, rounded down.

    Source: LoVT, release, src/data/datasets/nih_cxr/nih_cxr_dataset.py and three others,
      `process_image`. Of Object-CXR and COVID Rural LoVT stores the result as JPEG (quirk L15);
      here the stored image is equalised whenever it is read.
    """
    pixels = np.asarray(image)
    return Image.fromarray((shares(pixels)[pixels] * _WHITE).astype(np.uint8))


def shares(pixels: np.ndarray) -> np.ndarray:
    """Returns float64[256]: for each level the share of the pixels up to it.

    The pixels are counted in 256 bins from the darkest level to the brightest, and the shares are
    interpolated between the centres of the bins.

    Args:
      pixels: levels, uint8[...], at least one.

    Source: skimage.exposure.equalize_hist of an image in floats, as LoVT calls it.
    """
    count = np.bincount(pixels.reshape(-1), minlength=_LEVELS)
    level = np.arange(_LEVELS) / _WHITE
    there = level[count > 0]
    binned, edges = np.histogram(
        level, bins=_LEVELS, range=(there[0], there[-1]), weights=count.astype(np.float64)
    )
    centres = (edges[:-1] + edges[1:]) / 2
    return np.interp(level, centres, binned.cumsum() / pixels.size)


def white_at_most(image: Image.Image) -> Image.Image:
    """Multiplies the levels of an image so that its brightest pixel is white.

    Args:
      image: image of mode "L" or "RGB"; a black one is returned as it is.

    Returns:
      An image of the same mode and size; levels are rounded to even.

    Source: MGCA, release, mgca/datasets/utils.py, `read_from_dicom` (cv2.convertScaleAbs).
    """
    pixels = np.asarray(image)
    brightest = int(pixels.max())
    if brightest in (0, _WHITE):
        return image
    # OpenCV multiplies in single precision.
    table = np.arange(_LEVELS, dtype=np.float32) * np.float32(_WHITE / brightest)
    return Image.fromarray(np.rint(np.minimum(table, _WHITE)).astype(np.uint8)[pixels])
