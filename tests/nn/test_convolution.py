import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from prior_jax.nn.convolution import (
    _between_zeros,
    _in_four_parts,
    convolve,
    convolve_doubled,
    convolve_pixels,
)
from prior_jax.nn.layers import Conv, torch_uniform, upsample_nearest_double

F32 = jnp.float32


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), F32)


def plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def plain_doubled(x, kernel, skip=None):
    x = upsample_nearest_double(x)
    if skip is not None:
        x = jnp.concatenate([x, skip], axis=-1)
    return plain(x, kernel.astype(x.dtype))


def value_and_grads(function, *inputs, **sharded):
    """The value, and gradients of a sum over the value with an unequal weight for each place."""

    def loss(*inputs):
        y = function(*inputs)
        weight = jnp.sin(jnp.arange(y.size, dtype=F32)).reshape(y.shape)
        return jnp.sum(y.astype(F32) * weight), y

    run = jax.value_and_grad(loss, argnums=tuple(range(len(inputs))), has_aux=True)
    (_, y), grads = jax.jit(run, **sharded)(*inputs)
    return y, *grads


def check_equal(found, expected, *, rtol):
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 6)])
def test_four_small_convolutions_equal_the_one_on_the_doubled_map(size, skip):
    height, width = size
    inputs = [normal(0, 2, *size, 3), normal(1, 3, 3, 3 + skip, 4)]
    if skip:
        inputs.append(normal(2, 2, 2 * height, 2 * width, skip))

    def function(x, kernel, skip=None):
        return convolve_doubled(x, kernel, skip=skip)

    found, expected = (value_and_grads(f, *inputs) for f in (function, plain_doubled))
    assert found[0].shape == (2, 2 * height, 2 * width, 4)
    check_equal(found, expected, rtol=1e-5)


@pytest.mark.parametrize("form", [_in_four_parts, _between_zeros])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 6)])
def test_both_forms_equal_the_convolution_of_the_doubled_map(size, form):
    """A CPU takes the first form, every other platform the second."""
    inputs = normal(0, 2, *size, 3), normal(1, 3, 3, 3, 4)
    check_equal(value_and_grads(form, *inputs), value_and_grads(plain_doubled, *inputs), rtol=1e-5)


def test_only_a_cpu_computes_four_parts():
    x, kernel = normal(0, 2, 3, 5, 3), normal(1, 3, 3, 3, 4)
    for platform, count in (("cpu", 4), ("tpu", 1), ("cuda", 1)):
        lowered = jax.jit(convolve_doubled).trace(x, kernel).lower(lowering_platforms=(platform,))
        assert lowered.as_text().count("stablehlo.convolution") == count


def test_in_bfloat16_the_weights_are_summed_before_they_are_rounded():
    x, skip = (normal(i, 2, side, side, 3).astype(jnp.bfloat16) for i, side in ((0, 5), (1, 10)))
    kernel = normal(2, 3, 3, 6, 4)

    def function(x, kernel, skip):
        return convolve_doubled(x, kernel, skip=skip)

    found = value_and_grads(function, x, kernel, skip)
    assert [a.dtype for a in found] == [jnp.bfloat16, jnp.bfloat16, F32, jnp.bfloat16]
    wide = value_and_grads(plain_doubled, x.astype(F32), kernel, skip.astype(F32))
    check_equal(found, wide, rtol=2e-2)
    # 1 + 2**-9 rounds to 1 in bfloat16: the two middle weights would vanish if rounded first.
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1 + 2**-9).at[1, 2].set(-1)
    y = convolve_doubled(jnp.ones((1, 1, 1, 1), jnp.bfloat16), kernel)
    assert float(y[0, 0, 0, 0]) == 2**-9


@pytest.mark.multidevice
def test_sharding_the_batch_changes_neither_value_nor_gradient():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    inputs = normal(0, 8, 3, 5, 3), normal(1, 3, 3, 5, 4), normal(2, 8, 6, 10, 2)

    def function(x, kernel, skip):
        return convolve_doubled(x, kernel, skip=skip)

    placed = [jax.device_put(a, s) for a, s in zip(inputs, (rows, whole, rows), strict=True)]
    found = value_and_grads(function, *placed)
    assert found[0].sharding.is_equivalent_to(rows, 4)
    check_equal(found, value_and_grads(plain_doubled, *inputs), rtol=1e-5)


def test_a_layer_adds_its_bias_once_to_what_it_doubles():
    conv = Conv(
        3, 4, kernel_size=3, use_bias=True, kernel_init=torch_uniform, dtype=F32, rngs=nnx.Rngs(0)
    )
    x = normal(0, 2, 3, 5, 3)
    np.testing.assert_allclose(conv.doubled(x), conv(upsample_nearest_double(x)), atol=1e-5)


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (5, 1), (3, 2)])
def test_other_kernels_refuse_a_map_to_be_doubled(kernel_size, stride):
    conv = Conv(
        3, 4, kernel_size=kernel_size, stride=stride, use_bias=False, kernel_init=torch_uniform,
        dtype=F32, rngs=nnx.Rngs(0),
    )  # fmt: skip
    size = f"{kernel_size}x{kernel_size} of stride {stride}"
    with pytest.raises(ValueError, match=f"this one is {size}"):
        conv.doubled(jnp.zeros((1, 2, 2, 3)))


