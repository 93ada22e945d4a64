"""COVID Rural's preparer on damaged and odd images and masks, one case each."""

import io

import numpy as np
import pytest
from PIL import Image

from data_prep import covid_rural
from data_prep.kit import cli
from prior_jax.errors import DataError
from tests.data_prep import label_sets, odd_cases
from tests.data_prep.odd_cases import Case, Kept, Refused
from tests.data_prep.test_covid_rural import rectangle, write_image

SIZE = label_sets.SIZE
MASK = rectangle() > 0
WHOLE = np.ones((SIZE, SIZE), bool)
HERE, NOWHERE = Kept(labels=(1,), masks=[MASK]), Kept(labels=(0,), masks=[])
GREY = np.where(MASK, 120, 0).astype(np.uint8)


def content_of(image, kind="PNG", **more):
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def of(array, mode=None, **more):
    image = Image.fromarray(array)
    return content_of(image.convert(mode) if mode else image, **more)


def layered(*channels):
    return np.stack(np.broadcast_arrays(*channels), axis=2).astype(np.uint8)


def palette(array, colours, **more):
    image = Image.fromarray(array.astype(np.uint8), "P")
    image.putpalette(colours)
    return content_of(image, **more)


def two_frames():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    return content_of(frames[0], "GIF", save_all=True, append_images=frames[1:])


def case(mask, expect, *, suffix=".png", draw=None):
    return Case(extra={f"{{n}}{suffix}": mask}, draw=draw, expect=expect)


