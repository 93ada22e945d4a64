"""Random crops are drawn by torchvision's rule, and boxes and masks go with them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from prior_jax.data import crops, fitting, regions
from prior_jax.data import image as image_lib
from prior_jax.errors import ConfigError
from tests.data.test_regions import agree, drawn, encoded

OFF = dict(rotation_degrees=0.0, flip_probability=0.0)
USUAL = crops.ResizedCropConfig(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))


class Told:
    """Hands out the numbers that torch has drawn, in the order in which they are asked for."""

    def __init__(self, uniform, whole):
        self._uniform, self._whole = list(uniform), list(whole)

    def uniform(self, low, high):
        value = self._uniform.pop(0)
        assert low - 1e-6 <= value <= high + 1e-6
        return value

    def integers(self, end):
        value = self._whole.pop(0)
        assert 0 <= value < end
        return value


def draw(height, width, config=USUAL, seed=0):
    rng = np.random.default_rng(seed)
    return crops.draw_resized_crop(height=height, width=width, config=config, rng=rng)


def image_of(pixels, *, size, seed, **augmentation):
    config = image_lib.AugmentConfig(**{**OFF, **augmentation})
    rng = np.random.default_rng(seed)
    target = image_lib.ImageConfig(size=size, channels=1, mean=None, std=None)
    return image_lib.placed_training_image(
        Image.fromarray(pixels), image_config=target, config=config, rng=rng
    )


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.floats(0.2, 4),
    st.floats(0.2, 4),
    st.integers(0, 2**32 - 1),
)
def test_a_crop_is_in_its_image_and_as_large_and_wide_as_asked(height, width, a, b, c, d, seed):
    config = crops.ResizedCropConfig(scale=(min(a, b), max(a, b)), ratio=(min(c, d), max(c, d)))
    cut = draw(height, width, config, seed)
    assert 0 <= cut.top and cut.top + cut.height <= height and cut.height >= 1
    assert 0 <= cut.left and cut.left + cut.width <= width and cut.width >= 1
    assume(min(cut.height, cut.width) > 20)  # where half a pixel hardly matters
    centre = cut.left == (width - cut.width) // 2 and cut.top == (height - cut.height) // 2
    share = cut.height * cut.width / (height * width)
    assert centre or config.scale[0] * 0.9 <= share <= config.scale[1] * 1.1
    # A whole image may only be taken if its own ratio is accepted.
    assert config.ratio[0] * 0.9 <= cut.width / cut.height <= config.ratio[1] * 1.1


def test_areas_are_uniform_and_ratios_are_in_their_logarithm():
    found = [draw(1000, 1000, seed=seed) for seed in range(2000)]
    shares = np.array([cut.height * cut.width for cut in found]) / 1e6
    # Large and long crops do not fit and are drawn again: small ones show the distribution.
    small = np.sort(shares[shares < 0.6])
    assert np.abs(np.quantile(small, [0.25, 0.5, 0.75]) - [0.21, 0.34, 0.47]).max() < 0.02
    logs = np.log([cut.width / cut.height for cut in found])[shares < 0.6]
    assert abs(logs.mean()) < 0.02
    expected = math.log(4 / 3) / math.sqrt(3)
    assert abs(logs.std() - expected) < 0.01


def test_an_image_that_no_crop_fits_into_gives_its_middle():
    square = crops.ResizedCropConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert draw(100, 40, square) == crops.Cut(top=30, left=0, height=40, width=40)
    assert draw(41, 100, square) == crops.Cut(top=0, left=29, height=41, width=41)
    whole = crops.ResizedCropConfig(scale=(1.0, 1.0), ratio=(2.0, 2.0))
    assert draw(50, 100, whole) == crops.Cut(top=0, left=0, height=50, width=100)
    assert draw(1, 400) == crops.Cut(top=0, left=199, height=1, width=1)


def test_the_draws_are_torchvision_s(monkeypatch):
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    uniform: list[float] = []
    whole: list[int] = []
    first, second = torch.Tensor.uniform_, torch.randint

    def noted(tensor, low, high):
        uniform.append(first(tensor, float(low), float(high)).item())
        return tensor

    def noted_whole(*arguments, **options):
        found = second(*arguments, **options)
        whole.append(int(found))
        return found

    # torchvision draws the logarithm of the ratio in single precision.
    monkeypatch.setattr(torch.Tensor, "uniform_", noted)
    monkeypatch.setattr(torch, "randint", noted_whole)
    rng = np.random.default_rng(0)
    for case in range(100):
        height, width = (int(side) for side in rng.integers(5, 300, 2))
        config = [USUAL, crops.ResizedCropConfig(scale=(0.5, 1.0), ratio=(0.9, 1.1))][case % 2]
        uniform.clear()
        whole.clear()
        wanted = transforms.RandomResizedCrop.get_params(
            Image.new("L", (width, height)), list(config.scale), list(config.ratio)
        )
        told = Told(uniform, whole)
        cut = crops.draw_resized_crop(height=height, width=width, config=config, rng=told)
        assert (cut.top, cut.left, cut.height, cut.width) == tuple(wanted)


def test_the_pixels_are_torchvision_s():
    functional = pytest.importorskip("torchvision.transforms.functional")
    rng = np.random.default_rng(1)
    for shape in ((90, 70), (64, 128, 3)):
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        cut = crops.Cut(top=7, left=9, height=50, width=40)
        found = fitting.resize(crops.placed_cut(image, cut)[0], size=32)
        wanted = functional.resized_crop(image, 7, 9, 50, 40, [32, 32])
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def test_every_place_of_a_cut_is_equally_likely():
    rng = np.random.default_rng(0)
    found = [crops.draw_crop(before=6, size=4, rng=rng) for _ in range(1800)]
    assert {(cut.height, cut.width) for cut in found} == {(4, 4)}
    places, counts = np.unique([(cut.top, cut.left) for cut in found], axis=0, return_counts=True)
    assert len(places) == 9 and places.max() == 2
    assert counts.min() > 150
    whole = crops.draw_crop(before=4, size=4, rng=rng)
    assert whole == crops.Cut(top=0, left=0, height=4, width=4)


def test_a_cut_takes_pixels_of_the_resized_image_as_they_are():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image, place = image_of(pixels, size=5, seed=4, crop_from=8)
    found = np.asarray(image)
    top, left = divmod(int(found[0, 0]), 8)
    np.testing.assert_array_equal(found, pixels[top : top + 5, left : left + 5])
    assert place.matrix == ((1.0, 0.0, -left), (0.0, 1.0, -top))


@settings(max_examples=60, deadline=None)
@given(drawn(), st.integers(32, 100), st.booleans(), st.integers(0, 2**32 - 1))
def test_crops_move_regions_as_they_move_pixels(case, size, resized, seed):
    pixels, box = case
    # A part of 30 % at least is enlarged little, so that its blurred edges stay narrow.
    rule = crops.ResizedCropConfig(scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3))
    options = {"resized_crop": rule} if resized else {"crop_from": size + size // 7}
    shown, decoding = image_lib.placed_decode(encoded(pixels), channels=1, size=size, name="x")
    image, place = image_of(np.asarray(shown), size=size, seed=seed, **options)
    agree(image, decoding.then(place), pixels, box, upright=True, slack=2)


@settings(max_examples=60, deadline=None)
@given(drawn(), st.floats(0, 20), st.sampled_from([0.0, 1.0]), st.integers(0, 2**32 - 1))
def test_a_crop_that_is_turned_and_mirrored_still_holds_its_regions(case, degrees, flip, seed):
    pixels, box = case
    image, place = image_of(
        pixels,
        size=64,
        seed=seed,
        resized_crop=crops.ResizedCropConfig(scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3)),
        rotation_degrees=degrees,
        flip_probability=flip,
    )
    agree(image, place, pixels, box, upright=False, slack=3)


def test_what_a_crop_has_cut_off_does_not_come_back_when_it_is_turned():
    pixels = np.zeros((100, 100), np.uint8)
    pixels[:, 60:] = 255  # all of it on the right of the crop
    _, place = crops.placed_cut(
        Image.fromarray(pixels), crops.Cut(top=20, left=0, height=60, width=60)
    )
    place = place.then(regions.resized(before=(60, 60), after=(30, 30)))
    for later in (regions.flipped(height=30, width=30), regions.rotated(20, height=30, width=30)):
        whole = place.then(later)
        assert not regions.moved_mask(pixels > 0, whole).any()
        assert not regions.kept_mask(pixels > 0, whole).any()
        assert np.isnan(regions.moved_boxes(np.array([[60, 0, 100, 100]]), whole)).all()
        # Of a box across the edge of the crop what was inside is left.
        parts = np.array([[50, 30, 100, 50], [50, 30, 60, 50]])
        both = regions.moved_boxes(parts, whole)
        np.testing.assert_allclose(both[0], both[1], atol=1e-4)
        # It is also remembered behind a third change.
        last = whole.then(regions.resized(before=(30, 30), after=(90, 90)))
        assert not regions.moved_mask(pixels > 0, last).any()
        np.testing.assert_allclose(regions.moved_boxes(parts[:1], last)[0], both[0] * 3, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(drawn(), st.integers(0, 2**32 - 1))
def test_of_a_region_a_crop_leaves_what_is_inside(case, seed):
    pixels, box = case
    cut = draw(*pixels.shape, seed=seed)
    _, place = crops.placed_cut(Image.fromarray(pixels), cut)
    whole = place.then(regions.resized(before=(cut.height, cut.width), after=(60, 60)))
    mask = regions.moved_mask(pixels > 0, whole)
    (moved,) = regions.moved_boxes(np.array([box]), whole)
    part = pixels[cut.top : cut.top + cut.height, cut.left : cut.left + cut.width] > 0
    if not part.any():
        assert np.isnan(moved).all() and not mask.any()
        return
    # The box is that of what is left, and mask and box have the area that is left.
    scale = np.array([60 / cut.width, 60 / cut.height] * 2)
    np.testing.assert_allclose(moved, np.array(regions.box_of_mask(part)) * scale, rtol=1e-5)
    area = part.sum() * scale[0] * scale[1]
    width, height = moved[2:] - moved[:2]
    assert width * height == pytest.approx(area, rel=1e-4)
    assert abs(mask.sum() - area) <= width + height + 1


@pytest.mark.parametrize("size", [60, 224, 1000])
def test_of_a_box_that_only_touches_the_edge_of_a_crop_nothing_is_left(size):
    image = Image.fromarray(np.zeros((150, 150), np.uint8))
    for left, width in itertools.product(range(1, 40, 3), range(20, 100)):
        _, place = crops.placed_cut(
            image, crops.Cut(top=left, left=left, height=width, width=width)
        )
        place = place.then(regions.resized(before=(width, width), after=(size, size)))
        edge, far = left + width, 150
        beyond = np.array([[edge, left, far, edge], [left, edge, edge, far]])
        before = np.array([[0, left, left, edge], [left, 0, edge, left]])
        assert np.isnan(regions.moved_boxes(np.concatenate([beyond, before]), place)).all()


def test_a_crop_is_decoded_finely_enough():
    config = image_lib.AugmentConfig(**OFF, resized_crop=USUAL)
    assert config.decoded_size(224) == 792  # 224 pixels are left of 8 % of 792 x 792
    assert image_lib.AugmentConfig(**OFF, crop_from=256).decoded_size(224) == 256
    assert image_lib.AugmentConfig(**OFF).decoded_size(224) == 224


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"ratio": (1.0, math.inf)}, "ratio"),
    ],
)
def test_wrong_settings_are_refused_by_name(values, field):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        crops.ResizedCropConfig(**({"scale": (0.1, 1.0), "ratio": (0.5, 2.0)} | values))
