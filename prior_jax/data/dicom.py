"""DICOM radiographs -> 8-bit grey, bone white, as a viewer shows them.

Reading needs pydicom, which `pip install prior_jax[dicom]` brings. The steps are those of DICOM
PS3.3: stored values, modality transformation (C.11.1), value of interest (C.11.2), presentation
(C.11.6).
"""

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from prior_jax.errors import DataError, InputProblem

if TYPE_CHECKING:
    from pydicom import Dataset

INVERTED, PLAIN = "MONOCHROME1", "MONOCHROME2"
MARK = slice(128, 132)  # PS3.10, 7.1: "DICM" behind the preamble
ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
_OTHER_MARKS = (b"\xff\xd8", b"\x89PNG")  # JPEG and PNG, whatever they are called
_DECODERS = logging.getLogger("pydicom.pixels.decoders.base")
_WHITE = 255
_WINDOW_BITS = 16  # windows are mapped to 0 .. 2**16 - 1 before they are rounded to 8 bits


class DicomProblem(InputProblem):
    """A DICOM file that cannot be shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Radiograph:
    """What a file holds.

    Attributes:
      pixels: int or uint[H, W], as stored.
      photometric: "MONOCHROME1", where the lowest value is white, or "MONOCHROME2".
      header: the elements that say how the values are shown, empty ones left out; None for plain
        pixels.
    """

    pixels: np.ndarray
    photometric: str
    header: "Dataset | None" = None


def is_dicom(content: bytes, *, name: str) -> bool:
    """Whether a file is DICOM, by its mark or, where it lacks a preamble, by its name."""
    named = name.lower().endswith(ENDINGS) and not content.startswith(_OTHER_MARKS)
    return content[MARK] == b"DICM" or named


def grey(content: bytes, *, name: str) -> np.ndarray:
    """Reads a file and shows it: uint8[H, W], bone white.

    Args:
      content: the file.
      name: name of the file; one that ends in .dcm may lack the preamble.

    Raises:
      DicomProblem: see `parse` and `shown`.
    """
    return shown(parse(content, name=name))


def parse(content: bytes, *, name: str) -> Radiograph:
    """Reads one file.

    Args:
      content: the file.
      name: name of the file.

    Returns:
      Pixels as stored, of the bits that are in use, and the header's elements.

    Raises:
      DicomProblem: `dicom_without_decoder` if pydicom or the decoder of its compression is not
        installed, `several_frames`, `colour_dicom`, or `undecodable_image`.
    """
    try:
        import pydicom
        from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
    except ImportError as error:
        raise DicomProblem(
            "dicom_without_decoder", "pydicom is not installed: pip install prior_jax[dicom]"
        ) from error
    file = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that do not harm the pixels
        try:
            file = pydicom.dcmread(io.BytesIO(content), force=content[MARK] != b"DICM")
            if "PixelData" not in file:
                raise DicomProblem("undecodable_image", "no element PixelData in it")
            if not getattr(file, "file_meta", None) or "TransferSyntaxUID" not in file.file_meta:
                file.ensure_file_meta()
                implicit = file.original_encoding[0]
                file.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                )
            photometric = str(file.get("PhotometricInterpretation") or "").strip().upper()
            frames = int(file.get("NumberOfFrames") or 1)
            if frames > 1:
                raise DicomProblem("several_frames", f"{frames} frames; give each as an image")
            if photometric not in (INVERTED, PLAIN):
                raise DicomProblem(
                    "colour_dicom", f"PhotometricInterpretation {photometric!r}, which is not grey"
                )
            with _quiet(_DECODERS):
                pixels = file.pixel_array
        except DicomProblem:
            raise
        except Exception as error:  # pydicom hands on whatever its decoders and parsers raise
            raise _unreadable(file, error) from error
    if pixels.ndim != 2 or not pixels.size:
        raise DicomProblem("several_frames", f"pixels of shape {pixels.shape}, not of one frame")
    return Radiograph(
        pixels=_used_bits(pixels, file), photometric=photometric, header=_header(file)
    )


def shown(image: Radiograph) -> np.ndarray:
    """Maps the values to 0 to 255 as a viewer does at first sight.

    Modality LUT or rescale; then the first VOI LUT, or else the first window (linear, exactly
    linear or sigmoid), or without either the range of values. Padding takes no part in that range
    and is black. MONOCHROME1, and the presentation shape INVERSE, are turned over.

    Returns:
      uint8[H, W], bone white; an image of one value is black.

    Raises:
      DicomProblem: `undecodable_image` for a header that cannot be followed, or a window that shows
        none of the pixels.

    Source: DICOM PS3.3, C.11.1, C.11.2, C.11.6, C.7.5.1.1.2; the arithmetic is pydicom's.
    """
    header = image.header
    padding = _padding(image.pixels, header)
    kept = image.pixels[~padding]
    if not kept.size or kept.min() == kept.max():
        return np.zeros(image.pixels.shape, np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = _modality(image.pixels, header)
            scaled = _of_interest(values, header, kept=~padding)
    except DicomProblem:
        raise
    except Exception as error:  # an element of the wrong kind fails wherever it is used
        detail = f"its header cannot be followed: {type(error).__name__}: {error}"
        raise DicomProblem("undecodable_image", detail) from error
    gray = np.rint(np.clip(scaled, 0, 1) * _WHITE).astype(np.uint8)
    if gray[~padding].min() == gray[~padding].max():
        raise DicomProblem("undecodable_image", "its window shows none of its pixels")
    inverse = header is not None and header.get("PresentationLUTShape") == "INVERSE"
    if image.photometric == INVERTED or inverse:
        gray = _WHITE - gray
    gray[padding] = 0
    return gray


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keeps a logger from printing what the exception says as well."""
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unreadable(file: Any, error: Exception) -> DicomProblem:
    """The problem of a file that pydicom could not read."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if "plugins" in text or "missing dependencies" in text:
        syntax = file.file_meta.TransferSyntaxUID.name if file is not None else "compressed"
        return DicomProblem(
            "dicom_without_decoder",
            f"no decoder for {syntax}: pip install prior_jax[dicom] ({text[:200]})",
        )
    return DicomProblem("undecodable_image", text[:300])


def _used_bits(pixels: np.ndarray, file: "Dataset") -> np.ndarray:
    """Clears what stands in the bits above BitsStored, such as an old overlay."""
    stored, allocated = int(file.BitsStored), int(file.BitsAllocated)
    if not 0 < stored < allocated or pixels.dtype.kind not in "iu":
        return pixels
    shift = pixels.dtype.itemsize * 8 - stored
    # Shifting up and down again carries the sign of signed values.
    return (pixels << shift) >> shift if shift > 0 else pixels


def _header(file: "Dataset") -> "Dataset":
    """Returns the elements that decide how values are shown; an empty one counts as absent."""
    from pydicom import Dataset

    found = Dataset()
    for name in (
        "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter",
        "WindowWidth", "VOILUTFunction", "PresentationLUTShape", "PresentationLUTSequence",
        "PixelPaddingValue", "PixelPaddingRangeLimit",
    ):  # fmt: skip
        value = file.get(name)
        if value is not None and value != "" and (not hasattr(value, "__len__") or len(value)):
            found[name] = file[name]
    if hasattr(file, "file_meta"):
        found.file_meta = file.file_meta
    return found


def _padding(pixels: np.ndarray, header: "Dataset | None") -> np.ndarray:
    """Returns bool[H, W], which pixels are padding."""
    if header is None or "PixelPaddingValue" not in header:
        return np.zeros(pixels.shape, bool)
    first = int(header.PixelPaddingValue)
    limits = sorted((first, int(header.get("PixelPaddingRangeLimit", first))))
    return (pixels >= limits[0]) & (pixels <= limits[1])


def _modality(pixels: np.ndarray, header: "Dataset | None") -> np.ndarray:
    """Returns the values that windows speak of."""
    from pydicom.pixels.processing import apply_modality_lut

    if header is None:
        return pixels
    given = "RescaleSlope" in header or "RescaleIntercept" in header
    if given and "ModalityLUTSequence" not in header:
        header.RescaleSlope = header.get("RescaleSlope", 1)
        header.RescaleIntercept = header.get("RescaleIntercept", 0)
        if float(header.RescaleSlope) == 0:
            raise DicomProblem("undecodable_image", "RescaleSlope is 0, so that every pixel is one")
    # 64 bits, because pydicom subtracts a LUT's first value in the type of the pixels.
    values = apply_modality_lut(pixels.astype(np.int64), header)
    whole = np.rint(values)
    return whole.astype(np.int64) if np.array_equal(whole, values) else values


def _of_interest(values: np.ndarray, header: "Dataset | None", *, kept: np.ndarray) -> np.ndarray:
    """Returns float64[H, W], 0 for black and 1 for white before the presentation."""
    from pydicom import Dataset
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if header is not None and "PresentationLUTSequence" in header:
        raise DicomProblem("undecodable_image", "a PresentationLUTSequence, which is not followed")
    if header is not None and "VOILUTSequence" in header:
        item = header.VOILUTSequence[0]
        entries, first, bits = item.LUTDescriptor
        table = Dataset()
        table.file_meta = header.file_meta
        table.VOILUTSequence = [item]
        # pydicom counts input values in the type of the output: 8 bits would wrap round.
        item.LUTDescriptor = [entries, first, max(int(bits), _WINDOW_BITS)]
        return apply_voi(np.rint(values).astype(np.int64), table) / (2.0 ** int(bits) - 1)
    if header is not None and "WindowCenter" in header and "WindowWidth" in header:
        window = Dataset()
        window.PhotometricInterpretation = PLAIN
        # Unsigned and without rescaling, the window's output is 0 .. 2**bits - 1 whatever the
        # input.
        window.PixelRepresentation, window.BitsStored = 0, _WINDOW_BITS
        # A file may offer several windows; the first is the one to start with.
        window.WindowCenter = _first(header.WindowCenter)
        window.WindowWidth = _first(header.WindowWidth)
        if "VOILUTFunction" in header:
            window.VOILUTFunction = header.VOILUTFunction
        return apply_windowing(values, window) / (2.0**_WINDOW_BITS - 1)
    low, high = float(values[kept].min()), float(values[kept].max())
    return (values - low) / (high - low)


def _first(value: Any) -> float:
    return float(value if isinstance(value, int | float | str) else np.atleast_1d(value)[0])


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
