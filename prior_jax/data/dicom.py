"""DICOM radiographs (RSNA, SIIM) -> 8-bit gray, bone white.

Reading needs pydicom, which `pip install prior_jax[dicom]` brings.
"""

import dataclasses
import io

import numpy as np

from prior_jax.errors import DataError

INVERTED, PLAIN = "MONOCHROME1", "MONOCHROME2"
_WHITE = 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class Radiograph:
    """What a file holds.

    Attributes:
      pixels: int or uint[H, W], as stored.
      photometric: "MONOCHROME1", where the lowest value is white, or "MONOCHROME2".
      slope: stored values times this ...
      intercept: ... plus this are the values the window speaks of.
      window: its centre and width, or None.
    """

    pixels: np.ndarray
    photometric: str
    slope: float = 1.0
    intercept: float = 0.0
    window: tuple[float, float] | None = None


def read(content: bytes, *, name: str) -> Radiograph:
    """Reads one file.

    Args:
      content: the file.
      name: of the file, for errors.

    Raises:
      DataError: naming the file and the reason, if pydicom is absent, the file is not DICOM,
        damaged, has several frames, or is not gray.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DataError(
            name, received="pydicom is not installed", accepted="pip install prior_jax[dicom]"
        ) from error
    try:
        file = pydicom.dcmread(io.BytesIO(content))
        pixels = file.pixel_array
        photometric = str(file.PhotometricInterpretation)
        # A file may offer several windows; the first is the one to start with.
        centres, widths = (
            np.atleast_1d(np.asarray(file.get(field, []), np.float64))
            for field in ("WindowCenter", "WindowWidth")
        )
        slope, intercept = (
            float(file.get(field, default))
            for field, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
        )
    # pydicom hands on whatever its decoders and parsers raise.
    except Exception as error:
        raise DataError(
            name, received=f"{type(error).__name__}: {error}", accepted="a whole DICOM image"
        ) from error
    if photometric not in (INVERTED, PLAIN):
        raise DataError(
            f"{name}: PhotometricInterpretation", received=photometric, accepted="a gray image"
        )
    if pixels.ndim != 2 or pixels.size == 0:
        raise DataError(f"{name}: pixels", received=pixels.shape, accepted="one frame")
    window = (float(centres[0]), float(widths[0])) if len(centres) and len(widths) else None
    return Radiograph(
        pixels=pixels, photometric=photometric, slope=slope, intercept=intercept, window=window
    )


def eight_bit(image: Radiograph) -> np.ndarray:
    """Maps the window, or without one the range of values, to 0 to 255.

    Returns:
      uint8[H, W], bone white; a plain image without a window is black.

    Source: DICOM PS3.3, C.11.2.1.2 (linear function).
    """
    values = image.pixels.astype(np.float64) * image.slope + image.intercept
    if image.window is None or image.window[1] <= 1:
        low, high = float(values.min()), float(values.max())
    else:
        centre, width = image.window
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    span = high - low if high > low else 1.0
    gray = np.rint(np.clip((values - low) / span, 0, 1) * _WHITE).astype(np.uint8)
    return _WHITE - gray if image.photometric == INVERTED else gray


def eight_bit_as_released(image: Radiograph) -> np.ndarray:
    """Scales the largest stored value to 255 and looks at neither window nor slope.

    Returns:
      uint8[H, W], bone white.

    Raises:
      DataError: if no value is above 0, where the release divides by 0.

    Source: GLoRIA's release, gloria/datasets/image_dataset.py (read_from_dicom), which relies on
      cv2.convertScaleAbs.
    """
    largest = int(image.pixels.max())
    if largest <= 0:
        raise DataError("largest pixel", received=largest, accepted="above 0")
    scaled = np.abs(image.pixels.astype(np.float32) * np.float32(_WHITE / largest))
    gray = np.clip(np.rint(scaled), 0, _WHITE).astype(np.uint8)
    return _WHITE - gray if image.photometric == INVERTED else gray