GOOD = of(rectangle())
CASES = {
    "ones": case(GOOD, HERE),
    "bits": case(of(MASK), HERE),
    "255": case(of(rectangle() * 255), HERE),
    "grey_values": case(of(GREY), HERE),  # sida#25
    "several_grey_values": case(of(np.where(MASK, np.arange(SIZE) + 1, 0).astype(np.uint8)), HERE),
    "colour": case(of(rectangle() * 255, "RGB"), HERE),
    "dark_blue": case(of(layered(0, 0, MASK)), HERE),
    "opaque": case(of(rectangle() * 255, "RGBA"), HERE),
    "white_where_transparent": case(of(layered(255, 255, 255, MASK * 255)), HERE),
    "black_and_transparent": case(of(layered(0, 0, 0, MASK * 0)), NOWHERE),
    "half_transparent": case(of(layered(MASK * 255, 0, 0, 128)), HERE),
    "grey_and_transparent": case(of(layered(255, MASK * 255), None), HERE),
    "transparent_colour": case(
        of(np.where(MASK, 200, 255).astype(np.uint8), transparency=255), HERE
    ),
    "sixteen_bits": case(of(MASK.astype(np.uint16)), HERE),
    "sixteen_bits_high": case(of(MASK.astype(np.uint16) * 65535), HERE),
    "palette": case(palette(MASK, [0, 0, 0, 255, 0, 0]), HERE),
    "palette_the_other_way": case(palette(~MASK, [255, 0, 0, 0, 0, 0]), HERE),
    "palette_with_transparency": case(
        palette(MASK, [255, 255, 255, 255, 0, 0], transparency=0), HERE
    ),
    "gif": case(of(rectangle() * 255, kind="GIF"), HERE, suffix=".gif"),
    "full_gif": case(
        of(np.full((SIZE, SIZE), 255, np.uint8), kind="GIF"), Kept(masks=[WHOLE]), suffix=".gif"
    ),
    "full": case(of(WHOLE), Kept(labels=(1,), masks=[WHOLE])),
    "empty_mask": case(of(~WHOLE), NOWHERE),
    "one_pixel": case(of(rectangle(5, 5, 6, 6)), Kept(masks=[rectangle(5, 5, 6, 6) > 0])),
    "upper_case_suffix": case(GOOD, HERE, suffix=".PNG"),
    "deep_folder": Case(extra={"a/b/{n}.png": GOOD}, expect=HERE),
    "apple_double_mask": Case(
        extra={"{n}.png": GOOD, "._{n}.png": odd_cases.APPLE_DOUBLE}, expect=HERE
    ),
    "a_copy_of_the_mask": Case(extra={"{n}.png": GOOD, "copy/{n}.png": GOOD}, expect=HERE),
    "two_frames": case(
        two_frames(), Refused("undecodable_mask", "two_frames.gif has 2 frames"), suffix=".gif"
    ),
    "no_mask": Case(extra={}, expect=Refused("missing_mask", "pngs_masks has no file of this")),
    "mask_of_another_name": Case(
        extra={"{n}_mask.png": GOOD}, expect=Refused("missing_mask", "no file of this name")
    ),
    "mask_as_jpeg": Case(extra={"{n}.jpg": GOOD}, expect=Refused("missing_mask")),
    "mask_as_apple_double": case(
        odd_cases.APPLE_DOUBLE, Refused("undecodable_mask", "mask_as_apple_double.png")
    ),
    "mask_cut_off": case(GOOD[:70], Refused("undecodable_mask", "mask_cut_off.png")),
    "mask_is_text": case(b"<html>", Refused("undecodable_mask", "mask_is_text.png")),
    "mask_is_empty": case(b"", Refused("undecodable_mask", "mask_is_empty.png")),
    "mask_larger": case(
        of(rectangle(size=SIZE + 1)), Refused("mask_of_another_size", "97x97 pixels.*96x96")
    ),
    "mask_half_as_large": case(
        of(rectangle(size=48)), Refused("mask_of_another_size", "48x48 pixels.*96x96")
    ),
    "empty_mask_of_another_size": case(
        of(np.zeros((48, 48), np.uint8)), Refused("mask_of_another_size", "48x48 pixels.*96x96")
    ),
    "mask_turned": case(
        of(np.ones((64, SIZE), np.uint8)),
        Refused("mask_of_another_size", "96x64 pixels.*64x96"),
        draw=lambda path: Image.new("L", (64, SIZE)).save(path),
    ),
    "image_cut_off": case(
        GOOD,
        Refused("truncated_image"),
        draw=odd_cases.cut(lambda path: Image.fromarray(label_sets.pixels(1)).save(path)),
    ),
    "image_is_text": case(GOOD, Refused("undecodable_image"), draw=odd_cases.written(b"no image")),
    "image_is_empty": case(GOOD, Refused("zero_byte_image"), draw=odd_cases.written(b"")),
    "image_tiny": case(
        of(np.ones((20, 20), np.uint8)),
        Refused("absurd_image_size", "20x20"),
        draw=lambda path: Image.new("L", (20, 20)).save(path),
    ),
    "image_in_upper_case": case(
        GOOD,
        HERE,
        draw=odd_cases.moved(lambda p: Image.new("L", (SIZE, SIZE)).save(p), "{stem}.JPG"),
    ),
    "image_in_a_deep_folder": case(
        GOOD,
        HERE,
        draw=odd_cases.moved(
            lambda path: (path.parent.mkdir(), Image.new("L", (SIZE, SIZE)).save(path)),
            "part/{stem}.jpeg",
        ),
    ),
    "apple_double_image": case(
        GOOD,
        HERE,
        draw=odd_cases.beside(
            lambda path: Image.new("L", (SIZE, SIZE)).save(path),
            "._{stem}.jpg",
            odd_cases.APPLE_DOUBLE,
        ),
    ),
}


def prepare(folder, **settings):
    return covid_rural.prepare(
        covid_rural.Paths(root=str(folder)),
        covid_rural.Settings(**{**odd_cases.TRAIN, **settings}),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("covid")
    for name, one in CASES.items():
        write_image(folder, name)
        if one.draw:
            path = folder / "jpgs" / f"{name}.jpg"
            path.unlink()
            one.draw(path)
        for place, content in (one.extra or {}).items():
            odd_cases.written(content)(folder / "pngs_masks" / place.format(n=name))
    return odd_cases.found_in(folder / "out", prepare(folder))


@pytest.mark.parametrize("name", CASES)
def test_each_odd_case_is_right_or_refused_by_name(found, name):
    odd_cases.check(found, name, CASES[name])


def test_every_image_is_counted_and_masks_without_image_are_told(found):
    rows = found.manifest.tables["jpgs"]
    assert rows.read == len(CASES) == rows.kept + sum(rows.rejected.values())
    assert any("1 masks have no image" in note for note in found.manifest.notes)


def test_two_different_masks_of_one_name_are_refused_with_both(tmp_path):
    write_image(tmp_path, "a")
    odd_cases.written(GOOD)(tmp_path / "pngs_masks" / "a.png")
    odd_cases.written(of(WHOLE))(tmp_path / "pngs_masks" / "a.gif")
    with pytest.raises(DataError, match=r"--root: .* a\.gif and a\.png, and differ"):
        prepare(tmp_path)
