"""Classifiers opened from Python."""

import jax
import numpy as np
import pytest
from flax import nnx

import prior_jax
from prior_jax.errors import ConfigError, DataError, WeightsError
from prior_jax.interface.image_encoder import EnlargingEncoder, open_image_encoder
from prior_jax.interop.weights_folder import Weights, save_weights
from prior_jax.nn.layers import resize_align_corners
from prior_jax.nn.region_encoder import RegionEncoder, RegionEncoderConfig
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig, ResNetConfig
from tests.interface.conftest import IMAGE
from tests.nn.small import filled
from tests.objectives import tiny

RESNET = dict(depths=(1, 1), width=4, block="basic", stem_pool=False)
SHAPE = ResNetConfig(**RESNET, in_channels=1, remat="none")
DATA = {"image": dict(size=tiny.SIDE, channels=1, mean=IMAGE.mean, std=IMAGE.std)}


def encoders(pool):
    if pool == "regions":
        config = RegionEncoderConfig(resnet=SHAPE, image_size=tiny.SIDE, upsample=tiny.SIDE + 7)
        section = dict(resnet=RESNET, upsample=tiny.SIDE + 7)
        return section, lambda: RegionEncoder(config, 6, dtype="float32", rngs=nnx.Rngs(0))
    if pool == "enlarged":
        config = ImageEncoderConfig(resnet=SHAPE, pool="mean", pool_heads=2, image_size=tiny.SIDE)
        section = dict(resnet=RESNET, pool="mean", pool_heads=2, upsample=tiny.SIDE + 7)
        return section, lambda: EnlargingEncoder(config, upsample=tiny.SIDE + 7, rngs=nnx.Rngs(0))
    config = ImageEncoderConfig(resnet=SHAPE, pool=pool, pool_heads=2, image_size=tiny.SIDE)
    section = dict(resnet=RESNET, pool=pool, pool_heads=2)
    return section, lambda: ImageEncoder(config, dtype="float32", rngs=nnx.Rngs(0))


def arrays_of(module):
    state = nnx.as_pure(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {"/".join(map(str, path)): np.asarray(x) for path, x in nnx.to_flat_state(state)}


def saved(folder, pool, *, whole=False):
    """A folder of the weights of an encoder, or of a model around it; and the encoder."""
    section, make = encoders(pool)
    encoder = filled(make)
    arrays = arrays_of(encoder)
    if whole:
        arrays = {f"image_encoder/{name}": x for name, x in arrays.items()}
        arrays["text_encoder/word_embedding"] = np.zeros((3, 4), np.float32)
    weights = Weights(
        part="model" if whole else "image",
        objective="clip" if whole else None,
        model={"image": section} if whole else section,
        data=DATA,
        origin={},
        arrays=arrays,
    )
    save_weights(folder, weights)
    return encoder


def test_an_encoder_enlarges_its_images_where_the_weights_say_so(tmp_path):
    encoder = saved(tmp_path / "w", "enlarged")
    image = np.random.default_rng(0).normal(size=(2, tiny.SIDE, tiny.SIDE, 1)).astype(np.float32)
    found = open_image_encoder(tmp_path / "w").module(image, train=False)[1]
    side = tiny.SIDE + 7
    plain = ImageEncoder(encoder.config, dtype="float32", rngs=nnx.Rngs(0))
    nnx.update(plain, nnx.state(encoder))
    wanted = plain(resize_align_corners(image, size=(side, side)), train=False)[1]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(found - plain(image, train=False)[1])).max() > 1e-3


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("pool", ["mean", "attention", "regions", "enlarged"])
def test_a_new_head_sees_the_pooled_vector_of_the_weights(pool, whole, tmp_path, paths):
    encoder = saved(tmp_path / "w", pool, whole=whole)
    found = prior_jax.load_classifier(tmp_path / "w", 3)
    image = found.process_images(paths).pixels
    features = encoder(image, train=False)
    pooled = features.pooled if pool == "regions" else features[1]
    head = found.module.classifier
    wanted = np.asarray(pooled) @ np.asarray(head.kernel[...]) + np.asarray(head.bias[...])
    np.testing.assert_allclose(found.log_odds(paths), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.predict(paths), 1 / (1 + np.exp(-wanted)), rtol=1e-4)
    assert found.classes == ("0", "1", "2")


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_statistics(frozen, tmp_path, paths):
    saved(tmp_path / "w", "mean")
    found = prior_jax.load_classifier(tmp_path / "w", 2, freeze_encoder=frozen)
    image = found.process_images(paths).pixels
    before = arrays_of(found.module)
    gradients = nnx.grad(lambda module: module(image, train=True).sum())(found.module)
    moved = any(np.abs(np.asarray(x)).max() > 0 for x in jax.tree.leaves(gradients["encoder"]))
    assert moved != frozen
    after = arrays_of(found.module)
    assert any((after[name] != before[name]).any() for name in after) != frozen


def test_heads_are_of_their_seed(tmp_path, paths):
    saved(tmp_path / "w", "mean")
    one, same, other = (
        prior_jax.load_classifier(tmp_path / "w", 2, seed=seed).log_odds(paths)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_what_is_missing_is_said(tmp_path):
    saved(tmp_path / "w", "mean")
    with pytest.raises(WeightsError, match="num_classes"):
        prior_jax.load_classifier(tmp_path / "w")
    with pytest.raises(WeightsError, match="no step"):
        prior_jax.load_classifier(tmp_path / "w", 2, step=3)
    with pytest.raises(DataError, match=r"not the folder of a model.*finetune/<result>/model"):
        prior_jax.load_classifier(tmp_path / "nothing", 2)


def test_a_folder_of_results_is_answered_with_the_models_in_it(tmp_path):
    for number in range(7):
        model = tmp_path / "suite" / "nih" / "finetune" / f"linear_{number}" / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"suite/nih/finetune/linear_0/model, .* \(and 2 more\)\."):
        prior_jax.load_classifier(tmp_path)


@pytest.mark.parametrize("number", [0, -1, 2.0, "5", True])
def test_what_is_no_number_of_classes_is_refused(number, tmp_path):
    saved(tmp_path / "w", "mean")
    with pytest.raises(ConfigError, match=r"num_classes.*at least 1, or None"):
        prior_jax.load_classifier(tmp_path / "w", number)
