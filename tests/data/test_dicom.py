"""DICOM headers x kinds of pixels, against pydicom's own functions called step by step."""

import io
import itertools
import pathlib

import numpy as np
import pydicom
import pydicom.data
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from prior_jax.data import dicom
from prior_jax.data.dicom_decoders import DicomProblem
from tests.data.dicom_files import PIXELS, compressed, file_of, lut, written


def _rescale(slope, intercept):
    def change(file, low, high):
        file.RescaleSlope, file.RescaleIntercept = slope, intercept

    return change


def _window(*, function=None, several=False, slope=None):
    def change(file, low, high):
        if slope is not None:
            file.RescaleSlope, file.RescaleIntercept = slope, -3
            low, high = low * slope - 3, high * slope - 3
        centre, width = round(low + 0.4 * (high - low), 1), round(0.5 * abs(high - low), 1)
        file.WindowCenter = [centre, 1] if several else centre
        file.WindowWidth = [width, 1] if several else width
        if function:
            file.VOILUTFunction = function

    return change


def _voi(bits, *, windowed=False):
    def change(file, low, high):
        entries = min(high - low + 1, 4000)
        values = np.rint(np.linspace(0, 1, entries) ** 2 * (2**bits - 1))
        file.VOILUTSequence = [lut(entries, first=low, bits=bits, values=values)]
        if windowed:
            _window()(file, low, high)

    return change


def _modality(file, low, high):
    entries = min(high - low + 1, 4000)
    values = np.rint(np.linspace(1, 0, entries) * 999)
    file.ModalityLUTSequence = [lut(entries, first=low, bits=16, values=values)]


def _empty(file, low, high):
    for name in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelSpacing"):
        setattr(file, name, None)
    file.VOILUTFunction, file.PresentationLUTShape = "", ""


HEADERS = {
    "nothing": lambda file, low, high: None,
    "rescale": _rescale(0.5, -10),
    "rescale, whole": _rescale(2, 100),
    "linear": _window(),
    "linear, named": _window(function="LINEAR"),
    "linear exact": _window(function="LINEAR_EXACT"),
    "sigmoid": _window(function="SIGMOID"),
    "several windows": _window(several=True),
    "rescale and linear": _window(slope=0.25),
    "rescale and sigmoid": _window(slope=3, function="SIGMOID"),
    "VOI LUT of 16 bits": _voi(16),
    "VOI LUT of 12 bits": _voi(12),
    "VOI LUT before a window": _voi(10, windowed=True),
    "modality LUT": _modality,
    "empty elements": _empty,
}


def pydicoms(file, pixels, header):
    """What pydicom's functions make of the pixels, on a scale of 0 to 1."""
    if header == "empty elements":
        values = pixels
    else:
        values = apply_modality_lut(pixels, file)
        if np.array_equal(values, np.rint(values)):
            values = values.astype(np.int64)
    if "VOILUTSequence" in file:
        bits = file.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi_lut(values, file).astype(float) / (2**bits - 1)
    if "linear" in header or "sigmoid" in header or "windows" in header:
        ends = (0, 2**file.BitsStored - 1)
        if file.PixelRepresentation:
            ends = (-(2 ** (file.BitsStored - 1)), 2 ** (file.BitsStored - 1) - 1)
        slope, intercept = file.get("RescaleSlope", 1), file.get("RescaleIntercept", 0)
        low, high = (float(end * slope + intercept) for end in ends)
        return (apply_voi_lut(values, file) - low) / (high - low)
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind, header", list(itertools.product(PIXELS, HEADERS)))
def test_pixels_are_those_of_pydicom(kind, header, photometric):
    file, pixels = file_of(kind, HEADERS[header])
    file.PhotometricInterpretation = photometric
    expected = np.rint(np.clip(pydicoms(file, pixels, header), 0, 1) * 255)
    if photometric == "MONOCHROME1":
        expected = 255 - expected
    found = dicom.grey(written(file), name="x.dcm")
    assert found.dtype == np.uint8 and found.min() < found.max()
    np.testing.assert_allclose(found.astype(int), expected, atol=1)


SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "run lengths": RLELossless,
    "JPEG 2000": JPEG2000Lossless,
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", ["8 bits", "12 in 16", "16 bits"])
def test_every_transfer_syntax_gives_the_same_image(kind, syntax):
    plain, pixels = file_of(kind, _window())
    expected = dicom.grey(written(plain), name="x.dcm")
    uid = SYNTAXES[syntax]
    if uid.is_compressed and uid != DeflatedExplicitVRLittleEndian:
        if uid == RLELossless:
            file, _ = file_of(kind, _window())
            file.compress(uid)
        else:
            word = np.uint8 if kind == "8 bits" else np.uint16
            content = io.BytesIO()
            Image.fromarray(pixels.astype(word)).save(content, "JPEG2000", no_jp2=True)
            file = compressed(content.getvalue(), uid, kind=kind, change=_window())
    else:
        file, _ = file_of(kind, _window(), syntax=uid)
    np.testing.assert_array_equal(dicom.grey(written(file), name="x.dcm"), expected)


def test_padding_takes_no_part_in_the_range_and_is_black():
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        file, pixels = file_of("12 in 16")
        file.PhotometricInterpretation = photometric
        pixels = pixels // 4 + 1000
        pixels[:, :9] = 4095
        pixels[:, 9:12] = 4094
        file.PixelData = pixels.astype("<u2").tobytes()
        file.PixelPaddingValue, file.PixelPaddingRangeLimit = 4094, 4095
        found = dicom.grey(written(file), name="x.dcm")
        assert not found[:, :12].any()
        assert found[:, 12:].min() == 0 and found[:, 12:].max() == 255
        assert (found[-1, -1] > found[0, 12]) == (photometric == "MONOCHROME2")


def test_a_negative_slope_turns_the_values_over_and_not_the_window():
    """pydicom maps a window on such values the wrong way round: low values become white."""
    file, _ = file_of("12 in 16", _window(slope=-1))
    found = dicom.grey(written(file), name="x.dcm").astype(int)
    assert found[0, 0] == 255 and found[-1, -1] == 0
    assert (np.diff(found.ravel()) <= 0).all()


def test_an_8_bit_lut_on_12_bits_does_not_wrap_round():
    """pydicom counts a LUT's input in the type of its output."""
    file, _ = file_of("12 in 16", _voi(8))
    found = dicom.grey(written(file), name="x.dcm").astype(int)
    assert (np.diff(found.ravel()) >= 0).all() and (found[0, 0], found[-1, -1]) == (0, 255)


