"""Compressed pixels: their own header, the order of decoders, and one that dies."""

import io
import struct

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from prior_jax.data import codestream, dicom, dicom_decoders, gdcm_process
from prior_jax.data.dicom_decoders import DicomProblem
from tests.data.dicom_files import SHAPE, compressed, file_of, ramp, written

EIGHT = ramp(8, 0).astype(np.uint8)
COLOUR = np.stack([EIGHT, 255 - EIGHT, EIGHT // 2], -1)


def saved(pixels, kind, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def j2k(pixels, **options):
    return saved(pixels, "JPEG2000", no_jp2=True, **options)


def jpeg_header(marker, *, precision=8, channels=1, shape=SHAPE, before=b""):
    """A JPEG that ends behind its frame's header."""
    size = struct.pack(">HBHHB", 8 + 3 * channels, precision, *shape, channels)
    return b"\xff\xd8" + before + bytes([0xFF, marker]) + size + bytes(3 * channels)


def refusal(content):
    with pytest.raises(DicomProblem) as caught:
        dicom.grey(content, name="x.dcm")
    return caught.value


TWELVE = ramp(12, 0).astype(np.uint16)
HEADERS = {
    "JPEG": (saved(EIGHT, "JPEG"), (1, 8)),
    "JPEG in colour": (saved(COLOUR, "JPEG"), (3, 8)),
    "progressive JPEG": (saved(EIGHT, "JPEG", progressive=True), (1, 8)),
    "lossless JPEG of 12 bits": (jpeg_header(0xC3, precision=12), (1, 12)),
    "JPEG-LS of 16 bits": (jpeg_header(0xF7, precision=16), (1, 16)),
    "behind a table, a comment and fill bytes": (
        jpeg_header(0xC1, before=b"\xff\xc4\0\x03\0\xff\xff\xff\xfe\0\x04\xff\xc0"),
        (1, 8),
    ),
    "JPEG 2000": (j2k(TWELVE), (1, 16)),
    "JPEG 2000 in colour": (j2k(COLOUR), (3, 8)),
    "JPEG 2000 in boxes": (saved(EIGHT, "JPEG2000"), (1, 8)),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_the_header_of_compressed_pixels_is_read(kind):
    frame, (channels, precision) = HEADERS[kind]
    found = codestream.read_header(frame)
    assert (found.height, found.width) == SHAPE
    assert (found.channels, found.precision) == (channels, precision)
    assert found.jpeg_2000 == ("2000" in kind)


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_is_cut_off_or_changed_never_escapes_as_another_error(kind):
    frame, _ = HEADERS[kind]
    draw = np.random.default_rng(0)
    for length in range(12):
        with pytest.raises(ValueError):
            codestream.read_header(frame[:length])
    for _ in range(200):
        changed = bytearray(frame)
        changed[int(draw.integers(min(len(frame), 200)))] = int(draw.integers(256))
        try:
            codestream.read_header(bytes(changed))
        except ValueError as error:
            assert "compressed pixels" in str(error)


def _columns(file, low, high):
    file.Columns = SHAPE[1] + 1


MISMATCHES = {
    "JPEG in colour": (saved(COLOUR, "JPEG"), JPEGBaseline8Bit, "8 bits", "colour_dicom"),
    "JPEG 2000 in colour": (j2k(COLOUR), JPEG2000Lossless, "8 bits", "colour_dicom"),
    "JPEG-LS in colour": (jpeg_header(0xF7, channels=3), JPEGLSLossless, "8 bits", "colour_dicom"),
    "lossless JPEG in colour": (
        jpeg_header(0xC3, channels=3), JPEGLosslessSV1, "8 bits", "colour_dicom",
    ),
    "another size": (
        j2k(np.zeros((30, 30), np.uint8)), JPEG2000Lossless, "8 bits", "undecodable_image",
    ),
    "more bits than allocated": (
        j2k(TWELVE), JPEG2000Lossless, "8 bits", "undecodable_image",
    ),
    "a JPEG of fewer bytes": (
        saved(EIGHT, "JPEG"), JPEGBaseline8Bit, "12 in 16", "undecodable_image",
    ),
    "a header cut off": (b"\xff\xd8\xff", JPEGBaseline8Bit, "8 bits", "undecodable_image"),
    "no header": (bytes(200), JPEG2000Lossless, "8 bits", "undecodable_image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISMATCHES)
def test_pixels_that_are_not_those_of_the_header_meet_no_decoder(kind, monkeypatch):
    frame, syntax, pixels, reason = MISMATCHES[kind]
    monkeypatch.setattr(gdcm_process, "decode", lambda content: pytest.fail("gdcm was asked"))
    problem = refusal(written(compressed(frame, syntax, kind=pixels)))
    assert problem.reason == reason and "compressed" in problem.detail


def test_another_width_is_refused_and_both_are_told():
    frame = j2k(EIGHT)
    problem = refusal(written(compressed(frame, JPEG2000Lossless, kind="8 bits", change=_columns)))
    assert "40x24" in problem.detail and "41x24" in problem.detail


def test_jpeg_2000_of_fewer_bits_than_stored_stands_at_the_bottom_whatever_high_bit_says():
    def left(file, low, high):
        file.HighBit = 15

    plain = compressed(j2k(EIGHT), JPEG2000Lossless)
    file = compressed(j2k(EIGHT), JPEG2000Lossless, change=left)
    found = dicom.grey(written(file), name="x.dcm")
    np.testing.assert_array_equal(found, dicom.grey(written(plain), name="x.dcm"))
    np.testing.assert_allclose(found.astype(int), EIGHT, atol=1)


DAMAGED = {
    "JPEG": (saved(EIGHT, "JPEG", quality=95)[:-60], JPEGBaseline8Bit),
    "JPEG 2000": (j2k(np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))[:500],
                  JPEG2000Lossless),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_pixels_are_not_called_without_decoder(kind):
    frame, syntax = DAMAGED[kind]
    problem = refusal(written(compressed(frame, syntax, kind="8 bits")))
    assert problem.reason == "undecodable_image" and "pip install" not in problem.detail
    assert "pillow" in problem.detail


def test_pillows_limit_of_size_is_named_as_such(monkeypatch):
    class Pillow:
        UID, is_encapsulated, available_plugins = JPEG2000Lossless, True, ("pillow",)
        missing_dependencies = ()

    monkeypatch.setattr(dicom_decoders, "_decoder", lambda file: Pillow)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = written(compressed(j2k(EIGHT), JPEG2000Lossless, kind="8 bits"))
    assert refusal(content).reason == "absurd_image_size"


def test_a_kind_without_a_decoder_says_what_to_install(monkeypatch):
    class Nothing:
        UID, is_encapsulated, available_plugins = JPEGLosslessSV1, True, ()
        missing_dependencies = ("gdcm - requires gdcm>=3.0.10",)

    monkeypatch.setattr(dicom_decoders, "_decoder", lambda file: Nothing)
    problem = refusal(written(compressed(jpeg_header(0xC3), JPEGLosslessSV1, kind="8 bits")))
    assert problem.reason == "dicom_without_decoder"
    assert "gdcm>=3.0.10" in problem.detail and "pip install" in problem.detail


def test_a_kind_that_decoders_are_not_made_for_is_as_one_without(monkeypatch):
    if "pylibjpeg" in get_decoder(JPEGExtended12Bit).available_plugins:
        pytest.skip("a decoder for it is installed")
    frame = jpeg_header(0xC1, precision=12)
    problem = refusal(written(compressed(frame, JPEGExtended12Bit)))
    assert problem.reason == "dicom_without_decoder" and "does not support" in problem.detail


def test_gdcm_is_asked_last_and_in_another_process(monkeypatch):
    asked = []

    class Several:
        UID, is_encapsulated, missing_dependencies = JPEG2000Lossless, True, ()
        available_plugins = ("gdcm", "pillow")

    def decode(content):
        asked.append(content)
        return np.zeros(SHAPE, np.uint8)

    monkeypatch.setattr(dicom_decoders, "_decoder", lambda file: Several)
    monkeypatch.setattr(gdcm_process, "decode", decode)
    good = written(compressed(j2k(EIGHT), JPEG2000Lossless, kind="8 bits"))
    file = pydicom.dcmread(io.BytesIO(good))
    pixels, precision = dicom_decoders.decoded(file, good)
    assert precision == 8 and not asked
    np.testing.assert_array_equal(pixels, EIGHT)
    frame, syntax = DAMAGED["JPEG 2000"]
    damaged = written(compressed(frame, syntax, kind="8 bits"))
    dicom_decoders.decoded(pydicom.dcmread(io.BytesIO(damaged)), damaged)
    assert asked == [damaged]


def test_the_other_process_decodes_refuses_dies_and_is_started_again(monkeypatch):
    good = written(compressed(j2k(EIGHT), JPEG2000Lossless, kind="8 bits"))
    bad = written(file_of("8 bits")[0])[:300]
    np.testing.assert_array_equal(gdcm_process.decode(good, plugin="pillow"), EIGHT)
    first = gdcm_process._process
    with pytest.raises(ValueError):
        gdcm_process.decode(bad, plugin="pillow")
    assert gdcm_process._process is first  # a refusal does not cost a start
    monkeypatch.setattr(gdcm_process, "LIMIT_S", 0)
    with pytest.raises(gdcm_process.DecoderDied, match="longer than 0 s"):
        while True:  # the timer ends one of them
            gdcm_process.decode(good, plugin="pillow")
    monkeypatch.undo()
    first.wait(10)
    np.testing.assert_array_equal(gdcm_process.decode(good, plugin="pillow"), EIGHT)


def test_a_process_that_dies_is_named_by_its_signal(monkeypatch):
    monkeypatch.setattr(gdcm_process, "_PROGRAM", "import os; os.abort()")
    gdcm_process._stop()
    with pytest.raises(gdcm_process.DecoderDied, match="SIGABRT"):
        gdcm_process.decode(b"")


def test_gdcm_ends_no_process_but_its_own():
    pytest.importorskip("gdcm")
    colour = written(compressed(j2k(COLOUR), JPEG2000Lossless, kind="8 bits"))
    with pytest.raises(gdcm_process.DecoderDied, match="SIGABRT"):
        gdcm_process.decode(colour)
    good = written(compressed(j2k(EIGHT), JPEG2000Lossless, kind="8 bits"))
    np.testing.assert_array_equal(gdcm_process.decode(good), EIGHT)
