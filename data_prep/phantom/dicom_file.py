"""Writes a phantom radiograph as the DICOM file of a challenge; equal images, equal bytes."""

import hashlib
import io

import numpy as np

_ROOT = "1.2.826.0.1.3680043.10.54321"
"""Root of the phantom's unique ids, below pydicom's own."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def uid(*names: str) -> str:
    """Returns a unique id of DICOM that depends on the names alone."""
    digest = hashlib.blake2b("/".join(names).encode(), digest_size=12).digest()
    return f"{_ROOT}.{int.from_bytes(digest, 'big')}"


def content_of(
    pixels: np.ndarray, *, name: str, patient: str, sex: str, age: int, view: str
) -> bytes:
    """Returns the content of a DICOM file of 8 bits, MONOCHROME2, not compressed.

    Args:
      pixels: uint8[H, W].
      name: SOPInstanceUID, or any name that one is made of.
      patient: PatientID.
      sex: "F" or "M".
      age: age in years.
      view: ViewPosition.
    """
    import pydicom
    from pydicom.config import disable_value_validation
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    instance = name if name.startswith(_ROOT) else uid("instance", name)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID = _SECONDARY_CAPTURE
    file.file_meta.MediaStorageSOPInstanceUID = instance
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = _SECONDARY_CAPTURE, instance
    file.Modality, file.ConversionType, file.BodyPartExamined = "CR", "WSD", "CHEST"
    with disable_value_validation():  # an age without a unit, as both challenges write it
        file.PatientID, file.PatientSex, file.PatientAge = patient, sex, str(age)
    file.ViewPosition = view
    file.StudyInstanceUID, file.SeriesInstanceUID = uid("study", name), uid("series", name)
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    content = pixels.tobytes()
    file.PixelData = content + b"\0" * (len(content) % 2)
    packed = io.BytesIO()
    with disable_value_validation():
        pydicom.dcmwrite(packed, file, enforce_file_format=True)
    return packed.getvalue()
