"""Fitting keeps shapes and means, resampling keeps what it must, DICOM is read or refused."""

import io
import sys

import numpy as np
import pytest

from prior_jax.data import dicom, dicom_file, gloria_image, resample
from prior_jax.data.dicom_decoders import DicomProblem
from prior_jax.errors import ConfigError, DataError


def draw(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


@pytest.mark.parametrize("resize", [resample.area, resample.linear, resample.nearest])
@pytest.mark.parametrize("shape", [(7, 5), (20, 31), (40, 62), (3, 90)])
def test_a_plain_image_stays_plain(resize, shape):
    for pixels in (np.full((20, 31), 201, np.uint8), np.full((20, 31), 0.7, np.float32)):
        got = resize(pixels, height=shape[0], width=shape[1])
        assert got.shape == shape and got.dtype == pixels.dtype
        np.testing.assert_allclose(got.astype(np.float64), float(pixels[0, 0]), rtol=1e-5, atol=1)


def test_shrinking_by_area_keeps_the_mean_and_the_orientation():
    pixels = draw(90, 77).astype(np.float32)
    got = resample.area(pixels, height=31, width=20)
    assert abs(got.mean() - pixels.mean()) < 0.01
    np.testing.assert_allclose(resample.area(pixels.T, height=20, width=31), got.T, rtol=1e-5)
    flipped = resample.area(pixels[::-1, ::-1].copy(), height=31, width=20)
    np.testing.assert_allclose(flipped, got[::-1, ::-1], rtol=1e-4, atol=1e-2)


def test_known_means_and_rounding():
    pixels = np.array([[0, 1, 10, 20], [0, 1, 30, 41]], np.uint8)
    # 0.5 goes up where both sides are halved, and to the even number elsewhere.
    assert resample.area(pixels, height=1, width=2).tolist() == [[1, 25]]
    assert resample.area(pixels, height=2, width=2).tolist() == [[0, 15], [0, 36]]
    assert resample.area(pixels[:, :3], height=2, width=2).tolist() == [[0, 7], [0, 20]]
    assert resample.nearest(pixels, height=1, width=4).tolist() == [[0, 1, 30, 41]]


def test_what_cannot_be_resized_is_refused():
    with pytest.raises(DataError, match="int64"):
        resample.area(np.zeros((3, 3), np.int64), height=2, width=2)
    with pytest.raises(DataError, match="at least one pixel"):
        gloria_image.fit(np.zeros((2, 300), np.uint8), size=64)
    with pytest.raises(DataError, match="H, W"):
        gloria_image.fit(np.zeros((4, 4, 3), np.uint8), size=2)


@pytest.mark.parametrize(("height", "width"), [(50, 29), (29, 50), (40, 40), (10, 9)])
def test_an_image_is_fitted_into_the_middle(height, width):
    fitted = gloria_image.fit(np.full((height, width), 9, np.uint8), size=20)
    assert fitted.shape == (20, 20)
    rows, columns = (np.flatnonzero((fitted == 9).any(axis=axis)) for axis in (1, 0))
    for found, side in ((rows, height), (columns, width)):
        assert len(found) == int(side * 20 / max(height, width))
        before, after = found[0], 19 - found[-1]
        assert after - before in (0, 1)


def test_the_input_of_the_encoder_is_the_middle_from_minus_one_to_one():
    got = gloria_image.encoder_input(draw(300, 300), size=64, crop=48)
    whole = gloria_image.encoder_input(draw(300, 300), size=64, crop=64)
    np.testing.assert_array_equal(got, whole[8:-8, 8:-8])
    assert -1 <= got.min() < got.max() <= 1
    with pytest.raises(ConfigError, match=r"crop.*65"):
        gloria_image.encoder_input(draw(9, 9), size=64, crop=65)


def test_the_corrected_sample_keeps_image_and_mask_together_and_the_mask_binary():
    pixels, mask = np.zeros((90, 61), np.uint8), np.zeros((90, 61), bool)
    pixels[20:51, 13:40], mask[20:51, 13:40] = 255, True
    image, fitted = gloria_image.segmentation_sample(pixels, mask, size=32, mode="paper")
    assert set(np.unique(fitted)) == {0.0, 1.0}
    np.testing.assert_array_equal(image[:, :, 0] > 0.0, fitted == 1)
    soft = gloria_image.segmentation_sample(pixels, mask, size=32, mode="release")[1]
    assert len(np.unique(soft)) > 2
    with pytest.raises(DataError, match=r"mask.*\(9, 9\)"):
        gloria_image.segmentation_sample(pixels, np.zeros((9, 9)), size=32, mode="paper")
    with pytest.raises(ConfigError, match="mode"):
        gloria_image.segmentation_sample(pixels, mask, size=32, mode="x")  # pyright: ignore[reportArgumentType]


def write_dicom(pixels, **fields):
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = pydicom.Dataset()
    file.file_meta = meta
    values = dict(
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        PixelData=pixels.astype("<u2").tobytes(),
    )
    for name, value in (values | fields).items():
        setattr(file, name, value)
    content = io.BytesIO()
    pydicom.dcmwrite(content, file, enforce_file_format=True)
    return content.getvalue()


def test_a_file_is_read_with_its_window_and_inverted_where_it_says_so():
    pixels = np.array([[0, 1000, 2000], [3000, 4000, 4095]])
    plain = dicom_file.parse(write_dicom(pixels), name="a.dcm")
    np.testing.assert_array_equal(plain.pixels, pixels)
    assert plain.photometric == "MONOCHROME2"
    assert dicom.shown(plain).tolist() == [[0, 62, 125], [187, 249, 255]]
    content = write_dicom(
        pixels,
        PhotometricInterpretation="MONOCHROME1",
        WindowCenter=["1500.5", "9"],
        WindowWidth=["1001", "9"],
        RescaleSlope="0.5",
        RescaleIntercept="0",
    )
    windowed = dicom_file.parse(content, name="b.dcm")
    assert dicom.shown(windowed).tolist() == [[255, 255, 255], [127, 0, 0]]
    assert dicom.eight_bit_as_released(windowed)[1].tolist() == [68, 6, 0]


def test_an_image_of_one_value_has_no_range():
    flat = dicom_file.Radiograph(pixels=np.full((2, 2), 7), photometric="MONOCHROME2")
    assert not dicom.shown(flat).any()
    with pytest.raises(DataError, match="largest pixel"):
        empty = dicom_file.Radiograph(pixels=np.zeros((2, 2), int), photometric="MONOCHROME2")
        dicom.eight_bit_as_released(empty)


def test_unreadable_files_are_refused_with_name_and_reason(monkeypatch):
    whole = write_dicom(np.zeros((4, 4), int))
    color = write_dicom(np.zeros((4, 4), int), PhotometricInterpretation="PALETTE COLOR")
    frames = write_dicom(np.zeros((4, 2), int), Rows=2, NumberOfFrames=2)
    for content, reason in (
        (b"JFIF", "PixelData"),
        (whole[:-8], "number of bytes|length"),
        (color, "PALETTE COLOR"),
        (frames, "2 frames"),
    ):
        with pytest.raises(DicomProblem, match=reason):
            dicom_file.parse(content, name="x.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DicomProblem, match=r"prior_jax\[dicom\]"):
        dicom_file.parse(whole, name="x.dcm")
