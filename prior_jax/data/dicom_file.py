"""Reads a DICOM file: stored values, the header elements that affect rendering, and padding."""

import dataclasses
import io
import types
from typing import TYPE_CHECKING

import numpy as np

from prior_jax.data import dicom_decoders
from prior_jax.data.dicom_decoders import DicomProblem
from prior_jax.data.quiet import without_warnings
from prior_jax.errors import first_line

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

INVERTED, PLAIN = "MONOCHROME1", "MONOCHROME2"
MARK = slice(128, 132)  # PS3.10, 7.1: "DICM" after the preamble
# Enhanced files store these elements for each frame, or for all frames, in a sequence of functional
# groups (PS3.3, C.7.6.16); the frame's own group takes precedence.
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_GROUPED = {
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Radiograph:
    """Contents of a DICOM file.

    Attributes:
      pixels: stored pixel values, int or uint[H, W].
      photometric: photometric interpretation: "MONOCHROME1", where the lowest value is white, or
        "MONOCHROME2".
      header: elements that affect rendering, without empty ones; None for plain pixels.
      padding: mask of the pixels that do not belong to the image, bool[H, W]; None for none.
    """

    pixels: np.ndarray
    photometric: str
    header: "Dataset | None" = None
    padding: np.ndarray | None = None


def parse(content: bytes, *, name: str) -> Radiograph:
    """Reads one file.

    Args:
      content: content of the file.
      name: name of the file.

    Returns:
      Pixels as stored, reduced to the bits in use, with the header's elements and the padding.

    Raises:
      DicomProblem: `dicom_without_decoder` if pydicom or the decoder of its compression is not
        installed, `several_frames`, `colour_dicom`, `absurd_image_size` or `undecodable_image`.
    """
    pydicom = _pydicom()
    with without_warnings():  # pydicom warns of values that do not affect the pixels
        try:
            file = pydicom.dcmread(io.BytesIO(content), force=content[MARK] != b"DICM")
            photometric = _one_grey_frame(file)
            pixels, precision = dicom_decoders.decoded(file, content)
            if pixels.ndim != 2 or not pixels.size:
                detail = f"The pixels have the shape {pixels.shape}, which is not one frame."
                raise DicomProblem("several_frames", detail)
            used = _used_bits(pixels, file, precision=precision)
            header = _header(file)
            return Radiograph(
                pixels=used,
                photometric=photometric,
                header=header,
                padding=_padding(pixels, used, header=header, allocated=int(file.BitsAllocated)),
            )
        except DicomProblem:
            raise
        except Exception as error:  # pydicom raises any exception of its decoders and parsers
            text = " ".join(f"{type(error).__name__}: {error}".split())
            detail = f"The file cannot be read ({text[:300]})."
            raise DicomProblem("undecodable_image", detail) from error


def _pydicom() -> types.ModuleType:
    """Imports pydicom; raises an error with the reason if it cannot be imported."""
    try:
        import pydicom
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "pydicom"
        detail = "is not installed" if missing else f"cannot be imported ({first_line(error)})"
        raise DicomProblem(
            "dicom_without_decoder",
            f"The package pydicom {detail}. Run pip install 'prior_jax[dicom]'.",
        ) from error
    return pydicom


def _one_grey_frame(file: "Dataset") -> str:
    """Returns MONOCHROME1 or MONOCHROME2; refuses files without exactly one grey frame."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "PixelData" not in file:
        raise DicomProblem("undecodable_image", "The element PixelData is missing.")
    if not getattr(file, "file_meta", None) or "TransferSyntaxUID" not in file.file_meta:
        file.ensure_file_meta()
        implicit = file.original_encoding[0]
        file.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    frames = int(file.get("NumberOfFrames") or 1)
    if frames > 1:
        detail = f"The file has {frames} frames. Give each as an image."
        raise DicomProblem("several_frames", detail)
    photometric = str(file.get("PhotometricInterpretation") or "").strip().upper()
    if not photometric:
        detail = "The element PhotometricInterpretation is missing."
        raise DicomProblem("undecodable_image", detail)
    if photometric not in (INVERTED, PLAIN):
        detail = f"PhotometricInterpretation is {photometric!r}, which is not grey."
        raise DicomProblem("colour_dicom", detail)
    samples = int(file.get("SamplesPerPixel") or 1)
    if samples != 1:
        detail = f"SamplesPerPixel is {samples}, but a grey image, {photometric}, has 1."
        raise DicomProblem("colour_dicom", detail)
    return photometric


def _used_bits(pixels: np.ndarray, file: "Dataset", *, precision: int | None) -> np.ndarray:
    """Shifts the bits at HighBit down, and clears those above BitsStored, e.g. of an overlay."""
    stored, allocated = int(file.BitsStored), int(file.BitsAllocated)
    if not 0 < stored < allocated or pixels.dtype.kind not in "iu":
        return pixels
    highest = file.get("HighBit")
    # Compressed samples that have no more bits than are stored cannot be at another position.
    if highest is not None and (precision is None or precision > stored):
        unused = int(highest) + 1 - stored
        if unused < 0 or int(highest) >= allocated:
            raise DicomProblem(
                "undecodable_image",
                f"HighBit {highest} contradicts BitsStored {stored} and BitsAllocated {allocated}.",
            )
        if np.any(pixels & ((1 << unused) - 1)):
            raise DicomProblem(
                "undecodable_image",
                f"HighBit {highest} and BitsStored {stored} leave the lowest {unused} bits "
                "unused, but the pixels use them.",
            )
        pixels = pixels >> unused
    shift = pixels.dtype.itemsize * 8 - stored
    # Shifting up and down again extends the sign of signed values.
    return (pixels << shift) >> shift if shift > 0 else pixels


def _header(file: "Dataset") -> "Dataset":
    """Returns the elements that affect rendering; an empty one counts as absent."""
    from pydicom import Dataset

    found = Dataset()
    for name in (
        "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter",
        "WindowWidth", "VOILUTFunction", "PresentationLUTShape", "PresentationLUTSequence",
        "PixelPaddingValue", "PixelPaddingRangeLimit",
    ):  # fmt: skip
        element = _element(file, name)
        if element is not None:
            found[name] = element
    if hasattr(file, "file_meta"):
        found.file_meta = file.file_meta
    return found


def _element(file: "Dataset", name: str) -> "DataElement | None":
    """Returns an element of the first frame's group, the shared group or the file itself."""
    places = [file]
    if name in _GROUPED:
        groups = [item for group in _GROUPS for item in (file.get(group) or [])[:1]]
        places = [item for group in groups for item in (group.get(_GROUPED[name]) or [])[:1]]
        places.append(file)
    for place in places:
        value = place.get(name)
        if value is not None and value != "" and (not hasattr(value, "__len__") or len(value)):
            return place[name]
    return None


def _padding(
    pixels: np.ndarray, used: np.ndarray, *, header: "Dataset", allocated: int
) -> np.ndarray | None:
    """Returns the mask of the padding pixels, bool[H, W].

    Padding is searched for with and without the bits above BitsStored: the padding value may be too
    large for BitsStored.
    """
    if "PixelPaddingValue" not in header or pixels.dtype.kind not in "iu":
        return None
    first = int(header.PixelPaddingValue)
    given = (first, int(header.get("PixelPaddingRangeLimit", first)))
    # Files write the same bits as a signed or as an unsigned number.
    low = -(1 << (allocated - 1)) if pixels.dtype.kind == "i" else 0
    least, most = sorted((value - low) % (1 << allocated) + low for value in given)
    return ((pixels >= least) & (pixels <= most)) | ((used >= least) & (used <= most))
