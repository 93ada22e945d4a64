"""Images of more than 8 bits, of signed numbers and of white for 0, as they are stored."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from prior_jax.data.decode import ImageProblem, decoded
from tests.data.tiff_files import ramp_of, tiff

RAMP = np.repeat(np.rint(np.linspace(0, 255, 96)).astype(np.uint8)[:, None], 64, 1)


def grey(content):
    return np.asarray(decoded(content, mode="L", name="x")).astype(int)


@pytest.mark.parametrize("word", ["<u2", "<f4", ">f4", "|u1"])
def test_a_tiff_whose_lowest_value_is_white_is_turned_over(word):
    content = tiff(ramp_of(word, 255 - RAMP.astype(int)), photometric=0)
    np.testing.assert_allclose(grey(content), RAMP, atol=1)


def test_turning_over_and_turning_upright_go_together():
    mirrored = ramp_of("<u2", 255 - RAMP[:, ::-1].astype(int)).copy()
    mirrored[:20, :10] = 0
    upright = RAMP.copy()
    upright[:20, -10:] = 255
    content = tiff(mirrored, photometric=0, orientation=2)
    np.testing.assert_allclose(grey(content), upright, atol=1)


def test_an_image_of_one_value_stays_black():
    assert not grey(tiff(np.full((40, 40), 9, "<u2"), photometric=0)).any()


@pytest.mark.parametrize("word", ["|i1", "<i2", ">i2", "<i4", ">i4", "<u4", "<u2", ">u2"])
def test_every_kind_of_integer_is_read_as_it_is_stored(word):
    np.testing.assert_allclose(grey(tiff(ramp_of(word, RAMP), photometric=1)), RAMP, atol=1)


def png(pixels, kind):
    """A PNG of 16 bits; `kind` is 2 for RGB, 4 for grey with alpha, 6 for RGBA."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def sgi(pixels):
    height, width = pixels.shape
    head = struct.pack(">HBBHHHHII", 474, 0, 2, 2, width, height, 1, 0, 65535)
    return head.ljust(512, b"\0") + pixels[::-1].astype(">u2").tobytes()


def files_of(wide):
    """Name -> a file with 16 bits a channel."""
    opaque = np.full_like(wide, 65535)
    colour = np.stack([wide] * 3, -1)
    head = b"P6\n%d %d\n65535\n" % wide.shape[::-1]
    return {
        "grey PNG with alpha": png(np.stack([wide, opaque], -1), 4),
        "colour PNG": png(colour, 2),
        "colour PNG with alpha": png(np.stack([wide] * 3 + [opaque], -1), 6),
        "little-endian TIFF": tiff(colour.astype("<u2"), photometric=2),
        "big-endian TIFF": tiff(colour.astype(">u2"), photometric=2),
        "PPM": head + colour.astype(">u2").tobytes(),
        "PPM in words": head.replace(b"P6", b"P3") + b" ".join(b"%d" % v for v in colour.ravel()),
        "SGI": sgi(wide),
    }


@pytest.mark.parametrize("kind", files_of(np.zeros((2, 2), int)))
def test_16_bits_a_channel_are_shown_where_the_highest_is_used_and_else_refused(kind):
    np.testing.assert_allclose(grey(files_of(RAMP.astype(int) * 257)[kind]), RAMP, atol=1)
    for used in (9, 12, 15):
        with pytest.raises(ImageProblem, match="16 bits a channel") as caught:
            grey(files_of(RAMP.astype(int) * 257 >> (16 - used))[kind])
        assert caught.value.reason == "undecodable_image"


def test_dark_images_of_8_bits_or_of_a_stated_depth_are_no_such_case():
    dark = np.stack([RAMP // 8] * 3, -1)
    content = io.BytesIO()
    Image.fromarray(dark).save(content, "PNG")
    np.testing.assert_array_equal(grey(content.getvalue()), dark[..., 0])
    twelve = np.stack([RAMP.astype(int) * 2] * 3, -1).astype(">u2").tobytes()
    found = grey(b"P6\n%d %d\n4095\n" % RAMP.shape[::-1] + twelve)
    np.testing.assert_allclose(found, RAMP * (510 / 4095), atol=1)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["byte", "two shorts"])
def test_an_orientation_of_another_kind_of_number_is_followed(tag, kind):
    stored = Image.fromarray(RAMP // 2 + (np.arange(64) // 2).astype(np.uint8))
    files = []
    for code, count, value in (
        (3, 1, (tag,)),
        (1, 1, (tag,)) if kind == "byte" else (3, 2, (tag, 1)),
    ):
        packed = struct.pack(f"<{count}{'B' if code == 1 else 'H'}", *value).ljust(4, b"\0")
        entry = struct.pack("<HHI", 0x0112, code, count) + packed
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
        content = io.BytesIO()
        stored.save(content, "JPEG", quality=98, exif=exif)
        files.append(grey(content.getvalue()))
    np.testing.assert_array_equal(*files)
