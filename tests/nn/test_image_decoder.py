import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn.dropout import dropout
from prior_jax.nn.image_decoder import ImageDecoder, ImageDecoderConfig
from prior_jax.nn.layers import resize_align_corners, upsample_nearest_double
from tests.nn import small

KEY = jax.random.key(3)
SIZES = {"features": 8, "grid": 3, "image_size": 12, "channels": 1, "dropout": 0.5}


def decoder(dtype=jnp.float32, **changes):
    config = ImageDecoderConfig(**{**SIZES, **changes})
    return small.filled(lambda: ImageDecoder(config, dtype=dtype, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def maps():
    keys = jax.random.split(jax.random.key(1))
    return tuple(jax.random.normal(key, (2, 3, 3, 8)) for key in keys)


@pytest.mark.parametrize(("image_size", "blocks"), [(6, 1), (12, 2), (48, 4)])
def test_the_map_doubles_until_the_image_is_reached(maps, image_size, blocks):
    model = decoder(image_size=image_size, channels=3)
    assert model.config.blocks == blocks
    assert model.output.kernel.shape == (3, 3, 16 >> blocks, 3)
    out = small.evaluate(model, *maps, train=False)
    assert out.shape == (2, image_size, image_size, 3)


def test_the_release_has_five_blocks():
    config = ImageDecoderConfig(**{**SIZES, "features": 768, "grid": 7, "image_size": 224})
    assert config.blocks == 5


def test_masking_drops_whole_channels_of_the_image_and_none_of_the_report(maps):
    model = decoder()

    def loss(model, image_map, text_map):
        return jnp.square(model(image_map, text_map, train=True, key=KEY)).sum()

    _, _, (image_grad, text_grad) = small.value_and_grads(model, loss, *maps)
    reached = np.abs(image_grad) > 0
    per_channel = reached.mean(axis=(1, 2))
    assert set(np.unique(per_channel)) == {0.0, 1.0}
    assert 0 < per_channel.mean() < 1
    assert not np.array_equal(per_channel[0], per_channel[1])
    assert (np.abs(text_grad) > 0).all()


def test_evaluation_masks_nothing(maps):
    model = decoder()
    np.testing.assert_array_equal(model(*maps, train=False, key=KEY), model(*maps, train=False))


def test_the_two_maps_are_not_interchangeable(maps):
    model = decoder()
    there, back = (small.evaluate(model, *x, train=False) for x in (maps, maps[::-1]))
    assert jnp.abs(there - back).max() > 1e-3


def test_bfloat16_is_close_to_float32_and_returned_wide(maps):
    full = small.evaluate(decoder(), *maps, train=False)
    half = small.evaluate(decoder(dtype=jnp.bfloat16), *maps, train=False)
    assert half.dtype == jnp.float32
    scale = float(jnp.abs(full).max())
    np.testing.assert_allclose(full, half, atol=0.05 * scale)


def test_bad_use_is_refused_by_name(maps):
    with pytest.raises(ValueError, match=r"ImageDecoder drops at rate 0\.5"):
        decoder()(*maps, train=True)
    with pytest.raises(ValueError, match=r"takes two maps \[B, 3, 3, 8\]"):
        decoder()(maps[0], maps[1][:, :2], train=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 18), ("image_size", 3), ("image_size", 13), ("features", 0), ("dropout", 1.0)],
)
def test_sizes_that_do_not_fit_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=rf"^{field}: The value is {value}"):
        ImageDecoderConfig(**{**SIZES, field: value})


def test_too_few_channels_to_halve_are_refused():
    with pytest.raises(ConfigError, match=r"^features: The value is 8\. .* at least 16"):
        ImageDecoderConfig(**{**SIZES, "image_size": 96})


def test_dropout_keeps_the_mean_and_drops_its_share():
    x = jnp.ones((400, 500))
    y = dropout(x, rate=0.1, key=KEY)
    np.testing.assert_allclose((y == 0).mean(), 0.1, atol=0.005)
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.005)
    np.testing.assert_allclose(y.max(), 1 / 0.9, rtol=1e-4)
    assert dropout(x, rate=0.1, key=None) is x


def test_nearest_doubling_repeats_pixels():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    y = upsample_nearest_double(x)[0, :, :, 0]
    np.testing.assert_array_equal(y, np.arange(6.0).reshape(2, 3).repeat(2, 0).repeat(2, 1))


def test_resize_keeps_the_corners_and_is_linear_between_them():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 2))
    y = resize_align_corners(x, size=(7, 9))
    np.testing.assert_allclose(y[:, ::6, ::8], x[:, ::3, ::2], atol=1e-6)
    np.testing.assert_allclose(y[:, 1, 0], (x[:, 0, 0] + x[:, 1, 0]) / 2, atol=1e-6)
    ramp = jnp.linspace(0.0, 1.0, 5).reshape(1, 1, 5, 1)
    expected = np.linspace(0, 1, 224)
    np.testing.assert_allclose(
        resize_align_corners(ramp, size=(3, 224))[0, 1, :, 0], expected, atol=1e-5
    )
    np.testing.assert_allclose(resize_align_corners(x, size=(4, 3)), x, atol=1e-6)
    np.testing.assert_allclose(resize_align_corners(x, size=(1, 1))[:, 0, 0], x[:, 0, 0], atol=1e-6)
