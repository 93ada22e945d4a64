"""Decoding is strict, resizing and augmentation are the release's."""

import io

import numpy as np
import pytest
from PIL import Image

from prior_jax.data import colours, crops, fitting
from prior_jax.data import image as image_lib
from prior_jax.errors import ConfigError, DataError

EVERYTHING = dict(
    resized_crop=crops.ResizedCropConfig(scale=(0.08, 1.0), ratio=(0.75, 1.5)),
    jitter=colours.JitterConfig(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8
    ),
    grey_probability=0.2,
    blur=colours.BlurConfig(sigma=(0.1, 2.0), kernel=None, probability=0.5),
)


def encoded(array, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind)
    return content.getvalue()


def gray(height=40, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def decode(content, *, channels=1, size=20):
    return image_lib.decode(content, channels=channels, size=size, name="image 'x'")


def augmented(array, *, degrees=0.0, flip=0.0, seed=0):
    config = image_lib.AugmentConfig(rotation_degrees=degrees, flip_probability=flip)
    rng = np.random.default_rng(seed)
    return np.asarray(image_lib.placed_augment(Image.fromarray(array), config=config, rng=rng)[0])


def test_a_png_comes_back_exactly_and_gray_becomes_rgb():
    array = gray()
    np.testing.assert_array_equal(np.asarray(decode(encoded(array))), array)
    coloured = np.asarray(decode(encoded(array), channels=3))
    np.testing.assert_array_equal(coloured, np.repeat(array[..., None], 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused_by_name(kind):
    content = encoded(gray(), kind)
    with pytest.raises(DataError, match="image 'x'"):
        decode(content[: len(content) // 2])


def test_what_is_no_image_is_refused_by_name():
    for content in (b"", b"report"):
        with pytest.raises(DataError, match="image 'x'"):
            decode(content)


def test_a_far_larger_jpeg_is_decoded_at_a_fraction_that_is_still_twice_the_size():
    content = encoded(np.repeat(np.repeat(gray(), 20, axis=0), 20, axis=1), "JPEG")
    assert decode(content, size=20).size == (100, 100)  # an eighth of 800 x 800
    assert decode(content, size=300).size == (800, 800)


def test_the_margin_says_how_far_a_jpeg_is_shrunk_as_it_is_decoded():
    content = encoded(np.repeat(np.repeat(gray(), 20, axis=0), 20, axis=1), "JPEG")

    def side(margin, size):
        kept = image_lib.decode(content, channels=1, size=size, name="x", draft_margin=margin)
        return kept.width

    assert [side(1, 400), side(2, 400), side(None, 400)] == [400, 800, 800]
    assert [side(1, 20), side(2, 20), side(None, 20)] == [100, 100, 800]


def test_at_margin_1_the_decoder_averages_and_does_not_skip_pixels():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    half = image_lib.decode(encoded(stripes, "JPEG"), channels=1, size=32, name="x", draft_margin=1)
    assert half.size == (32, 32)
    assert np.abs(np.asarray(half).astype(int) - 100).max() <= 15  # aliased it would be 0 or 200


def test_resizing_averages_and_does_not_keep_the_aspect_ratio():
    array = np.zeros((8, 32), np.uint8)
    array[:, ::2] = 200
    small = np.asarray(fitting.resize(Image.fromarray(array), size=4))
    assert small.shape == (4, 4)
    assert np.abs(small.astype(int) - 100).max() <= 15  # aliased it would be 0 or 200


def test_normalising_inverts_to_the_pixels():
    mean, std = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    array = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    got = image_lib.normalise(Image.fromarray(array), mean=mean, std=std)
    assert got.dtype == np.float32 and got.shape == (5, 6, 3)
    np.testing.assert_allclose(got, (array / 255.0 - mean) / std, atol=1e-5)
    one = image_lib.normalise(Image.fromarray(gray(5, 6)), mean=mean[:1], std=std[:1])
    assert one.shape == (5, 6, 1)


def test_a_flip_mirrors_left_and_right_about_half_the_time():
    array = gray()
    np.testing.assert_array_equal(augmented(array, flip=1.0), array[:, ::-1])
    np.testing.assert_array_equal(augmented(array, flip=0.0), array)
    flips = sum((augmented(array, flip=0.5, seed=s) != array).any() for s in range(200))
    assert 70 < flips < 130


def test_rotation_keeps_pixel_values_and_fills_corners_with_zero():
    array = np.full((41, 41), 200, np.uint8)
    turned = [augmented(array, degrees=5.0, seed=s) for s in range(20)]
    assert all(set(np.unique(image)) <= {0, 200} for image in turned)
    assert all((image[20] == 200).sum() >= 39 for image in turned)
    share = [float((image == 0).mean()) for image in turned]
    assert 0 < max(share) < 0.09  # 5 degrees take at most about 4 % of a square from each end
    assert len(set(share)) > 5


def test_rotation_goes_both_ways():
    array = np.zeros((41, 41), np.uint8)
    array[20, 38] = 255
    rows = [augmented(array, degrees=8.0, seed=s)[:, 36:].max(axis=1).argmax() for s in range(30)]
    assert min(rows) < 20 < max(rows)


def of_size(size):
    return image_lib.ImageConfig(size=size, channels=1, mean=None, std=None)


def test_chances_do_not_depend_on_the_config():
    """Turning one change off leaves what follows it in the record's random stream alone."""
    after = []
    for degrees, flip, more in ((0.0, 0.0, {}), (5.0, 0.5, {}), (5.0, 0.5, EVERYTHING)):
        rng = np.random.default_rng(3)
        config = image_lib.AugmentConfig(rotation_degrees=degrees, flip_probability=flip, **more)
        image_lib.placed_training_image(
            Image.fromarray(gray()), image_config=of_size(20), config=config, rng=rng
        )
        after.append(rng.integers(1 << 30))
    assert after[0] == after[1] == after[2]


def test_without_crops_and_colours_an_image_is_resized_rotated_and_flipped_as_before():
    image = Image.fromarray(gray(50, 60))
    config = image_lib.AugmentConfig(rotation_degrees=5.0, flip_probability=0.5)
    for seed in range(6):
        found, _ = image_lib.placed_training_image(
            image, image_config=of_size(20), config=config, rng=np.random.default_rng(seed)
        )
        rng = np.random.default_rng(seed)
        wanted = fitting.resize(image, size=20)
        wanted = wanted.rotate(rng.uniform(-1.0, 1.0) * 5.0, resample=Image.Resampling.NEAREST)
        if rng.uniform() < 0.5:
            wanted = wanted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def test_statistics_are_the_sets_unless_the_config_has_its_own():
    own = image_lib.ImageConfig(size=8, channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 2.0))
    mean, std = image_lib.statistics(own, mean=0.9, std=0.9)
    np.testing.assert_allclose(mean, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(std, [1.0, 1.0, 2.0])
    none = image_lib.ImageConfig(size=8, channels=3, mean=None, std=None)
    mean, std = image_lib.statistics(none, mean=0.4, std=0.2)
    np.testing.assert_allclose(mean, [0.4] * 3)
    np.testing.assert_allclose(std, [0.2] * 3)
    assert mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"size": 0}, "size"),
        ({"channels": 2}, "channels"),
        ({"mean": (0.1,)}, "std"),
        ({"mean": (0.1, 0.2), "std": (0.1, 0.2)}, "mean"),
        ({"mean": (0.1,), "std": (0.0,)}, "std"),
    ],
)
def test_wrong_image_settings_are_refused_by_name(values, field):
    good = {"size": 8, "channels": 1, "mean": None, "std": None}
    with pytest.raises(ConfigError, match=f"^{field}: "):
        image_lib.ImageConfig(**(good | values))


def test_wrong_augment_settings_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"^rotation_degrees: "):
        image_lib.AugmentConfig(rotation_degrees=-1.0, flip_probability=0.0)
    with pytest.raises(ConfigError, match=r"^flip_probability: "):
        image_lib.AugmentConfig(rotation_degrees=0.0, flip_probability=1.5)
    off = {"rotation_degrees": 0.0, "flip_probability": 0.0}
    with pytest.raises(ConfigError, match=r"^grey_probability: "):
        image_lib.AugmentConfig(**off, grey_probability=2.0)
    for more in ({"crop_from": 0}, {"crop_from": 9, "resized_crop": EVERYTHING["resized_crop"]}):
        with pytest.raises(ConfigError, match=r"^crop_from: "):
            image_lib.AugmentConfig(**off, **more)
