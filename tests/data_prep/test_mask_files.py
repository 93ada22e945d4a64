"""Files of masks: which kinds say of each pixel whether it is black, and where that pixel is."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_prep.kit.mask_files import read_mask
from prior_jax.data import regions
from prior_jax.data.decode import ImageProblem
from tests.data_prep.test_manifest import prepare, records_of

MASK = np.zeros((48, 64), bool)
MASK[10:20, 5:25] = True
GREY = Image.fromarray(MASK.astype(np.uint8) * 255)
ORIENTATION, PHOTOMETRIC = 274, 262


def written(folder, name, image=GREY, **options):
    path = folder / name
    image.save(path, **options)
    return path


def deep_png(path, *channels):
    """Writes a PNG of 16 bits a channel, which Pillow cannot write."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[len(channels)]
    pixels = np.stack(np.broadcast_arrays(*channels), axis=2).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    height, width = pixels.shape[:2]

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def deep_tiff(path, pixels):
    """Writes a TIFF of 16 bits in each of three channels, which Pillow cannot write."""
    height, width = pixels.shape[:2]
    content = pixels.astype("<u2").tobytes()
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8 + len(content)), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, height),
        (279, 4, 1, len(content)),
    ]  # fmt: skip
    start = 8 + len(content) + 6
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, start)
        + content
        + struct.pack("<3H", 16, 16, 16)
        + struct.pack("<H", len(entries))
        + table
        + struct.pack("<I", 0)
    )
    return path


def packed_otherwise(path, kind):
    """Writes another number for the way in which a TIFF is packed."""
    content = bytearray(path.read_bytes())
    tag = content.index(struct.pack("<HHI", 259, 3, 1))
    content[tag + 8 : tag + 10] = struct.pack("<H", kind)
    path.write_bytes(content)
    return path


def refused(path, words="."):
    with pytest.raises(ImageProblem, match=words) as caught:
        read_mask(path)
    assert caught.value.reason == "undecodable_mask" and path.name in caught.value.detail


@pytest.mark.parametrize(
    "name", ["a.png", "a.tif", "a.gif", "a.bmp", "lzw.tif", "deflate.tif", "packbits.tif"]
)
def test_kinds_that_keep_every_pixel_are_read(tmp_path, name):
    packed = {
        "lzw.tif": "tiff_lzw",
        "deflate.tif": "tiff_adobe_deflate",
        "packbits.tif": "packbits",
    }
    options = {"compression": packed[name]} if name in packed else {}
    np.testing.assert_array_equal(read_mask(written(tmp_path, name, **options)), MASK)


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.jpg", {}),
        ("lossy.webp", {"quality": 30}),
        ("lossless.webp", {"lossless": True}),  # its file does not say that it is
        ("a.jp2", {"irreversible": True}),
        ("jpeg.tif", {"compression": "jpeg"}),
        ("a.ppm", {}),
    ],
)
def test_kinds_that_may_blur_a_mask_are_refused_by_name(tmp_path, name, options):
    image = GREY.convert("RGB") if "webp" in name else GREY
    path = written(tmp_path, name, image, **options)
    refused(path, "may blur a mask; write it as PNG, TIFF, GIF or BMP, without loss")
    disguised = path.rename(tmp_path / "a.png")  # what counts is the content, not the name
    refused(disguised, "may blur a mask")


def test_tiff_with_webp_in_it_is_refused_by_name(tmp_path):
    refused(packed_otherwise(written(tmp_path, "a.tif"), 50001), "TIFF with webp in it")


def test_damaged_files_are_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    refused(tmp_path / "a.png", "is no image")
    jpeg_2000 = 34712
    refused(packed_otherwise(written(tmp_path, "a.tif"), jpeg_2000))
    content = written(tmp_path, "cut.png").read_bytes()
    for length in (20, 26, 60):
        (tmp_path / "cut.png").write_bytes(content[:length])
        refused(tmp_path / "cut.png")
    with pytest.raises(ImageProblem, match=r"there is no b\.png") as caught:
        read_mask(tmp_path / "b.png")
    assert caught.value.reason == "missing_mask"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("packed", [None, "tiff_lzw"])
