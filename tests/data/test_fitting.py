"""Images are padded to squares as they should be, and every reader of images pads them alike."""

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prior_jax.data import fitting, pipeline, regions
from prior_jax.data import image as image_lib
from prior_jax.errors import ConfigError
from prior_jax.interface import inputs
from tests import fixtures
from tests.data.test_regions import agree, drawn

FITS = ("stretch", "pad", "pad_evenly")


def test_known_margins():
    assert fitting.margins((30, 41), "stretch") == ((0, 0), (0, 0))
    assert fitting.margins((30, 41), "pad") == ((5, 6), (0, 0))
    assert fitting.margins((30, 41), "pad_evenly") == ((5, 5), (0, 0))
    assert fitting.margins((41, 39), "pad") == ((0, 0), (1, 1))
    assert fitting.margins((7, 7), "pad") == ((0, 0), (0, 0))


@settings(max_examples=60, deadline=None)
@given(drawn(), st.integers(32, 160), st.sampled_from(FITS))
def test_every_fit_moves_regions_as_it_moves_pixels(case, size, fit):
    pixels, box = case
    image, place = fitting.placed_resize(Image.fromarray(pixels), size=size, fit=fit)
    agree(image, place, pixels, box, upright=True)
    alone = fitting.resize_transform(pixels.shape, size=size, fit=fit)
    assert alone == place


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 100))
def test_padding_keeps_the_aspect_ratio_and_adds_black_alone(height, width, size):
    image = Image.new("L", (width, height), 255)
    place = fitting.placed_resize(image, size=size, fit="pad")[1]
    (right, _, _), (_, down, _) = place.matrix
    assert right == pytest.approx(down) == pytest.approx(size / max(height, width))
    square = np.asarray(fitting.placed_margins(image, fit="pad")[0])
    assert square.shape == (max(height, width),) * 2
    assert (square == 255).sum() == height * width and set(np.unique(square)) <= {0, 255}


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.sampled_from(FITS))
def test_the_window_shows_the_image(height, width, size, fit):
    rows, columns = fitting.seen_window((height, width), size=size, fit=fit)
    for part in (rows, columns):
        assert 0 <= part.start < part.stop <= size
    white = fitting.resize(Image.new("L", (width, height), 255), size=size, fit=fit)
    bright = np.asarray(white) > 160
    inside = np.zeros_like(bright)
    inside[rows, columns] = True
    assert not (bright & ~inside).any()
    if fit == "stretch":
        assert inside.all()
    long = max(rows.stop - rows.start, columns.stop - columns.start)
    assert long >= size - 1


def test_a_colour_image_is_padded_with_black():
    image = Image.new("RGB", (4, 8), (250, 100, 7))
    found = np.asarray(fitting.placed_margins(image, fit="pad")[0])
    assert not found[:, :2].any() and not found[:, 6:].any()
    np.testing.assert_array_equal(found[:, 2:6], np.full((8, 4, 3), (250, 100, 7)))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 250, (height, width), np.uint8)


def config_of(**chosen):
    return image_lib.ImageConfig(size=24, channels=1, mean=(0.0,), std=(1.0,), **chosen)


CHOICES = [{"fit": fit} for fit in FITS] + [
    {"equalize": True},
    {"fit": "pad", "equalize": True},
    {"to_white": True},
]


@pytest.mark.parametrize("chosen", CHOICES, ids=str)
def test_evaluation_training_and_the_interface_read_an_image_alike(
    chosen, tmp_path, make_config, cache_dir
):
    content = io.BytesIO()
    Image.fromarray(noise(37, 50)).save(content, "PNG")
    record = dataclasses.replace(
        fixtures.draw_record(0), images=(content.getvalue(),), image_ids=("a",), views=("PA",)
    )
    records = [dataclasses.replace(record, study_id=f"s{n}") for n in range(4)]
    fixtures.write_prepared(tmp_path / "set", records=records)
    image = config_of(**chosen)
    config = make_config(
        path=str(tmp_path / "set"),
        image=image,
        augment=image_lib.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0),
        batch_size=2,
    )
    split = pipeline.open_split(config, "train", cache_dir=cache_dir)
    with split.train_batches() as batches:
        trained = next(batches)[1].image[0]
    with split.eval_batches(batch_size=2, require_text=False) as batches:
        evaluated = next(batches)[1].image[0]
    np.testing.assert_array_equal(trained, evaluated)
    path = tmp_path / "a.png"
    path.write_bytes(content.getvalue())
    asked = inputs.process_images([path, noise(37, 50)], config=image).pixels
    for one in asked:
        np.testing.assert_array_equal(one, evaluated)
    plain = inputs.process_images(path, config=config_of()).pixels[0]
    assert (chosen == {"fit": "stretch"}) == np.array_equal(plain, evaluated)


def test_a_crop_is_of_the_padded_image():
    image = Image.fromarray(noise(20, 60) | 1)
    target = image_lib.ImageConfig(size=30, channels=1, mean=None, std=None, fit="pad")
    for crop in ({"crop_from": 60}, {"resized_crop": dict(scale=(0.2, 0.2), ratio=(1.0, 1.0))}):
        if "resized_crop" in crop:
            crop = {"resized_crop": image_lib.crops.ResizedCropConfig(**crop["resized_crop"])}
        config = image_lib.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0, **crop)
        black = 0
        for seed in range(20):
            found, place = image_lib.placed_training_image(
                image, image_config=target, config=config, rng=np.random.default_rng(seed)
            )
            assert place.before == (20, 60) and place.after == (30, 30)
            (right, _, _), (_, down, _) = place.matrix
            assert right == pytest.approx(down)  # the aspect ratio is that of the image
            mask = regions.moved_mask(np.ones((20, 60), bool), place)
            assert not np.asarray(found)[~mask & (np.asarray(found) == 0)].any()
            black += int((~mask).any())
        assert black > 10


@pytest.mark.parametrize(
    ("field", "chosen"),
    [("fit", {"fit": "crop"}), ("to_white", {"equalize": True, "to_white": True})],
)
def test_choices_that_mean_nothing_are_refused_by_name(field, chosen):
    with pytest.raises(ConfigError) as error:
        config_of(**chosen)
    assert error.value.where == field


def test_runs_of_earlier_versions_are_known_by_the_settings_that_they_had():
    earlier = {"size": 24, "channels": 1, "mean": (0.0,), "std": (1.0,)}
    assert config_of().given() == config_of(fit="stretch", equalize=False).given() == earlier
    assert config_of(fit="pad").given() == earlier | {"fit": "pad"}
    none = image_lib.ImageConfig(size=24, channels=1, mean=None, std=None)
    assert none.given() == earlier | {"mean": None, "std": None}
