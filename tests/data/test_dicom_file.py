"""Where stored values stand in their bits, which of them are padding, and where headers say it."""

import builtins
import sys

import numpy as np
import pytest
from pydicom import Dataset, Sequence

from prior_jax.data import dicom, dicom_file
from prior_jax.data.dicom_decoders import DicomProblem
from tests.data.dicom_files import file_of, lut, ramp, written


def grey(file):
    return dicom.grey(written(file), name="x.dcm").astype(int)


def refusal(file):
    with pytest.raises(DicomProblem) as caught:
        grey(file)
    return caught.value


def stretched(values, padding=False):
    kept = values[~np.broadcast_to(padding, values.shape)]
    return np.rint((values - kept.min()) / (kept.max() - kept.min()) * 255)


@pytest.mark.parametrize("kind", ["12 in 16", "12 signed"])
@pytest.mark.parametrize("highest", [11, 13, 15])
def test_values_are_read_where_high_bit_says_they_stand(kind, highest):
    signed = kind == "12 signed"
    file, pixels = file_of(kind)
    file.HighBit = highest
    file.PixelData = (pixels << (highest - 11)).astype("<i2" if signed else "<u2").tobytes()
    np.testing.assert_allclose(grey(file), stretched(pixels), atol=1)


@pytest.mark.parametrize("highest", [7, 16, 15])
def test_a_high_bit_that_the_pixels_contradict_is_refused(highest):
    file, _ = file_of("12 in 16")
    file.HighBit = highest
    problem = refusal(file)
    assert problem.reason == "undecodable_image" and f"HighBit {highest}" in problem.detail


# name -> kind of pixels, what padding is stored as, PixelPaddingValue and its kind.
PADDINGS = {
    "signed, written unsigned": ("16 signed", -2000, 63536, "US"),
    "signed": ("16 signed", -2000, -2000, "SS"),
    "unsigned, written signed": ("16 bits", 65535, -1, "SS"),
    "above BitsStored": ("12 in 16", 65535, 65535, "US"),
    "above BitsStored, signed": ("12 signed", -32768, -32768, "SS"),
}


@pytest.mark.parametrize("kind", PADDINGS)
def test_padding_is_known_by_its_bits(kind):
    pixels_kind, stored, value, word = PADDINGS[kind]
    file, pixels = file_of(pixels_kind)
    signed = "signed" in pixels_kind
    pixels = pixels // 4 + 100
    pixels[:, :9] = stored
    file.PixelData = pixels.astype("<i2" if signed else "<u2").tobytes()
    file.add_new("PixelPaddingValue", word, value)
    found = grey(file)
    assert not found[:, :9].any()
    np.testing.assert_allclose(found[:, 9:], stretched(pixels[:, 9:]), atol=1)


def _grouped(*, window, rescale=None):
    group, item = Dataset(), Dataset()
    item.WindowCenter, item.WindowWidth, item.VOILUTFunction = *window, "LINEAR_EXACT"
    group.FrameVOILUTSequence = Sequence([item])
    if rescale:
        values = Dataset()
        values.RescaleSlope, values.RescaleIntercept = rescale
        group.PixelValueTransformationSequence = Sequence([values])
    return Sequence([group])


def test_an_enhanced_file_says_its_window_in_functional_groups():
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        file, pixels = file_of("12 in 16")
        file.NumberOfFrames = 1
        setattr(file, name, _grouped(window=(1000, 800), rescale=(-1, 4095)))
        expected = np.clip((4095 - pixels - 1000) / 800 + 0.5, 0, 1) * 255
        np.testing.assert_allclose(grey(file), expected, atol=1)


def test_the_group_of_the_frame_comes_before_the_shared_one_and_the_file():
    file, pixels = file_of("12 in 16")
    file.WindowCenter, file.WindowWidth = 10, 20
    file.SharedFunctionalGroupsSequence = _grouped(window=(50, 60))
    file.PerFrameFunctionalGroupsSequence = _grouped(window=(1000, 800))
    expected = np.clip((pixels - 1000) / 800 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(grey(file), expected, atol=1)


def test_what_has_made_an_image_one_grey_is_named():
    file, _ = file_of("12 signed")
    file.VOILUTSequence = [lut(4096, first=63488, bits=12, values=range(4096))]
    assert "VOI LUT" in refusal(file).detail and "-2048 to 2047" in refusal(file).detail
    file, _ = file_of("12 in 16")
    file.WindowCenter, file.WindowWidth = -5000, 10
    assert "window" in refusal(file).detail
    file, _ = file_of("12 in 16")
    file.ModalityLUTSequence = [lut(4096, first=0, bits=16, values=[7] * 4096)]
    assert "modality LUT" in refusal(file).detail


def test_several_padding_values_are_refused():
    file, _ = file_of("16 bits")
    file.add_new("PixelPaddingValue", "US", [0, 1])
    assert refusal(file).reason == "undecodable_image"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'pydicom'", name="pydicom"), "is not installed"),
        (ImportError("numpy.core is too old"), r"cannot be imported \(ImportError: numpy.core"),
        (ModuleNotFoundError("No module named 'abc_'", name="abc_"), "No module named 'abc_'"),
    ],
)
def test_why_pydicom_is_absent_is_told(monkeypatch, error, told):
    content = written(file_of("8 bits")[0])
    load = builtins.__import__

    def fail(name, *rest):
        if name == "pydicom":
            raise error
        return load(name, *rest)

    monkeypatch.delitem(sys.modules, "pydicom")
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(DicomProblem, match=told) as caught:
        dicom_file.parse(content, name="x.dcm")
    assert caught.value.reason == "dicom_without_decoder"


def test_the_ramp_uses_every_bit():
    assert ramp(12, 0).max() == 4095 and ramp(12, 1).min() == -2048
