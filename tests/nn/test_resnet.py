import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from prior_jax.errors import ConfigError
from prior_jax.nn.layers import BatchNorm, Conv, torch_uniform
from prior_jax.nn.patches import (
    patches_to_map,
    scrambled_map,
    scrambled_patches,
    spatial_patches,
)
from prior_jax.nn.resnet import ImageEncoderConfig, ResNet
from tests.compiling import AS_USERS_DO
from tests.nn import small


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (8, 32, 32, 1))


def resnet(dtype=jnp.float32, **changes):
    return ResNet(small.resnet_config(**changes), dtype=dtype, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("in_channels", "count"), [(3, 23_508_032), (1, 23_508_032 - 2 * 64 * 49)])
def test_resnet50_has_its_known_number_of_parameters(in_channels, count):
    sizes = {"depths": (3, 4, 6, 3), "width": 64, "in_channels": in_channels}
    assert small.count(nnx.eval_shape(lambda: resnet(**sizes))) == count


def test_resnet18_has_its_known_number_of_parameters():
    sizes = {"depths": (2, 2, 2, 2), "width": 64, "in_channels": 3, "block": "basic"}
    assert small.count(nnx.eval_shape(lambda: resnet(**sizes))) == 11_176_512


@pytest.mark.parametrize("block", ["bottleneck", "basic"])
@pytest.mark.parametrize("stem_pool", [True, False])
@pytest.mark.parametrize("depths", [(1, 1), (1, 2, 1), (1, 1, 1, 1)])
def test_shapes_follow_the_configuration(depths, stem_pool, block):
    sizes = {"depths": depths, "stem_pool": stem_pool, "block": block, "in_channels": 3}
    config = small.resnet_config(**sizes)
    model = nnx.eval_shape(lambda: resnet(**sizes))
    image = jax.ShapeDtypeStruct((2, 72, 72, 3), jnp.float32)
    last, maps = nnx.eval_shape(lambda model, image: model(image, train=True), model, image)
    side = config.grid(72)
    assert last.shape == (2, side, side, config.features)
    assert len(maps) == 1 + len(depths)
    assert maps[0].shape == (2, 36, 36, 4)
    assert maps[-1].shape == last.shape
    expected = config.stage_features
    assert tuple(m.shape[-1] for m in maps[1:]) == expected


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_one_pixel_kernel_equals_the_convolution(size, stride):
    conv = Conv(
        3, 5, kernel_size=1, stride=stride, use_bias=True, kernel_init=torch_uniform,
        dtype=jnp.float32, rngs=nnx.Rngs(0),
    )  # fmt: skip
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    expected = jax.lax.conv_general_dilated(
        x, conv.kernel[...], (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ) + conv.bias[...].reshape(1, 1, 1, -1)
    np.testing.assert_allclose(conv(x), expected, atol=1e-6)


def test_batch_norm_normalises_by_the_biased_and_gathers_the_unbiased_variance():
    x = 5 + 3 * jax.random.normal(jax.random.key(0), (2, 2, 3, 4))
    norm = BatchNorm(4, dtype=jnp.float32)
    flat = np.asarray(x, np.float64).reshape(12, 4)
    for step in range(2):
        y = norm(x, train=True)
        expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
        np.testing.assert_allclose(y.reshape(12, 4), expected, atol=1e-5)
        kept = 0.9 ** (step + 1)
        np.testing.assert_allclose(norm.mean[...], (1 - kept) * flat.mean(0), rtol=1e-5)
        variance = kept + (1 - kept) * flat.var(0, ddof=1)
        np.testing.assert_allclose(norm.var[...], variance, rtol=1e-5)
    before = np.asarray(norm.mean[...])
    y = norm(x, train=False)
    expected = (flat - before) / np.sqrt(np.asarray(norm.var[...]) + 1e-5)
    np.testing.assert_allclose(y.reshape(12, 4), expected, rtol=1e-4)
    np.testing.assert_array_equal(norm.mean[...], before)


@pytest.mark.parametrize(("mean", "std"), [(0, 1), (30, 1), (10, 1e-3), (1000, 1e-2)])
def test_batch_norm_keeps_its_digits_when_the_mean_is_large_beside_the_deviation(mean, std):
    """Against float64, with running statistics near those of the batch, as in training."""
    random = np.random.default_rng(0)
    x = jnp.asarray(mean + std * random.standard_normal((4, 14, 14, 3)), jnp.float32)
    weight = jnp.asarray(random.standard_normal(x.shape), jnp.float32)
    norm = BatchNorm(3, dtype=jnp.float32)
    norm.mean[...] = jnp.full(3, mean + std / 10, jnp.float32)
    running = np.asarray(norm.mean[...], np.float64)

    def loss(norm, x):
        y = norm(x, train=True)
        return jnp.sum(y * weight), (y, norm.mean[...], norm.var[...])

    (_, found), grads, (x_grad,) = small.value_and_grads(norm, loss, x, has_aux=True)
    wide, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    axes = (0, 1, 2)
    batch_mean, var = wide.mean(axes), wide.var(axes)
    unit = (wide - batch_mean) / np.sqrt(var + 1e-5)
    centred = weight - weight.mean(axes) - unit * (weight * unit).mean(axes)
    expected = {
        "value": (found[0], unit, 1e-5),
        "mean": (found[1], 0.9 * running + 0.1 * batch_mean, 1e-6),
        "var": (found[2], 0.9 + 0.1 * wide.var(axes, ddof=1), 1e-6),
        "gradient of x": (x_grad, centred / np.sqrt(var + 1e-5), 1e-5),
        "gradient of scale": (grads["scale"], (weight * unit).sum(axes), 1e-4),
        "gradient of bias": (grads["bias"], weight.sum(axes), 1e-4),
    }
    for name, (got, exact, rtol) in expected.items():
        scale = np.abs(exact).max()
        np.testing.assert_allclose(got, exact, rtol=0, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("distance", [1, 10, 100, 1000])
def test_the_variance_of_a_batch_far_from_the_running_mean_is_as_exact_as_documented(distance):
    x = np.random.default_rng(0).normal(0.1 * distance, 0.1, (8, 28, 28, 64)).astype(np.float32)
    _, found = BatchNorm(64, dtype=jnp.float32)._gather(jnp.asarray(x))
    relative = np.asarray(found, np.float64) / x.astype(np.float64).var((0, 1, 2)) - 1
    assert np.abs(relative).max() < 5 * np.finfo(np.float32).eps * distance**2


def test_batch_norm_of_a_single_value_is_refused():
    with pytest.raises(ValueError, match="needs 2 values per channel"):
        BatchNorm(4, dtype=jnp.float32)(jnp.zeros((1, 1, 1, 4)), train=True)


def train_pass(model, image, **compiling):
    """Value, gradients and statistics of one training pass."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest, image):
        module = nnx.merge(graphdef, params, rest, copy=True)
        feature_map, pooled = module(image, train=True)
        value = jnp.mean(jnp.square(pooled)) + jnp.mean(jnp.sin(feature_map))
        return value, nnx.as_pure(nnx.state(module, nnx.BatchStat))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), **compiling)
    return run(nnx.as_pure(params), nnx.as_pure(rest), image)


@pytest.mark.multidevice
def test_sharding_the_batch_changes_neither_value_nor_statistics(images):
    model = small.image_encoder()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    # Rows differ in scale, so that statistics of one shard are not those of the batch.
    images = images * jnp.arange(1.0, 9.0).reshape(8, 1, 1, 1)
    sharded = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    alone, together = train_pass(model, images), train_pass(model, sharded)

    def check(a, b):
        # Gradients of key biases are zero but for rounding, which differs between versions of XLA.
        scale = max(0.03, float(jnp.abs(a).max()))
        np.testing.assert_allclose(a, b, atol=1e-4 * scale, rtol=0)

    jax.tree.map(check, alone, together)


def test_recomputing_blocks_changes_neither_value_nor_gradient_nor_statistics(images):
    """Statistics gather this batch once, though each block runs twice."""
    models = [
        small.image_encoder(pool="mean", remat=remat, depths=(1, 3))
        for remat in ("none", "elementwise", "block")
    ]

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1e-2, float(jnp.abs(a).max())))

    first, *others = (train_pass(model, images, compiler_options=AS_USERS_DO) for model in models)
    for other in others:
        jax.tree.map(check, first, other)


def test_elementwise_runs_no_convolution_twice(images):
    def convolutions(remat):
        model = small.image_encoder(pool="mean", remat=remat, block="basic", depths=(1, 1))
        return str(jax.make_jaxpr(lambda x: train_pass(model, x))(images)).count(
            "conv_general_dilated["
        )

    assert convolutions("elementwise") == convolutions("none") < convolutions("block")


def test_recomputed_blocks_of_one_shape_are_one_loop(images):
    def convolutions(**options):
        model = small.image_encoder(pool="mean", **options)
        text = str(jax.make_jaxpr(lambda x: train_pass(model, x))(images))
        return text.count("conv_general_dilated[")

    shallow = convolutions(remat="block", depths=(1, 2))
    assert convolutions(remat="none", depths=(1, 2)) < shallow
    assert convolutions(remat="none", depths=(1, 5)) > shallow
    assert convolutions(remat="block", depths=(1, 5)) == shallow


@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_bfloat16_is_close_to_float32(images, pool):
    full, half = (
        small.evaluate(small.image_encoder(dtype=dtype, pool=pool), images, train=True)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    for a, b in zip(full, half, strict=True):
        assert b.dtype == jnp.bfloat16
        scale = float(jnp.abs(a).max())
        np.testing.assert_allclose(a, b.astype(jnp.float32), atol=0.05 * scale)


def test_mean_pool_is_the_mean_of_the_map(images):
    feature_map, pooled = small.evaluate(small.image_encoder(pool="mean"), images, train=False)
    np.testing.assert_allclose(pooled, feature_map.mean(axis=(1, 2)), atol=1e-6)


def test_evaluation_treats_each_image_alone(images):
    model = small.image_encoder()
    _, pooled = small.evaluate(model, images, train=False)
    _, alone = small.evaluate(model, images[2:3], train=False)
    np.testing.assert_allclose(pooled[2:3], alone, atol=1e-5)


def test_patches_are_places_unless_scrambled():
    feature_map = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    patches = spatial_patches(feature_map)
    np.testing.assert_array_equal(patches[:, 4 * 1 + 2], feature_map[:, 1, 2])
    np.testing.assert_array_equal(patches_to_map(patches, grid=(3, 4)), feature_map)
    scrambled = scrambled_patches(feature_map)
    flat = np.asarray(feature_map).transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(scrambled[:, 0], flat[:, :6])
    np.testing.assert_array_equal(scrambled_map(scrambled, grid=(3, 4)), feature_map)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depths", (3,)),
        ("depths", (1, 0)),
        ("width", 0),
        ("in_channels", 2),
        ("block", "wide"),
        ("remat", "layer"),
    ],
)
def test_shapes_that_make_no_network_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        small.resnet_config(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("pool", "max"), ("pool_heads", 5), ("image_size", 0)]
)
def test_pools_that_do_not_fit_are_refused_by_name(field, value):
    sizes = {"pool": "attention", "pool_heads": 4, "image_size": 32, field: value}
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        ImageEncoderConfig(resnet=small.resnet_config(), **sizes)
