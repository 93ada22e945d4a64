"""Decodes the pixels of DICOM files with pydicom's decoders, safely for the process.

The header of compressed pixels is first compared with the DICOM header. Then the decoders are tried
in turn, gdcm last and in a separate process, so that none can terminate this process.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from prior_jax.data import codestream, gdcm_process
from prior_jax.errors import InputProblem

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

GDCM = "gdcm"
_DECODERS = logging.getLogger("pydicom.pixels.decoders.base")
_BEFORE_MESSAGES = "exceptions were raised by all available plugins:"


class DicomProblem(InputProblem):
    """A DICOM file that cannot be rendered."""


def decoded(file: "Dataset", content: bytes) -> tuple[np.ndarray, int | None]:
    """Decodes the pixels of a file with one grey frame.

    Args:
      file: data set that pydicom read, with a transfer syntax.
      content: content of the file.

    Returns:
      Pixels as stored, int or uint[...], and the number of bits of a compressed sample; None if
      there is no compression or it does not specify the bits.

    Raises:
      DicomProblem: `dicom_without_decoder`, `colour_dicom`, `absurd_image_size` or
        `undecodable_image`.
      Exception: any exception that pydicom raises on a damaged file.
    """
    from pydicom.uid import RLELossless

    decoder = _decoder(file)
    # The bits above BitsStored are kept: they identify padding, and values in the highest bits.
    file.pixel_array_options(correct_unused_bits=False)
    if not decoder.is_encapsulated:
        return file.pixel_array, None
    precision = None if decoder.UID == RLELossless else _checked(file)
    failures = []
    for name in sorted(decoder.available_plugins, key=lambda name: name == GDCM):
        try:
            if name == GDCM:
                return gdcm_process.decode(content), precision
            file.pixel_array_options(decoding_plugin=name, correct_unused_bits=False)
            with _quiet(_DECODERS):
                return file.pixel_array, precision
        except Exception as error:  # decoders raise any exception; the next may succeed
            text = " ".join(str(error).split())
            # The message of pydicom also names the decoder.
            _, _, own = text.rpartition(_BEFORE_MESSAGES)
            failures.append(own.strip() if own != text else f"{name}: {text}")
    raise _refused(failures, kind=decoder.UID.name, missing=decoder.missing_dependencies)


def _decoder(file: "Dataset") -> "Decoder":
    from pydicom.pixels.decoders.base import get_decoder

    return get_decoder(file.file_meta.TransferSyntaxUID)


def _checked(file: "Dataset") -> int:
    """Refuses compressed pixels that contradict the header; returns the bits of a sample."""
    from pydicom.encaps import get_frame

    try:
        found = codestream.read_header(get_frame(file.PixelData, 0, number_of_frames=1))
    except ValueError as error:
        raise DicomProblem("undecodable_image", str(error)) from error
    if found.channels != 1:
        raise DicomProblem(
            "colour_dicom",
            f"The compressed pixels have {found.channels} channels, but the header says 1, for "
            "grey.",
        )
    if found.width != file.Columns or (found.height or file.Rows) != file.Rows:
        raise DicomProblem(
            "undecodable_image",
            f"The compressed pixels are {found.width}x{found.height}, but the header says "
            f"{file.Columns}x{file.Rows}.",
        )
    allocated = int(file.BitsAllocated)
    # Only JPEG decoders return the bytes that BitsAllocated specifies, whatever they decode.
    narrow = not found.jpeg_2000 and found.precision <= 8 < allocated and not _is_jpeg_ls(file)
    if not 0 < found.precision <= allocated or narrow:
        raise DicomProblem(
            "undecodable_image",
            f"The compressed pixels have {found.precision} bits, but the header says "
            f"BitsAllocated {allocated}.",
        )
    return found.precision


def _is_jpeg_ls(file: "Dataset") -> bool:
    from pydicom.uid import JPEGLSTransferSyntaxes

    return file.file_meta.TransferSyntaxUID in JPEGLSTransferSyntaxes


def _refused(failures: list[str], *, kind: str, missing: list[str]) -> DicomProblem:
    """Returns the problem for pixels that no decoder accepted."""
    text = "; ".join(failures)
    # A decoder that reports that it does not support the format counts as missing.
    if all("does not support" in failure for failure in failures):
        lacking = ", ".join(" ".join(name.split()) for name in missing)
        return DicomProblem(
            "dicom_without_decoder",
            f"No decoder is installed for {kind}. Run pip install 'prior_jax[dicom]' "
            f"({(text or lacking)[:320]}).",
        )
    reason = "absurd_image_size" if "decompression bomb" in text.lower() else "undecodable_image"
    return DicomProblem(reason, f"The pixels, {kind}, cannot be decoded ({text[:280]}).")


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keeps a logger from printing the text that the exception also contains."""
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
