"""Properties of the strict image preparation."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from data_prep.kit.images import PixelSums, prepare_image
from prior_jax.data.decode import ImageProblem
from tests.data_prep import hospital


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(prepared):
    with Image.open(io.BytesIO(prepared.encoded)) as image:
        assert image.mode == "L"
        return np.asarray(image)


@pytest.mark.parametrize(("size", "expected"), [((600, 400), (96, 64)), ((401, 997), (64, 159))])
def test_short_side_and_aspect_ratio_are_kept(size, expected):
    prepared = prepare_image(hospital.jpeg(0, size=size), short_side=64, quality=95)
    assert decoded(prepared).shape == expected[::-1]


def test_smaller_images_are_not_enlarged():
    prepared = prepare_image(hospital.jpeg(0, size=(80, 64)), short_side=256, quality=95)
    assert decoded(prepared).shape == (64, 80)


def test_left_stays_left_and_levels_stay_levels():
    pixels = np.full((300, 400), 40, np.uint8)
    pixels[:, :100] = 200
    got = decoded(prepare_image(encoded(pixels, "JPEG"), short_side=60, quality=95))
    assert abs(float(got[:, :15].mean()) - 200) < 2
    assert abs(float(got[:, 25:].mean()) - 40) < 2


def test_colour_and_sixteen_bits_become_grey():
    ramp = np.tile(np.arange(100, dtype=np.uint16) * 40, (50, 1))  # 12 bits in use
    got = decoded(prepare_image(encoded(ramp), short_side=64, quality=100))
    assert got[0, 0] < 5 and got[0, -1] > 250
    colour = np.zeros((40, 40, 3), np.uint8) + np.uint8(90)
    assert (
        abs(int(decoded(prepare_image(encoded(colour), short_side=64, quality=95))[5, 5]) - 90) < 2
    )


def test_sums_are_those_of_the_pixels_and_merge_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 70), np.uint8)
    sums = prepare_image(encoded(pixels), short_side=64, quality=95).pixels
    mean, std = sums.mean_and_std()
    assert mean == pytest.approx(pixels.mean() / 255, rel=1e-12)
    assert std == pytest.approx(pixels.std() / 255, rel=1e-12)
    other = PixelSums(10, 100, 2000)
    assert sums + other == other + sums
    assert PixelSums(4, 40, 400).mean_and_std() == (10 / 255, 1 / 255)


def test_same_bytes_every_time():
    content = hospital.jpeg(3, size=(500, 400))
    first = prepare_image(content, short_side=64, quality=90)
    assert first == prepare_image(content, short_side=64, quality=90)


WHOLE = hospital.jpeg(1, size=(200, 160))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero_byte_image"),
        (WHOLE[: len(WHOLE) // 2], "truncated_image"),
        (WHOLE[:-200], "truncated_image"),
        (b"<html>404</html>", "undecodable_image"),
        (WHOLE[:2] + b"\0" * 500, "undecodable_image"),
        (encoded(np.zeros((64, 64), np.uint8))[:60], "truncated_image"),
        (encoded(np.zeros((16, 200), np.uint8)), "absurd_image_size"),
        (encoded(np.zeros((40, 1000), np.uint8)), "absurd_image_size"),
    ],
)
def test_damaged_images_are_refused_by_reason(content, reason):
    with pytest.raises(ImageProblem) as caught:
        prepare_image(content, short_side=64, quality=95)
    assert caught.value.reason == reason


def test_truncation_is_found_even_if_another_library_allows_it(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageProblem):
        prepare_image(WHOLE[: len(WHOLE) // 2], short_side=64, quality=95)
