import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses.segmentation import mixed
from prior_jax.nn.decoder_block import DoublingConv
from prior_jax.nn.unet import LinearDecoder, UNet, UNetDecoderConfig
from tests.nn import small

FORMS = ("nearest", "transposed")


def create(form="nearest", dtype=jnp.float32, channels=(6, 5, 4), classes=2, **resnet):
    sizes = {"depths": (1, 1), "width": 4, **resnet}
    config = UNetDecoderConfig(channels=channels, form=form)
    resnet = small.resnet_config(**sizes)
    return UNet(config, resnet=resnet, classes=classes, dtype=dtype, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module", params=FORMS)
def passed(request):
    """A small U-Net, its images, and its loss in evaluation with all gradients."""
    model = small.filled(lambda: create(request.param))
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((3, 16, 24, 1)).astype(np.float32))
    target = jnp.asarray((random.random((3, 16, 24, 2)) > 0.5).astype(np.float32))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def run(images, weight):
        def loss(params, images):
            module = nnx.merge(graphdef, params, rest, copy=True)
            logits, _ = module(images, train=False)
            return mixed(logits, target, weight=weight)

        value, grads = jax.value_and_grad(loss, argnums=(0, 1))(params, images)
        return value, (nnx.as_pure(grads[0]), grads[1])

    return jax.jit(run), images


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stem_pool", [True, False])
@pytest.mark.parametrize("depths", [(1, 1), (1, 2, 1), (1, 1, 1, 1)])
def test_masks_have_the_size_of_the_image(form, stem_pool, depths):
    channels = tuple(range(9, 9 - len(depths) - stem_pool, -1))
    sizes = {"depths": depths, "stem_pool": stem_pool, "in_channels": 3}
    model = nnx.eval_shape(lambda: create(form, channels=channels, **sizes))
    height, width = 3 * model.resnet.config.stride, 5 * model.resnet.config.stride
    image = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    run = nnx.eval_shape(lambda model, image: model(image, train=True), model, image)
    assert run[0].shape == (2, height, width, 2)
    assert run[1].shape == (2, height, width, channels[-1])


def test_the_library_unet_has_its_known_number_of_parameters():
    """segmentation_models_pytorch 0.2.0 on torchvision's ResNet-50."""
    sizes = {"depths": (3, 4, 6, 3), "width": 64, "in_channels": 3}
    channels = (256, 128, 64, 32, 16)
    model = nnx.eval_shape(lambda: create(channels=channels, classes=1, **sizes))
    assert small.count(model) == 32_521_105


def test_the_release_s_own_unet_has_its_known_number_of_parameters():
    sizes = {"depths": (3, 4, 6, 3), "width": 64, "in_channels": 3}
    channels = (1024, 512, 256, 128, 64)
    model = nnx.eval_shape(lambda: create("transposed", channels=channels, classes=1, **sizes))
    assert small.count(model) == 147_808_641


def test_every_parameter_of_encoder_and_decoder_has_a_gradient(passed):
    run, images = passed
    _, (grads, image_grad) = run(images, jnp.ones(3, jnp.float32))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.any(grad), jax.tree_util.keystr(path)
    assert np.all(np.any(image_grad, axis=(1, 2, 3)))


def test_padded_images_change_neither_value_nor_gradient(passed):
    run, images = passed
    weight = jnp.array([1, 1, 0], jnp.float32)
    value, (grads, image_grad) = run(images, weight)
    other, (other_grads, _) = run(images.at[2].set(jnp.float32(50)), weight)
    np.testing.assert_allclose(value, other, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, other_grads)
    assert not np.any(image_grad[2])


def test_learned_doubling_places_each_weight_where_a_transposed_convolution_does():
    conv = small.filled(lambda: DoublingConv(3, 4, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 3))
    y = np.asarray(conv(x))
    assert y.shape == (2, 6, 10, 4)
    kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
    np.testing.assert_allclose(y[1, 5, 6], x[1, 2, 3] @ kernel[1, 0] + bias, rtol=1e-5)


def test_bfloat16_is_close_to_float32_and_returned_wide():
    image = jax.random.normal(jax.random.key(0), (2, 16, 16, 1))
    full, half = (
        small.evaluate(small.filled(lambda dtype=dtype: create(dtype=dtype)), image, train=False)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half[0].dtype == jnp.float32
    assert half[1].dtype == jnp.bfloat16
    scale = float(jnp.abs(full[0]).max())
    np.testing.assert_allclose(full[0], half[0], atol=0.05 * scale)


@pytest.mark.parametrize("shape", [(2, 20, 16, 1), (2, 16, 17, 1), (2, 16, 16, 3), (16, 16, 1)])
def test_images_that_do_not_fit_are_refused_by_name(shape):
    model = nnx.eval_shape(create)
    with pytest.raises(
        ValueError, match=r"the decoder takes images \[B, H, W, 1\] .* multiples of 8"
    ):
        nnx.eval_shape(lambda m, x: m(x, train=False), model, jax.ShapeDtypeStruct(shape, "f4"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("channels", (6, 5)), ("channels", (6, 5, 0)), ("form", "bilinear"), ("bridge", 4)],
)
def test_sizes_that_do_not_fit_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        UNetDecoderConfig(**{"channels": (6, 5, 4), "form": "nearest", field: value}).check_fits(
            small.resnet_config(depths=(1, 1), width=4)
        )


def test_the_linear_decoder_is_a_product_at_each_cell_of_an_equally_large_map():
    decoder = small.filled(
        lambda: LinearDecoder(features=3, classes=2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    kernel, bias = decoder.output.kernel[...], decoder.output.bias[...]
    expected = np.asarray(x) @ np.asarray(kernel[0, 0]) + np.asarray(bias)
    np.testing.assert_allclose(decoder(x, size=(4, 5)), expected, rtol=1e-5, atol=1e-6)
    assert decoder(x, size=(12, 20)).shape == (2, 12, 20, 2)
