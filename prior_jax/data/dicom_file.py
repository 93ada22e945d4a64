"""A DICOM file -> stored values, what its header says of showing them, and its padding."""

import dataclasses
import io
import types
import warnings
from typing import TYPE_CHECKING

import numpy as np

from prior_jax.data import dicom_decoders
from prior_jax.data.dicom_decoders import DicomProblem as DicomProblem
from prior_jax.errors import first_line

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

INVERTED, PLAIN = "MONOCHROME1", "MONOCHROME2"
MARK = slice(128, 132)  # PS3.10, 7.1: "DICM" behind the preamble
# Enhanced files say these of each frame, or of all, in a sequence of functional groups (PS3.3,
# C.7.6.16); the frame's own group comes first.
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
    """What a file holds.

    Attributes:
      pixels: int or uint[H, W], as stored.
      photometric: "MONOCHROME1", where the lowest value is white, or "MONOCHROME2".
      header: the elements that say how the values are shown, empty ones left out; None for plain
        pixels.
      padding: bool[H, W], which pixels are none of the image; None for none.
    """

    pixels: np.ndarray
    photometric: str
    header: "Dataset | None" = None
    padding: np.ndarray | None = None


def parse(content: bytes, *, name: str) -> Radiograph:
    """Reads one file.

    Args:
      content: the file.
      name: name of the file.

    Returns:
      Pixels as stored, of the bits that are in use, the header's elements and the padding.

    Raises:
      DicomProblem: `dicom_without_decoder` if pydicom or the decoder of its compression is not
        installed, `several_frames`, `colour_dicom`, `absurd_image_size` or `undecodable_image`.
    """
    pydicom = _pydicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that do not harm the pixels
        try:
            file = pydicom.dcmread(io.BytesIO(content), force=content[MARK] != b"DICM")
            photometric = _one_grey_frame(file)
            pixels, precision = dicom_decoders.decoded(file, content)
            if pixels.ndim != 2 or not pixels.size:
                detail = f"pixels of shape {pixels.shape}, not of one frame"
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
        except Exception as error:  # pydicom hands on whatever its decoders and parsers raise
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise DicomProblem("undecodable_image", text[:300]) from error


def _pydicom() -> types.ModuleType:
    """Imports pydicom, or says why it cannot be imported."""
    try:
        import pydicom
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "pydicom"
        detail = "is not installed" if missing else f"cannot be imported: {first_line(error)}"
        raise DicomProblem(
            "dicom_without_decoder", f"pydicom {detail}: pip install prior_jax[dicom]"
        ) from error
    return pydicom


def _one_grey_frame(file: "Dataset") -> str:
    """Returns MONOCHROME1 or MONOCHROME2; refuses anything but the pixels of one grey frame."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "PixelData" not in file:
        raise DicomProblem("undecodable_image", "no element PixelData in it")
    if not getattr(file, "file_meta", None) or "TransferSyntaxUID" not in file.file_meta:
        file.ensure_file_meta()
        implicit = file.original_encoding[0]
        file.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    frames = int(file.get("NumberOfFrames") or 1)
    if frames > 1:
        raise DicomProblem("several_frames", f"{frames} frames; give each as an image")
    photometric = str(file.get("PhotometricInterpretation") or "").strip().upper()
    if not photometric:
        raise DicomProblem("undecodable_image", "no element PhotometricInterpretation in it")
    if photometric not in (INVERTED, PLAIN):
        detail = f"PhotometricInterpretation {photometric!r}, which is not grey"
        raise DicomProblem("colour_dicom", detail)
    samples = int(file.get("SamplesPerPixel") or 1)
    if samples != 1:
        detail = f"SamplesPerPixel {samples}, which is not grey, though it is called {photometric}"
        raise DicomProblem("colour_dicom", detail)
    return photometric


def _used_bits(pixels: np.ndarray, file: "Dataset", *, precision: int | None) -> np.ndarray:
    """Moves what stands at HighBit down, and clears the bits above BitsStored, as of an overlay."""
    stored, allocated = int(file.BitsStored), int(file.BitsAllocated)
    if not 0 < stored < allocated or pixels.dtype.kind not in "iu":
        return pixels
    highest = file.get("HighBit")
    # Compressed samples of no more bits than are stored can stand nowhere else.
    if highest is not None and (precision is None or precision > stored):
        unused = int(highest) + 1 - stored
        if unused < 0 or int(highest) >= allocated:
            raise DicomProblem(
                "undecodable_image",
                f"HighBit {highest} contradicts BitsStored {stored} of {allocated} bits",
            )
        if np.any(pixels & ((1 << unused) - 1)):
            raise DicomProblem(
                "undecodable_image",
                f"HighBit {highest} and BitsStored {stored} leave the lowest {unused} bits "
                "unused, which the pixels use",
            )
        pixels = pixels >> unused
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
    """Returns bool[H, W], which pixels are padding.

    Padding is looked for with the bits above BitsStored and without them: it may be a value that
    BitsStored has no room for.
    """
    if "PixelPaddingValue" not in header or pixels.dtype.kind not in "iu":
        return None
    first = int(header.PixelPaddingValue)
    given = (first, int(header.get("PixelPaddingRangeLimit", first)))
    # Files write the same bits as a signed number or as an unsigned one.
    low = -(1 << (allocated - 1)) if pixels.dtype.kind == "i" else 0
    least, most = sorted((value - low) % (1 << allocated) + low for value in given)
    return ((pixels >= least) & (pixels <= most)) | ((used >= least) & (used <= most))
