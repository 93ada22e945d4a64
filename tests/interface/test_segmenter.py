"""Models of masks opened from Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import prior_jax
from prior_jax.data.image import ImageConfig
from prior_jax.errors import ConfigError, DataError, WeightsError
from prior_jax.interface.original import values_on_original
from prior_jax.interface.segmenter import Segmenter
from prior_jax.objectives.segmentation import SegmentationObjective
from tests.interface import image_models
from tests.interface.test_classifier import arrays_of
from tests.interface.test_classifier import saved as saved_encoder
from tests.objectives.test_segmentation import CLASSES, DECODERS, config_of


class Nothing(nnx.Module):
    """A module without parameters."""


def brightness(_, image):
    """Log-odds of a pixel that is bright."""
    return jnp.concatenate([image, -image], axis=-1) * 40


def bright(fit, size=64):
    image = ImageConfig(size=size, channels=1, mean=(0.5,), std=(0.25,), fit=fit)
    return Segmenter(Nothing(), classes=("bright", "dark"), image=image, odds=brightness)


@pytest.mark.parametrize("fit", ["stretch", "pad", "pad_evenly"])
def test_masks_lie_on_the_pixels_of_images_of_any_size(fit, tmp_path):
    images, boxes = image_models.radiographs()
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    segmenter = bright(fit)
    from_files, from_arrays = segmenter.predict(paths), segmenter.predict(images)
    for image, box, mask, other in zip(images, boxes, from_files, from_arrays, strict=True):
        np.testing.assert_array_equal(mask, other)
        assert mask.shape == (*image.shape, 2) and mask.dtype == bool
        truth = np.zeros(image.shape, bool)
        truth[box[1] : box[3], box[0] : box[2]] = True
        both = (mask[..., 0] & truth).sum()
        assert 2 * both / (mask[..., 0].sum() + truth.sum()) > 0.93
        assert (mask[..., 1] != mask[..., 0]).mean() > 0.95


def test_a_large_jpeg_that_is_decoded_smaller_has_its_own_pixels(tmp_path):
    image = np.full((1200, 800), 20, np.uint8)
    image[300:600, 200:700] = 240
    Image.fromarray(image).save(tmp_path / "large.jpg", quality=95)
    (mask,) = bright("pad").predict(tmp_path / "large.jpg")
    assert mask.shape == (1200, 800, 2)
    assert (mask[..., 0] != (image > 128)).mean() < 0.02


@pytest.mark.parametrize("loss", ["mixed", "cross_entropy"])
def test_a_trained_model_gives_its_own_probabilities(loss, tmp_path):
    config = config_of(loss=loss)
    folder = image_models.saved(tmp_path / "w", "segmentation", config, fit="pad")
    found = prior_jax.load_segmenter(folder)
    assert found.classes == CLASSES and found.image.fit == "pad"
    images, _ = image_models.radiographs()
    processed = found.process_images(images)
    odds = SegmentationObjective(config).segment(found.module, jnp.asarray(processed.pixels))
    chances = found.probabilities(processed)
    for image, chance, one, place in zip(images, chances, odds, processed.places, strict=True):
        wanted = values_on_original(np.asarray(jax.nn.sigmoid(one)), place)
        assert chance.shape == (*image.shape, len(CLASSES))
        np.testing.assert_allclose(chance, wanted, rtol=1e-3, atol=1e-5)
    masks = found.predict(images, threshold=0.4)
    assert all(
        (mask == (chance > np.float32(0.4))).all()
        for mask, chance in zip(masks, chances, strict=True)
    )


@pytest.mark.parametrize("frozen", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_new_decoder_stands_on_the_encoder_of_the_weights(frozen, tmp_path):
    encoder = saved_encoder(tmp_path / "w", "regions")
    found = prior_jax.load_segmenter(tmp_path / "w", 3, freeze_encoder=frozen, seed=1)
    before = arrays_of(found.module)
    for name, array in arrays_of(encoder).items():
        if name.startswith("resnet/"):
            np.testing.assert_array_equal(before[f"image_encoder/{name}"], array, err_msg=name)
    images, _ = image_models.radiographs()
    assert [one.shape for one in found.probabilities(images)] == [(90, 60, 3), (64, 128, 3)]
    pixels = jnp.asarray(found.process_images(images).pixels)

    @nnx.jit
    @nnx.grad
    def gradients(module):
        return module(pixels, train=True)[0].sum()

    given = gradients(found.module)
    moved = [np.abs(np.asarray(x)).max() > 0 for x in jax.tree.leaves(given["image_encoder"])]
    assert any(moved) != frozen
    assert any(np.abs(np.asarray(x)).max() > 0 for x in jax.tree.leaves(given["decoder"]))
    after = arrays_of(found.module)
    changed = {name.split("/")[0] for name in after if (after[name] != before[name]).any()}
    assert changed == ({"decoder"} if frozen else {"decoder", "image_encoder"})


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_stands_on_any_encoder(decoder, tmp_path):
    config = image_models.classification_config()
    folder = image_models.saved(tmp_path / "w", "classification", config)
    found = prior_jax.load_segmenter(folder, 1, decoder)
    shapes = nnx.eval_shape(
        lambda m, x: m(x, train=False)[0], found.module, jnp.ones((1, 32, 32, 1))
    )
    assert shapes.shape == (1, 32, 32, 1)


def test_decoders_are_of_their_seed(tmp_path):
    config = image_models.classification_config()
    folder = image_models.saved(tmp_path / "w", "classification", config)
    one, same, other = (
        arrays_of(prior_jax.load_segmenter(folder, 1, "linear", seed=seed).module)
        for seed in (0, 0, 1)
    )
    assert all((one[name] == same[name]).all() for name in one)
    changed = {name for name in one if (one[name] != other[name]).any()}
    assert changed == {"decoder/output/kernel", "decoder/output/bias"}


def test_what_does_not_fit_is_refused(tmp_path):
    folder = image_models.saved(tmp_path / "w", "segmentation", config_of())
    plain = tmp_path / "plain"
    saved_encoder(plain, "mean")
    with pytest.raises(WeightsError, match=r"no trained decoder.*num_classes.*'segmentation'"):
        prior_jax.load_segmenter(plain)
    with pytest.raises(WeightsError, match=r"with prior_jax\.load_segmenter\."):
        prior_jax.load_classifier(folder)
    with pytest.raises(ConfigError, match=r"decoder: .*'fpn'.*unet_transposed"):
        prior_jax.load_segmenter(plain, 1, "fpn")
    with pytest.raises(ConfigError, match="num_classes"):
        prior_jax.load_segmenter(plain, 0)
    with pytest.raises(WeightsError, match="no step"):
        prior_jax.load_segmenter(folder, step=3)
    with pytest.raises(DataError, match="not the folder of a model"):
        prior_jax.load_segmenter(tmp_path)
    with pytest.raises(ConfigError, match=r"prior_jax\.load_segmenter"):
        prior_jax.load(folder)
    for threshold in (50, "x", None, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            bright("pad").predict(image_models.radiographs()[0], threshold=threshold)


def test_damaged_weights_do_not_pass_for_ones_that_find_nothing():
    image = ImageConfig(size=8, channels=1, mean=(0.5,), std=(0.25,))
    broken = Segmenter(Nothing(), classes=("a",), image=image, odds=lambda _, x: x * jnp.nan)
    with pytest.raises(DataError, match="NaN"):
        broken.predict(np.zeros((5, 5), np.uint8))


def test_fine_tuned_models_of_other_kinds_are_not_offered(tmp_path):
    for kind in ("segmentation", "detection"):
        model = tmp_path / "finetune" / kind / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text(f'{{"objective": "{kind}"}}')
    with pytest.raises(DataError, match=r"finetune/segmentation/model\.") as caught:
        prior_jax.load_segmenter(tmp_path)
    assert "finetune/detection" not in str(caught.value)
