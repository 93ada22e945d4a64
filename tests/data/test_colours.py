"""Colours and blur are changed by torchvision's formulas, and as often as the settings say."""

import itertools

import numpy as np
import pytest
from PIL import Image

from prior_jax.data import colours
from prior_jax.errors import ConfigError

MGCA = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, Pillow's luma
ADJUSTMENTS = ("brightness", "contrast", "saturation", "hue")
RECORDED = {
    "brightness": [13, 255, 116, 255, 39, 39, 166, 166, 166, 0, 255, 78],
    "contrast": [57, 171, 105, 201, 69, 69, 128, 128, 128, 51, 204, 87],
    "saturation": [0, 227, 73, 255, 3, 3, 128, 128, 128, 0, 255, 21],
    "hue": [10, 200, 198, 250, 160, 30, 128, 128, 128, 0, 255, 210],
}


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(*shape):
    rows, columns = np.indices(shape)
    return np.uint8(120 + 80 * np.sin(rows / 3) * np.cos(columns / 4))


def adjusted(kind, array, value):
    function = getattr(colours, f"adjust_{kind}")
    return np.asarray(function(Image.fromarray(array), value))


def changed(array, *, seed=0, jitter=None, grey=None, blur=None):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(array)
    made = colours.recoloured(image, jitter=jitter, grey_probability=grey, blur=blur, rng=rng)
    return np.asarray(made)


@pytest.mark.parametrize("factor", [0.0, 0.37, 1.0, 1.6])
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_contrast_and_saturation_are_mixtures(factor, channels):
    array = drawn(9, 7, 3) if channels == 3 else drawn(9, 7)
    luma = np.rint(array @ GREY) if channels == 3 else array.astype(float)
    others = {
        "brightness": np.zeros(array.shape),
        "contrast": np.full(array.shape, np.floor(luma.mean() + 0.5)),
        "saturation": np.broadcast_to(luma[..., None], array.shape) if channels == 3 else array,
    }
    for kind, other in others.items():
        wanted = np.clip(factor * array + (1 - factor) * other, 0, 255)
        assert np.abs(adjusted(kind, array, factor) - wanted).max() <= 1, kind


def test_the_hue_turns_and_grey_stays_grey():
    red, green = (np.full((2, 2, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 200, 0)))
    assert np.abs(adjusted("hue", red, 1 / 3).astype(int) - green).max() <= 5
    assert np.abs(adjusted("hue", green, -1 / 3).astype(int) - red).max() <= 5
    grey = np.repeat(drawn(5, 6)[..., None], 3, axis=2)
    for kind, value in itertools.product(("saturation", "hue"), (-0.4, 0.3)):
        value += kind == "saturation"
        np.testing.assert_array_equal(adjusted(kind, grey, value), grey)
        np.testing.assert_array_equal(adjusted(kind, grey[..., 0], value), grey[..., 0])


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_adjustments_are_torchvision_s(shape):
    functional = pytest.importorskip("torchvision.transforms.functional")
    array = drawn(*shape)
    for kind, value in itertools.product(ADJUSTMENTS, (-0.5, -0.21, 0.0, 0.1, 0.5, 1.0, 1.9)):
        if (kind == "hue" and value > 0.5) or (kind != "hue" and value < 0):
            continue
        wanted = getattr(functional, f"adjust_{kind}")(Image.fromarray(array), value)
        np.testing.assert_array_equal(adjusted(kind, array, value), np.asarray(wanted), kind)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_a_jitter_is_torchvision_s_with_the_same_numbers(order):
    functional = pytest.importorskip("torchvision.transforms.functional")
    config, shares = colours.JitterConfig(**MGCA), np.array([0.1, 0.9, 0.3, 0.8])
    image = Image.fromarray(drawn(20, 30, 3))
    values = dict(zip(ADJUSTMENTS, [0.68, 1.32, 0.84, 0.06], strict=True))
    wanted = image
    for number in order:
        name = ADJUSTMENTS[number]
        wanted = getattr(functional, f"adjust_{name}")(wanted, values[name])
    found = colours._jittered(image, config, order=np.array(order), shares=shares)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def test_recorded_levels():
    """Levels that torchvision 0.29 computes from these on PIL images."""
    array = np.array([[[10, 200, 90], [250, 30, 30]], [[128, 128, 128], [0, 255, 60]]], np.uint8)
    for kind, value in (("brightness", 1.3), ("contrast", 0.6), ("saturation", 1.4), ("hue", 0.1)):
        assert adjusted(kind, array, value).reshape(-1).tolist() == RECORDED[kind], kind


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
@pytest.mark.parametrize(("kernel", "sigma"), [(1, 1.0), (5, 0.7), (23, 2.0)])
def test_a_blur_with_a_kernel_is_torchvision_s(shape, kernel, sigma):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    array = drawn(*shape)
    found = colours.blurred(Image.fromarray(array), sigma=sigma, kernel=kernel)
    planes = torch.from_numpy(array.reshape(20, 30, -1)).permute(2, 0, 1)
    wanted = functional.gaussian_blur(planes, [kernel, kernel], [sigma, sigma])
    difference = np.asarray(found, int).reshape(20, 30, -1) - wanted.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1  # sums that end in .5 are rounded either way
    assert (difference != 0).mean() < 0.01


