"""Every kind of file comes out upright and in 8 bits, in preparation as in the interface."""

import io

import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from data_prep.kit.images import prepare_image
from prior_jax.data.decode import ImageProblem, decoded
from prior_jax.data.image import ImageConfig
from prior_jax.interface.inputs import process_images

RAMP = np.repeat(np.rint(np.linspace(0, 255, 96)).astype(np.uint8)[:, None], 64, 1)
GREY = Image.fromarray(RAMP)
WIDE = RAMP.astype(np.uint16)


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def grey(content, **options):
    return np.asarray(decoded(content, mode="L", name="x", **options)).astype(int)


def _alpha(opaque):
    return Image.fromarray(np.full_like(RAMP, 255 if opaque else 40))


def _palette(inverted=False, **options):
    image = Image.fromarray(255 - RAMP if inverted else RAMP).convert("P")
    if inverted:
        image.putpalette([255 - level for level in range(256) for _ in range(3)])
    return saved(image, "PNG", **options)


KINDS = {
    "grey PNG": saved(GREY, "PNG"),
    "grey JPEG": saved(GREY, "JPEG", quality=98),
    "progressive JPEG": saved(GREY, "JPEG", quality=98, progressive=True),
    "colour JPEG": saved(GREY.convert("RGB"), "JPEG", quality=98),
    "CMYK JPEG": saved(GREY.convert("RGB").convert("CMYK"), "JPEG", quality=98),
    "CMYK TIFF": saved(GREY.convert("RGB").convert("CMYK"), "TIFF"),
    "YCbCr TIFF": saved(GREY.convert("RGB").convert("YCbCr"), "TIFF"),
    "16 bits PNG": saved(Image.fromarray(WIDE * 257), "PNG"),
    "16 bits TIFF": saved(Image.fromarray(WIDE * 257), "TIFF"),
    "12 bits in 16": saved(Image.fromarray(WIDE * 16), "PNG"),
    "32 bits TIFF": saved(Image.fromarray(RAMP.astype(np.int32) * 1000 - 9), "TIFF"),
    "floats": saved(Image.fromarray(RAMP.astype(np.float32) / 255 - 7), "TIFF"),
    "tiny floats": saved(Image.fromarray(RAMP.astype(np.float32) * 1e-6), "TIFF"),
    "JPEG 2000": saved(GREY, "JPEG2000"),
    "JPEG 2000 of 16 bits": saved(Image.fromarray(WIDE * 257), "JPEG2000"),
    "BMP": saved(GREY, "BMP"),
    "PGM": saved(GREY, "PPM"),
    "WebP": saved(GREY.convert("RGB"), "WEBP", lossless=True),
    "GIF": saved(GREY, "GIF"),
    "palette": _palette(),
    "palette turned over": _palette(inverted=True),
    "palette with a transparent entry": _palette(transparency=3),
    "opaque RGBA": saved(GREY.convert("RGBA"), "PNG"),
    "half transparent RGBA": saved(
        Image.merge("RGBA", (GREY, GREY, GREY, _alpha(False))), "PNG"
    ),
    "opaque LA": saved(Image.merge("LA", (GREY, _alpha(True))), "PNG"),
    "grey with a transparent level": saved(GREY, "PNG", transparency=255),
}  # fmt: skip
# Pillow before 13 cannot read the YCbCr TIFF files that it writes; see the test below.
READS_YCBCR_TIFF = int(PIL.__version__.partition(".")[0]) >= 13
YCBCR_TIFF = KINDS["YCbCr TIFF"] if READS_YCBCR_TIFF else KINDS.pop("YCbCr TIFF")


