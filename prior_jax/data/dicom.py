"""Renders DICOM radiographs as 8-bit grey, bone white, as a viewer shows them.

Reading needs pydicom, which `pip install prior_jax[dicom]` installs. The steps are those of DICOM
PS3.3: stored values, modality transformation (C.11.1), value of interest (C.11.2), presentation
(C.11.6).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from prior_jax.data.dicom_decoders import DicomProblem
from prior_jax.data.dicom_file import INVERTED, MARK, PLAIN, Radiograph, parse
from prior_jax.data.quiet import without_warnings
from prior_jax.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
_OTHER_MARKS = (b"\xff\xd8", b"\x89PNG")  # JPEG and PNG, whatever the name of the file
_WHITE = 255
_WINDOW_BITS = 16  # windows are mapped to 0 .. 2**16 - 1 before rounding to 8 bits
_PACKED_BITS, _WORD_BITS = 8, 16  # entries of a LUT are stored in bytes or in words


def is_dicom(content: bytes, *, name: str) -> bool:
    """Returns whether a file is DICOM, by its mark or, without a preamble, by its name."""
    named = name.lower().endswith(ENDINGS) and not content.startswith(_OTHER_MARKS)
    return content[MARK] == b"DICM" or named


def grey(content: bytes, *, name: str) -> np.ndarray:
    """Reads a file and renders it: uint8[H, W], bone white.

    Args:
      content: content of the file.
      name: name of the file; one that ends in .dcm may lack the preamble.

    Raises:
      DicomProblem: for the reasons that `parse` and `shown` list.
    """
    return shown(parse(content, name=name))


def shown(image: Radiograph) -> np.ndarray:
    """Maps the values to 0 to 255 as a viewer does by default.

    The steps are: modality LUT or rescale; then the first VOI LUT, or else the first window
    (linear, exactly linear or sigmoid), or without either the range of values. Padding is left out
    of that range and is black. MONOCHROME1, and the presentation shape INVERSE, are inverted.

    Returns:
      Image, uint8[H, W], bone white; an image with a single value is black.

    Raises:
      DicomProblem: `undecodable_image` for an invalid header, or a window that contains none of the
        pixels.

    Source: DICOM PS3.3, C.11.1, C.11.2, C.11.6, C.7.5.1.1.2; the arithmetic of the modality and of
      windows is pydicom's.
    """
    header = image.header
    padding = image.padding
    if padding is None:
        padding = np.zeros(image.pixels.shape, bool)
    kept = image.pixels[~padding]
    if not kept.size or kept.min() == kept.max():
        return np.zeros(image.pixels.shape, np.uint8)
    try:
        with without_warnings():
            values = _modality(image.pixels, header)
            scaled = _of_interest(values, header, kept=~padding)
    except DicomProblem:
        raise
    except Exception as error:  # an element of the wrong type can fail wherever it is used
        text = " ".join(f"{type(error).__name__}: {error}".split())
        detail = f"The header cannot be followed ({text})."
        raise DicomProblem("undecodable_image", detail) from error
    gray = np.rint(np.clip(scaled, 0, 1) * _WHITE).astype(np.uint8)
    if gray[~padding].min() == gray[~padding].max():
        raise DicomProblem("undecodable_image", _shows_none(values[~padding], header))
    shape = "" if header is None else str(header.get("PresentationLUTShape", ""))
    inverse = shape.strip().upper() == "INVERSE"
    if image.photometric == INVERTED or inverse:
        gray = _WHITE - gray
    gray[padding] = 0
    return gray


def _shows_none(values: np.ndarray, header: "Dataset | None") -> str:
    """Returns the error message for an image rendered in one grey, with its cause."""
    span = f"the values of the image, {values.min():g} to {values.max():g}"
    if header is not None and "VOILUTSequence" in header:
        return f"The VOI LUT lies outside {span}, and gives all of them the same grey."
    return f"The window shows none of {span}."


def _modality(pixels: np.ndarray, header: "Dataset | None") -> np.ndarray:
    """Returns the values that the windows refer to."""
    from pydicom.pixels.processing import apply_modality_lut

    if header is None:
        return pixels
    given = "RescaleSlope" in header or "RescaleIntercept" in header
    if given and "ModalityLUTSequence" not in header:
        header.RescaleSlope = header.get("RescaleSlope", 1)
        header.RescaleIntercept = header.get("RescaleIntercept", 0)
        if float(header.RescaleSlope) == 0:
            raise DicomProblem(
                "undecodable_image", "RescaleSlope is 0, which gives all pixels the same value."
            )
    # 64 bits, because pydicom subtracts the first value of a LUT in the type of the pixels.
    values = apply_modality_lut(pixels.astype(np.int64), header)
    whole = np.rint(values)
    return whole.astype(np.int64) if np.array_equal(whole, values) else values


def _of_interest(values: np.ndarray, header: "Dataset | None", *, kept: np.ndarray) -> np.ndarray:
    """Maps values to float64[H, W], 0 for black and 1 for white before the presentation."""
    from pydicom import Dataset
    from pydicom.pixels.processing import apply_windowing

    if header is not None and "PresentationLUTSequence" in header:
        raise DicomProblem(
            "undecodable_image", "The file has a PresentationLUTSequence, which is not supported."
        )
    if header is not None and "VOILUTSequence" in header:
        syntax = header.file_meta.TransferSyntaxUID
        return _by_lut(values, header.VOILUTSequence[0], syntax=syntax)
    if header is not None and "WindowCenter" in header and "WindowWidth" in header:
        window = Dataset()
        window.PhotometricInterpretation = PLAIN
        # If unsigned and without rescaling, the window's output is 0 .. 2**bits - 1 whatever the
        # input.
        window.PixelRepresentation, window.BitsStored = 0, _WINDOW_BITS
        # A file may contain several windows; the first is the default.
        window.WindowCenter = _first(header.WindowCenter)
        window.WindowWidth = _first(header.WindowWidth)
        if "VOILUTFunction" in header:
            window.VOILUTFunction = header.VOILUTFunction
        return apply_windowing(values, window) / (2.0**_WINDOW_BITS - 1)
    low, high = float(values[kept].min()), float(values[kept].max())
    if low == high:
        raise DicomProblem(
            "undecodable_image", f"The modality LUT gives all pixels the same value, {low:g}."
        )
    return (values - low) / (high - low)


def _by_lut(values: np.ndarray, item: "Dataset", *, syntax: "UID") -> np.ndarray:
    """Returns what a VOI LUT makes of values, on a scale of 0 to 1.

    Values beyond the table get its first or last entry. A descriptor of 16 bits may only say how
    the entries are stored, as in files of computed radiography by Agfa: the scale then has as many
    bits as the largest entry needs.
    """
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    if not 0 < bits <= _WORD_BITS:
        raise DicomProblem(
            "undecodable_image",
            f"The entries of the VOI LUT have {bits} bits by its descriptor; at most {_WORD_BITS} "
            "are supported.",
        )
    count = count or 2**_WORD_BITS
    entries = _entries(item, count, bits=bits, syntax=syntax)
    if bits == _WORD_BITS:
        bits = max(int(entries.max()).bit_length(), 1)
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    return entries[places] / (2.0**bits - 1)


def _entries(item: "Dataset", count: int, *, bits: int, syntax: "UID") -> np.ndarray:
    """Returns the entries of a LUT, of which those of 8 bits may be stored two in a word."""
    data = item.LUTData
    if isinstance(data, bytes):
        data += b"\0" * (len(data) % 2)
        words = np.frombuffer(data, "<u2" if syntax.is_little_endian else ">u2")
    else:
        words = np.atleast_1d(np.asarray(data, np.uint16))
    if bits == _PACKED_BITS and len(words) == (count + 1) // 2 < count:
        words = words.astype("<u2").view(np.uint8)
    return words[:count]


def _first(value: Any) -> float:
    return float(value if isinstance(value, int | float | str) else np.atleast_1d(value)[0])


def eight_bit_as_released(image: Radiograph) -> np.ndarray:
    """Scales the largest stored value to 255, ignoring window and slope.

    Returns:
      Image, uint8[H, W], bone white.

    Raises:
      DataError: if no value is above 0, where the release divides by 0.

    Source: GLoRIA's release, gloria/datasets/image_dataset.py (read_from_dicom), which relies on
      cv2.convertScaleAbs.
    """
    largest = int(image.pixels.max())
    if largest <= 0:
        raise DataError(
            f"The largest pixel is {largest}, and GLoRIA's release divides by it.",
            "Give an image with a pixel above 0.",
        )
    scaled = np.abs(image.pixels.astype(np.float32) * np.float32(_WHITE / largest))
    gray = np.clip(np.rint(scaled), 0, _WHITE).astype(np.uint8)
    return _WHITE - gray if image.photometric == INVERTED else gray
