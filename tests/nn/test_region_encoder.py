import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn.layers import resize_align_corners
from prior_jax.nn.region_encoder import RegionEncoder, RegionEncoderConfig
from tests.compiling import AS_USERS_DO
from tests.nn.small import filled, resnet_config


def config_of(**changes):
    sizes = {"resnet": resnet_config(depths=(1, 1, 1)), "image_size": 32, "upsample": None}
    return RegionEncoderConfig(**{**sizes, **changes})


def encoded(config, image):
    encoder = filled(lambda: RegionEncoder(config, 6, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(encoder)
    run = jax.jit(
        lambda state, x: nnx.merge(graphdef, state, copy=True)(x, train=False),
        compiler_options=AS_USERS_DO,
    )
    return run(state, image)


@pytest.mark.parametrize(
    ("changes", "grid"), [({}, (4, 4)), ({"upsample": 41}, (6, 6)), ({"image_size": 33}, (5, 5))]
)
def test_regions_cover_the_grid_that_the_configuration_tells(changes, grid):
    config = config_of(**changes)
    image = jnp.ones((2, config.image_size, config.image_size, 1), jnp.float32)
    found = encoded(config, image)
    assert config.grid == grid
    assert found.regions.shape == (2, grid[0] * grid[1], 6)
    assert found.region_map.shape == (2, *grid, config.region_features)
    assert found.global_.shape == (2, 6)
    assert found.pooled.shape == (2, config.resnet.features)


def test_upsampling_is_a_resize_before_the_first_layer():
    image = jax.random.normal(jax.random.key(0), (1, 32, 32, 1), jnp.float32)
    large = resize_align_corners(image, size=(41, 41))
    inside = encoded(config_of(upsample=41), image)
    outside = encoded(config_of(image_size=41), large)
    np.testing.assert_allclose(inside.regions, outside.regions, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(inside.global_, outside.global_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("field", "value"), [("image_size", 0), ("upsample", 0)])
def test_sizes_that_no_image_has_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: The value is 0"):
        config_of(**{field: value})