def test_a_tiff_that_pillow_cannot_read_is_refused_by_name():
    if READS_YCBCR_TIFF:
        np.testing.assert_allclose(grey(YCBCR_TIFF), RAMP, atol=3)
    else:
        with pytest.raises(ImageProblem, match="truncated_image"):
            grey(YCBCR_TIFF)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_the_same_ramp(kind):
    np.testing.assert_allclose(grey(KINDS[kind]), RAMP, atol=3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_preparation_stores_is_what_the_interface_reads(kind, tmp_path):
    (tmp_path / "x").write_bytes(KINDS[kind])
    config = ImageConfig(size=96, channels=1, mean=(0.0,), std=(1.0,))
    given = process_images(tmp_path / "x", config=config).pixels
    (tmp_path / "stored").write_bytes(
        prepare_image(KINDS[kind], short_side=64, quality=100).encoded
    )
    stored = process_images(tmp_path / "stored", config=config).pixels
    np.testing.assert_allclose(given, stored, atol=2.5 / 255)


def test_one_bit_is_black_and_white():
    content = saved(GREY.point(lambda level: 255 * (level > 127)).convert("1"), "PNG")
    np.testing.assert_array_equal(grey(content), 255 * (RAMP > 127))


def test_colour_stays_colour_for_a_colour_model():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = np.asarray(decoded(saved(Image.fromarray(pixels), "PNG"), mode="RGB", name="x"))
    np.testing.assert_array_equal(found, pixels)


BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", BACK)
def test_exif_orientation_is_applied_as_viewers_do(tag, kind):
    upright = RAMP.copy()
    upright[:20, :10] = 255  # neither turn nor mirror leaves it as it is
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = Image.fromarray(upright).transpose(BACK[tag])
    options = {"JPEG": {"quality": 98}, "WEBP": {"lossless": True}}.get(kind, {})
    content = saved(stored.convert("RGB" if kind == "WEBP" else "L"), kind, exif=exif, **options)
    np.testing.assert_allclose(grey(content), upright, atol=12)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        viewer = np.asarray(ImageOps.exif_transpose(image).convert("L")).astype(int)
    np.testing.assert_allclose(grey(content), viewer, atol=1)
    prepared = prepare_image(content, short_side=64, quality=98).encoded
    np.testing.assert_allclose(grey(prepared), upright, atol=14)


@pytest.mark.parametrize(
    "exif",
    [b"", b"Exif\0\0", b"Exif\0\0MM\0*garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"\xff" * 40],
)
def test_damaged_exif_harms_no_sound_image(exif):
    np.testing.assert_allclose(grey(saved(GREY, "JPEG", quality=98, exif=exif)), RAMP, atol=3)


@pytest.mark.parametrize("tag", [0, 1, 9, 6000])
def test_an_orientation_that_is_none_turns_nothing(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    np.testing.assert_allclose(grey(saved(GREY, "PNG", exif=exif)), RAMP)


def test_a_camera_file_with_a_preview_is_one_picture():
    content = saved(GREY, "MPO", save_all=True, append_images=[GREY.resize((32, 48))], quality=98)
    np.testing.assert_allclose(grey(content), RAMP, atol=3)


OTHER = Image.fromarray(255 - RAMP)
NOT_FINITE = RAMP.astype(np.float32)
NOT_FINITE[0, 0] = np.nan
REFUSED = {
    "nothing": (b"", "zero_byte_image"),
    "a text": (b"FINDINGS: clear", "undecodable_image"),
    "half a JPEG": (KINDS["grey JPEG"][:900], "truncated_image"),
    "half a PNG": (KINDS["grey PNG"][:120], "truncated_image|undecodable_image"),
    "a TIFF of two": (saved(GREY, "TIFF", save_all=True, append_images=[OTHER]), "several_frames"),
    "a GIF of two": (saved(GREY, "GIF", save_all=True, append_images=[OTHER]), "several_frames"),
    "a PNG of two": (saved(GREY, "PNG", save_all=True, append_images=[OTHER]), "several_frames"),
    "floats with NaN": (saved(Image.fromarray(NOT_FINITE), "TIFF"), "undecodable_image"),
    "too small": (saved(GREY.resize((31, 40)), "PNG"), "absurd_image_size"),
    "too long": (saved(GREY.resize((40, 400)), "PNG"), "absurd_image_size"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_radiograph_is_refused_by_name(kind):
    content, reasons = REFUSED[kind]
    with pytest.raises(ImageProblem) as caught:
        grey(content)
    assert caught.value.reason in reasons.split("|") and caught.value.detail