@pytest.mark.parametrize(("features", "out"), [(4, 12), (12, 4), (5, 5)])
def test_a_kernel_of_one_pixel_is_a_product_with_its_gradients(features, out):
    x, kernel = normal(0, 2, 3, 5, features), normal(1, features, out)
    found = value_and_grads(convolve_pixels, x, kernel)
    wanted = value_and_grads(lambda x, k: jnp.einsum("bhwi,io->bhwo", x, k), x, kernel)
    check_equal(found, wanted, rtol=1e-6)
    narrow = [one.astype(jnp.bfloat16) for one in (x, kernel)]
    dtypes = [one.dtype for one in value_and_grads(convolve_pixels, *narrow)]
    assert dtypes == [jnp.bfloat16] * 3


# Rows and columns of padding, and a side of the kernel: a 3x3 kernel and one of a doubled map.
KERNELS = [(((1, 1), (1, 1)), 3), (((1, 0), (0, 1)), 2)]


@pytest.mark.parametrize(("padding", "side"), KERNELS)
@pytest.mark.parametrize("size", [(112, 114), (113, 112)])
def test_the_gradient_of_a_large_maps_kernel_is_that_of_the_plain_convolution(size, padding, side):
    # 113 is prime, so that a block is one row.
    inputs = normal(0, 2, *size, 3), normal(1, side, side, 3, 5)

    def exact(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found = value_and_grads(lambda *given: convolve(*given, padding=padding), *inputs)
    check_equal(found, value_and_grads(exact, *inputs), rtol=3e-6)


def test_many_channels_count_as_large_and_bfloat16_is_summed_in_float32():
    x, kernel = normal(0, 3, 28, 28, 192), normal(1, 3, 3, 192, 2)
    function = functools.partial(convolve, padding=((1, 1), (1, 1)))
    text = jax.jit(jax.grad(lambda k: jnp.sum(function(x, k)))).lower(kernel).as_text()
    assert "stablehlo.while" in text
    expected = value_and_grads(plain, x, kernel)
    check_equal(value_and_grads(function, x, kernel), expected, rtol=3e-6)
    halved = [array.astype(jnp.bfloat16) for array in (x, kernel)]
    found = value_and_grads(function, *halved)
    assert [array.dtype for array in found] == [jnp.bfloat16] * 3
    check_equal(found, value_and_grads(plain, *(a.astype(F32) for a in halved)), rtol=1e-2)


@pytest.mark.parametrize(
    ("maps", "side", "padding"),
    [((0, 112, 112, 2), 3, 1), ((1, 112, 112, 1), 113, 0), ((1, 112, 112, 0), 3, 1)],
)
def test_the_gradient_of_a_large_maps_kernel_that_sees_nothing_is_zero(maps, side, padding):
    kernel = jnp.ones((side, side, maps[3], 3))
    function = functools.partial(convolve, padding=((padding, padding), (padding, padding)))
    y, of_x, of_kernel = value_and_grads(function, jnp.ones(maps), kernel)
    assert (of_x.shape, of_kernel.shape) == (maps, kernel.shape) and y.size * maps[3] == 0
    assert not of_x.any() and not of_kernel.any()


def test_the_gradient_of_a_large_maps_kernel_is_summed_in_float64_where_the_maps_are():
    with jax.enable_x64(True):
        x, kernel = (
            jnp.asarray(normal(*a), jnp.float64) for a in ((0, 2, 112, 112, 2), (1, 3, 3, 2, 3))
        )
        found, expected = (
            jax.grad(lambda k, f=f: jnp.sum(f(x, k) ** 2))(kernel)
            for f in (functools.partial(convolve, padding=((1, 1), (1, 1))), plain)
        )
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_maps_of_a_resnet_keep_the_plain_gradient():
    x, kernel = normal(0, 1, 56, 56, 64), normal(1, 3, 3, 64, 64)

    def loss(kernel):
        return jnp.sum(convolve(x, kernel, padding=((1, 1), (1, 1))))

    assert "stablehlo.while" not in jax.jit(jax.grad(loss)).lower(kernel).as_text()


@pytest.mark.multidevice
def test_sharding_the_batch_leaves_a_large_maps_gradient_as_it_is():
    mesh = jax.make_mesh((8,), ("data",))
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    inputs = normal(0, 8, 112, 112, 2), normal(1, 3, 3, 2, 3)
    function = functools.partial(convolve, padding=((1, 1), (1, 1)))
    found = value_and_grads(function, *inputs, in_shardings=(split, whole))
    check_equal(found, value_and_grads(plain, *inputs), rtol=3e-6)
