"""DICOM files of a ramp, made in memory."""

import io

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

# name -> (bits allocated, bits stored, signed)
PIXELS = {
    "8 bits": (8, 8, 0),
    "10 in 16": (16, 10, 0),
    "12 in 16": (16, 12, 0),
    "16 bits": (16, 16, 0),
    "12 signed": (16, 12, 1),
    "16 signed": (16, 16, 1),
}
SHAPE = (24, 40)


def ramp(bits, signed):
    """int[24, 40] from the least to the largest value of a kind of pixels."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return np.rint(np.linspace(low, high, SHAPE[0] * SHAPE[1])).astype(np.int64).reshape(SHAPE)


def lut(entries, *, first, bits, values):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries, first, bits])
    item.add_new("LUTData", "US", [int(value) for value in values])
    return item


def file_of(kind, change=lambda file, low, high: None, *, syntax=ExplicitVRLittleEndian):
    """A file of a ramp, and its dataset, after `change` has set elements of it."""
    allocated, stored, signed = PIXELS[kind]
    pixels = ramp(stored, signed)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.Rows, file.Columns, file.SamplesPerPixel = *SHAPE, 1
    file.BitsAllocated, file.BitsStored, file.HighBit = allocated, stored, stored - 1
    file.PixelRepresentation, file.PhotometricInterpretation = signed, "MONOCHROME2"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    word = f"{order}{'i' if signed else 'u'}{allocated // 8}"
    data = pixels.astype(word).tobytes()
    if stored < allocated and not signed:
        data = (pixels | 1 << stored).astype(word).tobytes()  # an old overlay in the high bits
    file["PixelData"] = pydicom.DataElement(0x7FE00010, "OB" if allocated == 8 else "OW", data)
    change(file, int(pixels.min()), int(pixels.max()))
    return file, pixels


def written(file):
    content = io.BytesIO()
    pydicom.dcmwrite(content, file, enforce_file_format=True)
    return content.getvalue()


def compressed(frame, syntax, *, kind="12 in 16", change=lambda file, low, high: None):
    """A file whose pixels are the bytes `frame`, compressed as `syntax` says."""
    file, _ = file_of(kind, change)
    file.PixelData = pydicom.encaps.encapsulate([frame])
    file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    file.file_meta.TransferSyntaxUID = syntax
    return file
