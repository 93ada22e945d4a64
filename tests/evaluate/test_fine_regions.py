"""Features of regions on a finer grid than the encoder's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.fine_regions import (
    OWN,
    AttentionConfig,
    fine_regions,
    mirror,
    mirror_map,
    step_of,
)

SPACING = 4
KERNEL = np.random.default_rng(0).normal(size=(7, 7, 1, 3)).astype(np.float32)


def convolve(image, *, stride):
    """Convolves with torch's padding, which centres region i on pixel i * stride."""
    found = jax.lax.conv_general_dilated(
        image,
        KERNEL,
        (stride, stride),
        [(3, 3), (3, 3)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return found.reshape(len(image), -1, KERNEL.shape[-1])


def encode(image):
    return np.asarray(convolve(image, stride=SPACING))


def fine(encode, image, config):
    """The finer regions; counts what is encoded."""
    calls = []

    def counted(image):
        calls.append(image)
        return encode(image)

    found = fine_regions(encode(image), image, encode=counted, config=config, spacing=SPACING)
    assert len(calls) == config.shifts**2 - 1
    return found


def grid(features):
    side = int(features.shape[1] ** 0.5)
    return features.reshape(len(features), side, side, -1)


@pytest.mark.parametrize("shifts", (1, 2, 4))
def test_shifts_compute_what_a_smaller_stride_does(shifts):
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 24, 24, 1)), jnp.float32)
    config = AttentionConfig(shifts=shifts, smoothing=0.0)
    found = grid(fine(encode, image, config))
    dense = grid(np.asarray(convolve(image, stride=SPACING // shifts)))
    assert found.shape == dense.shape == (2, 6 * shifts, 6 * shifts, 3)
    # At the borders a shifted image is padded at another place.
    inner = slice(shifts, -shifts)
    np.testing.assert_allclose(found[:, inner, inner], dense[:, inner, inner], atol=1e-4)


def test_own_regions_are_those_of_the_encoder():
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 24, 24, 1)), jnp.float32)
    np.testing.assert_array_equal(fine(encode, image, OWN), encode(image))
    assert not OWN.name
    assert AttentionConfig(shifts=1, smoothing=0.5).name == "smoothing_0_5"


def test_smoothing_averages_neighbours_in_units_of_the_encoders_spacing():
    image = jnp.zeros((1, 64, 64, 1)).at[0, 32, 32].set(1.0)

    def pixels(image):
        return np.asarray(image[:, ::SPACING, ::SPACING]).reshape(len(image), -1, 1)

    spread = {}
    for shifts in (1, 2):
        config = AttentionConfig(shifts=shifts, smoothing=1.0)
        found = grid(fine(pixels, image, config))[0, :, :, 0]
        assert found.sum() == pytest.approx(1, abs=1e-5)
        place = np.arange(len(found)) / shifts
        weight = found.sum(axis=1)
        centre = (weight * place).sum()
        assert centre == pytest.approx(32 / SPACING, abs=1e-3)
        spread[shifts] = np.sqrt((weight * (place - centre) ** 2).sum())
    assert spread[1] == pytest.approx(1, abs=0.01)
    assert spread[2] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("shifts", "spacing"), ((3, 8), (4, 2), (2, 7.0)))
def test_a_spacing_that_is_no_multiple_of_the_shifts_is_refused(shifts, spacing):
    with pytest.raises(ConfigError, match=r"task\.attention\.shifts"):
        step_of(AttentionConfig(shifts=shifts, smoothing=0.0), spacing=spacing)


def test_regions_without_a_square_grid_are_refused():
    def oblong(image):
        return np.zeros((len(image), 6, 1), np.float32)

    config = AttentionConfig(shifts=2, smoothing=0.0)
    with pytest.raises(DataError, match="6 cells"):
        fine(oblong, jnp.zeros((1, 8, 8, 1)), config)


def test_smoothing_over_more_than_the_image_is_refused():
    config = AttentionConfig(shifts=1, smoothing=7.0)
    with pytest.raises(ConfigError, match=r"task\.attention\.smoothing.*6 regions"):
        fine(encode, jnp.zeros((1, 24, 24, 1)), config)


@pytest.mark.parametrize(
    ("shifts", "smoothing"), ((0, 0.0), (2, -1.0), (2, float("nan")), (1, float("inf")))
)
def test_values_that_define_no_grid_are_refused(shifts, smoothing):
    with pytest.raises(ConfigError):
        AttentionConfig(shifts=shifts, smoothing=smoothing)


@pytest.mark.parametrize("size", (24, 27))
@pytest.mark.parametrize("shifts", (1, 2))
def test_regions_of_the_mirror_image_lie_on_those_of_the_image(size, shifts):
    """Seen by an encoder that is mirrored itself, the mirror image has the image's regions."""
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, size, size, 1)), jnp.float32)
    stride = SPACING // shifts
    own = convolve(image, stride=stride)
    side = int(own.shape[1] ** 0.5)
    turned = mirror(image, spacing=stride, cells=side)
    found = jax.lax.conv_general_dilated(
        turned,
        KERNEL[:, ::-1],
        (stride, stride),
        [(3, 3), (3, 3)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    flat = np.moveaxis(np.asarray(found).reshape(2, -1, 3), -1, 1)
    back = grid(np.moveaxis(mirror_map(flat), 1, -1))
    # At the right and left border a convolution sees zeros in one and pixels in the other.
    inner = slice(2, -2)
    np.testing.assert_allclose(back[:, :, inner], grid(own)[:, :, inner], atol=1e-4)