def test_an_orientation_leaves_the_pixels_of_a_mask_where_they_are_stored(
    tmp_path, orientation, packed
):
    tiff = written(
        tmp_path, "a.tif", tiffinfo={ORIENTATION: orientation}, compression=packed or "raw"
    )
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    png = written(tmp_path, "a.png", exif=exif.tobytes())
    for path in (tiff, png):
        np.testing.assert_array_equal(read_mask(path), MASK)


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_masks_follow_a_turned_image_whatever_both_files_are(tmp_path, orientation):
    grey = Image.fromarray(np.full(MASK.shape, 90, np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    marks = {"tif": {"tiffinfo": {ORIENTATION: orientation}}, "png": {"exif": exif.tobytes()}}
    rows = []
    for image, how in marks.items():
        for mask, same in marks.items():
            name = written(tmp_path, f"{image}_{mask}.{image}", grey, **how).name
            path = written(tmp_path, f"{image}_{mask}_mask.{mask}", **same)
            rows.append({"image": name, "mask": path.name, "split": "train"})
    summary = prepare(tmp_path, rows, mask_columns=("mask=Mass",), short_side=48)
    found = records_of(tmp_path, summary)
    change = regions.turned(orientation, before=MASK.shape)
    assert len(found) == 4
    for name, record in found.items():
        (content,) = record.region_masks
        expected = regions.moved_mask(MASK, change)
        np.testing.assert_array_equal(regions.decoded_mask(content), expected, err_msg=name)


@pytest.mark.parametrize("value", [1, 255, 256, 65535])
def test_sixteen_bits_of_grey_are_read_and_those_of_colour_refused(tmp_path, value):
    deep, full = MASK * value, np.full(MASK.shape, 65535)
    np.testing.assert_array_equal(read_mask(deep_png(tmp_path / "grey.png", deep)), MASK)
    grey = written(tmp_path, "grey.tif", Image.fromarray(deep.astype(np.uint16)))
    np.testing.assert_array_equal(read_mask(grey), MASK)
    words = "16 bits a channel in colour or with transparency.*write it as 8-bit grey"
    refused(deep_png(tmp_path / "colour.png", deep, deep, deep), words)
    refused(deep_png(tmp_path / "alpha.png", deep, full), words)
    refused(deep_png(tmp_path / "both.png", deep, deep, deep, full), words)
    refused(deep_tiff(tmp_path / "colour.tif", np.stack([deep] * 3, axis=2)), words)


def test_a_mask_that_its_transparency_alone_carries_is_refused_by_name(tmp_path):
    nothing, alpha = MASK * np.uint8(0), MASK * np.uint8(255)
    words = "is black, and its transparency alone differs"
    for name, channels in (("RGBA", [nothing] * 3), ("LA", [nothing])):
        image = Image.merge(name, [Image.fromarray(one) for one in (*channels, alpha)])
        refused(written(tmp_path, f"{name}.png", image), words)
        for same in (0, 255):
            image.putalpha(same)
            assert not read_mask(written(tmp_path, "same.png", image)).any()
    white = Image.merge("LA", [Image.fromarray(nothing + 255), Image.fromarray(alpha)])
    np.testing.assert_array_equal(read_mask(written(tmp_path, "white.png", white)), MASK)


def test_values_that_are_neither_black_nor_above_it_are_refused_by_name(tmp_path):
    np.testing.assert_array_equal(
        read_mask(written(tmp_path, "a.tif", Image.fromarray(MASK.astype(np.float32)))), MASK
    )
    for name, value in (("nan", np.nan), ("below", -1.0)):
        image = Image.fromarray(np.where(MASK, value, 0).astype(np.float32))
        refused(written(tmp_path, f"{name}.tif", image), "below 0, no numbers")
    deep = Image.fromarray(MASK.astype(np.uint16) * 65535)
    refused(written(tmp_path, "white.tif", deep, tiffinfo={PHOTOMETRIC: 0}), "0 is white")
