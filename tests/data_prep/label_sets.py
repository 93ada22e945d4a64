"""Small raw data sets of images with labels, boxes and masks, in the layouts of the real ones."""

import pathlib
import warnings

import numpy as np
import pydicom
import tensorflow_datasets as tfds
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from data_prep import verify
from prior_jax.data import schema

SIZE = 96


def pixels(seed, *, height=SIZE, width=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def write_dicom(path, seed=0, *, sex="", age="", view="", height=SIZE, width=SIZE):
    """An 8-bit radiograph with a header as RSNA and SIIM have them."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ages without a unit, as both challenges' files have them
        file.PatientSex, file.PatientAge, file.ViewPosition = sex, age, view
    file.Rows, file.Columns, file.SamplesPerPixel = height, width, 1
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PhotometricInterpretation = "MONOCHROME2"
    file.PixelData = pixels(seed, height=height, width=width).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(path, file, enforce_file_format=True)


def write_png(path, seed=0, *, height=SIZE, width=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, height=height, width=width)).save(path)


def truncate(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[:900])


def records(out) -> dict[str, dict[str, schema.Record]]:
    """Split -> id of the study -> its record."""
    builder = tfds.builder_from_directory(out)
    return {
        split: {
            record.study_id: record
            for record in map(schema.Record.from_example, builder.as_data_source(split))
        }
        for split in builder.info.splits
    }


def every(out) -> dict[str, schema.Record]:
    return {name: record for found in records(out).values() for name, record in found.items()}


def assert_sound(out, *, leaks=False):
    """The set is sound; patients in two splits are reported only where they are expected."""
    failures, reported = verify.checked(verify.Settings(path=str(out), sample=1.0))
    assert failures == []
    assert bool(reported) == leaks


def write_rle(mask) -> str:
    """A mask as SIIM writes it: along the columns, step by step, each offset from the last run."""
    flat = np.asarray(mask, bool).T.ravel()
    words, last, place = [], 0, 0
    while place < len(flat):
        if flat[place]:
            begin = place
            while place < len(flat) and flat[place]:
                place += 1
            words += [begin - last, place - begin]
            last = place
        else:
            place += 1
    return " ".join(map(str, words)) or "-1"