def test_a_blur_with_a_kernel_is_the_sum_of_its_weights():
    array, sigma = drawn(11, 13), 1.3
    weights = np.exp(-((np.arange(-2, 3) / sigma) ** 2) / 2)
    weights /= weights.sum()
    padded = np.pad(array.astype(float), 2, mode="reflect")
    wanted = sum(
        weights[i] * weights[j] * padded[i : i + 11, j : j + 13] for i in range(5) for j in range(5)
    )
    found = np.asarray(colours.blurred(Image.fromarray(array), sigma=sigma, kernel=5))
    assert np.abs(found - wanted).max() <= 0.51 and found.dtype == np.uint8


def test_a_blur_without_a_kernel_is_close_to_one_with_a_wide_kernel():
    image = Image.fromarray(smooth(60, 60))
    for sigma in (0.5, 1.0, 2.0):
        both = [np.asarray(colours.blurred(image, sigma=sigma, kernel=k), int) for k in (None, 25)]
        inner = np.abs(both[0] - both[1])[13:-13, 13:-13]
        assert inner.max() <= 3, sigma
    sharp = np.asarray(colours.blurred(image, sigma=1e-3, kernel=None))
    np.testing.assert_array_equal(sharp, np.asarray(image))


def test_what_is_off_changes_nothing_and_disturbs_nothing_else():
    array = drawn(12, 12, 3)
    np.testing.assert_array_equal(changed(array), array)
    off = colours.JitterConfig(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, probability=1)
    never = colours.BlurConfig(sigma=(1.0, 2.0), kernel=None, probability=0.0)
    np.testing.assert_array_equal(changed(array, jitter=off, grey=0.0, blur=never), array)
    jitter = colours.JitterConfig(**MGCA)
    for seed in range(20):
        alone = changed(array, seed=seed, jitter=jitter)
        np.testing.assert_array_equal(alone, changed(array, seed=seed, jitter=jitter, grey=0.0))
        np.testing.assert_array_equal(alone, changed(array, seed=seed, jitter=jitter, blur=never))


def test_each_change_is_made_as_often_as_asked():
    array, count = drawn(8, 8, 3), 600
    jitter = colours.JitterConfig(**MGCA)
    blur = colours.BlurConfig(sigma=(0.5, 2.0), kernel=3, probability=0.5)
    for options, share in (({"jitter": jitter}, 0.8), ({"grey": 0.2}, 0.2), ({"blur": blur}, 0.5)):
        found = [changed(array, seed=seed, **options) for seed in range(count)]
        seen = np.mean([(one != array).any() for one in found])
        assert abs(seen - share) < 0.06, options
    # All three are drawn apart: 1 - 0.2 x 0.8 x 0.5.
    found = [changed(array, seed=s, jitter=jitter, grey=0.2, blur=blur) for s in range(count)]
    assert abs(np.mean([(one != array).any() for one in found]) - 0.92) < 0.04


def test_factors_are_uniform_in_their_ranges_and_orders_differ():
    array = np.full((2, 2), 100, np.uint8)
    jitter = colours.JitterConfig(
        brightness=0.4, contrast=0.0, saturation=0.0, hue=0.0, probability=1.0
    )
    levels = np.array([changed(array, seed=s, jitter=jitter)[0, 0] for s in range(1500)])
    assert 60 <= levels.min() < 63 and 137 < levels.max() <= 140
    assert np.abs(np.quantile(levels, [0.25, 0.5, 0.75]) - [80, 100, 120]).max() < 4
    wide = colours.JitterConfig(
        brightness=2.0, contrast=0.0, saturation=0.0, hue=0.0, probability=1.0
    )
    levels = np.array([changed(array, seed=s, jitter=wide)[0, 0] for s in range(300)])
    assert levels.min() < 10 and levels.max() == 255  # never below black: max(0, 1 - 2)
    blur = colours.BlurConfig(sigma=(0.1, 2.0), kernel=None, probability=1.0)
    sharpness = {changed(smooth(30, 30), seed=s, blur=blur).std().round(2) for s in range(20)}
    assert len(sharpness) > 10
    both = colours.JitterConfig(**{**MGCA, "probability": 1.0})
    orders = {changed(drawn(6, 6), seed=s, jitter=both).tobytes() for s in range(20)}
    assert len(orders) == 20


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (colours.JitterConfig, {"brightness": -0.1}, "brightness"),
        (colours.JitterConfig, {"contrast": float("inf")}, "contrast"),
        (colours.JitterConfig, {"saturation": -1.0}, "saturation"),
        (colours.JitterConfig, {"hue": 0.6}, "hue"),
        (colours.JitterConfig, {"probability": 1.1}, "probability"),
        (colours.BlurConfig, {"sigma": (0.0, 1.0)}, "sigma"),
        (colours.BlurConfig, {"sigma": (2.0, 1.0)}, "sigma"),
        (colours.BlurConfig, {"kernel": 4}, "kernel"),
        (colours.BlurConfig, {"kernel": 0}, "kernel"),
        (colours.BlurConfig, {"probability": -0.1}, "probability"),
    ],
)
def test_wrong_settings_are_refused_by_name(kind, values, field):
    good = MGCA if kind is colours.JitterConfig else dict(sigma=(0.1, 2.0), kernel=5, probability=1)
    with pytest.raises(ConfigError, match=f"^{field}: "):
        kind(**(good | values))