def test_a_lut_whose_descriptor_tells_how_it_is_stored_is_not_black():
    """Files of Agfa say 16 bits of entries that use 12."""
    file, pixels = file_of("12 in 16")
    file.VOILUTSequence = [lut(4096, first=0, bits=16, values=range(4096))]
    found = dicom.grey(written(file), name="x.dcm")
    np.testing.assert_array_equal(found, np.rint(pixels / 4095 * 255))
    file.VOILUTSequence = [lut(4096, first=0, bits=12, values=[v // 4 for v in range(4096)])]
    assert dicom.grey(written(file), name="x.dcm").max() == 64  # 12 bits are no size of storage


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("kind, entries", [("OW", 256), ("OW", 255), ("US", 256)])
def test_an_8_bit_lut_may_have_two_entries_in_a_word(syntax, kind, entries):
    file, pixels = file_of("8 bits", syntax=syntax)
    table = np.arange(256)[::-1][:entries]
    words = np.append(table, [0] * (entries % 2)).astype("<u1").view("<u2")
    item = lut(entries, first=0, bits=8, values=[])
    order = "<" if syntax.is_little_endian else ">"
    data = words.astype(f"{order}u2").tobytes() if kind == "OW" else words.tolist()
    item.add_new("LUTData", kind, data)
    file.VOILUTSequence = [item]
    found = dicom.grey(written(file), name="x.dcm")
    np.testing.assert_array_equal(found, table[np.minimum(pixels, entries - 1)])


@pytest.mark.parametrize("bits", [0, 17])
def test_a_lut_of_no_bits_or_too_many_is_refused(bits):
    file, _ = file_of("8 bits")
    file.VOILUTSequence = [lut(256, first=0, bits=bits, values=range(256))]
    with pytest.raises(DicomProblem, match=f"{bits} bits by its descriptor"):
        dicom.grey(written(file), name="x.dcm")


def test_inverse_presentation_turns_over_once():
    plain, _ = file_of("8 bits")
    upright = dicom.grey(written(plain), name="x.dcm")
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        file, _ = file_of("8 bits")
        file.PhotometricInterpretation, file.PresentationLUTShape = photometric, "INVERSE"
        np.testing.assert_array_equal(dicom.grey(written(file), name="x.dcm"), 255 - upright)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # the standard wants capitals
@pytest.mark.parametrize("shape", ["inverse", "Inverse "])
def test_inverse_presentation_is_known_in_lower_case(shape):
    plain, _ = file_of("8 bits")
    file, _ = file_of("8 bits", _set(PresentationLUTShape=shape))
    upright = dicom.grey(written(plain), name="x.dcm")
    np.testing.assert_array_equal(dicom.grey(written(file), name="x.dcm"), 255 - upright)


def test_a_file_without_preamble_is_known_by_its_name():
    file, _ = file_of("12 in 16", _window())
    expected = dicom.grey(written(file), name="x.dcm")
    for implicit in (True, False):
        content = io.BytesIO()
        bare = Dataset({tag: file[tag] for tag in file.keys()})
        pydicom.dcmwrite(content, bare, implicit_vr=implicit, little_endian=True)
        assert content.getvalue()[128:132] != b"DICM"
        np.testing.assert_array_equal(dicom.grey(content.getvalue(), name="a.DCM"), expected)


def _set(**values):
    def change(file, low, high):
        for name, value in values.items():
            setattr(file, name, value)

    return change


REFUSED = {
    "two frames": (_set(NumberOfFrames=2, Rows=12), "several_frames"),
    "palette": (_set(PhotometricInterpretation="PALETTE COLOR"), "colour_dicom"),
    "no photometric": (_set(PhotometricInterpretation=None), "undecodable_image"),
    "colour": (_set(PhotometricInterpretation="RGB", SamplesPerPixel=3), "colour_dicom"),
    "colour called grey": (_set(SamplesPerPixel=3), "colour_dicom"),
    "no rows": (_set(Rows=None), "undecodable_image"),
    "short data": (_set(Rows=48), "undecodable_image"),
    "no pixels": (lambda file, low, high: file.pop("PixelData"), "undecodable_image"),
    "slope 0": (_rescale(0, 5), "undecodable_image"),
    "width 0": (_set(WindowCenter=5, WindowWidth=0), "undecodable_image"),
    "negative width": (_set(WindowCenter=5, WindowWidth=-9), "undecodable_image"),
    "window elsewhere": (_set(WindowCenter=-5000, WindowWidth=10), "undecodable_image"),
    "unknown function": (
        _set(WindowCenter=5, WindowWidth=9, VOILUTFunction="CUBIC"),
        "undecodable_image",
    ),
    "presentation LUT": (
        lambda file, low, high: setattr(
            file, "PresentationLUTSequence", [lut(4, first=0, bits=8, values=[0, 1, 2, 3])]
        ),
        "undecodable_image",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_shown_is_refused_by_name(kind):
    change, reason = REFUSED[kind]
    file, _ = file_of("12 in 16", change)
    with pytest.raises(DicomProblem) as caught:
        dicom.grey(written(file), name="x.dcm")
    assert caught.value.reason == reason and caught.value.detail


def test_an_image_of_one_value_is_black():
    file, pixels = file_of("12 in 16")
    file.PixelData = np.full(pixels.shape, 700, "<u2").tobytes()
    assert not dicom.grey(written(file), name="x.dcm").any()


# Real files that pydicom ships: each is shown, or refused for a reason that is looked at here.
REAL = {
    "CT_small.dcm": None,
    "MR_small.dcm": None,
    "MR_small_bigendian.dcm": None,
    "MR_small_implicit.dcm": None,
    "MR_small_RLE.dcm": None,
    "MR_small_padded.dcm": None,
    "JPEG2000.dcm": None,
    "image_dfl.dcm": None,
    "ExplVR_BigEnd.dcm": "colour_dicom",
    "SC_rgb_rle.dcm": "colour_dicom",
    "examples_palette.dcm": "colour_dicom",
    "rtdose.dcm": "several_frames",
    "rtplan.dcm": "undecodable_image",
    "examples_overlay.dcm": None,
    "liver_1frame.dcm": None,
    "MR_truncated.dcm": "undecodable_image",
    "badVR.dcm": "undecodable_image",
    "MR_small_jpeg_ls_lossless.dcm": "dicom_without_decoder",
    "JPGExtended.dcm": "dicom_without_decoder",
    "JPEG-lossy.dcm": "dicom_without_decoder",
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_shown_or_refused(name):
    path = pathlib.Path(pydicom.data.__file__).parent / "test_files" / name
    content = path.read_bytes()
    try:
        found = dicom.grey(content, name=name)
    except DicomProblem as problem:
        assert problem.reason == REAL[name], problem.detail
    else:
        assert REAL[name] in (None, "dicom_without_decoder")  # the decoder may be installed
        assert found.min() < found.max()
