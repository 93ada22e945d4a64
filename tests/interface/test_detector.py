"""Detectors opened from Python."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import prior_jax
from prior_jax.data.image import ImageConfig
from prior_jax.errors import ConfigError, DataError, WeightsError
from prior_jax.interface.detector import Detector
from prior_jax.nn.yolo_head import YoloConfig
from prior_jax.types import Detections
from tests.interface import image_models
from tests.interface.test_classifier import arrays_of
from tests.interface.test_classifier import saved as saved_encoder

NEW = YoloConfig(anchors="coco", anchor_size=None, width=8)


def around(_, image):
    """The box around the bright pixels, and one that lies on the upper left corner."""
    inside = image[..., 0] > 0
    rows, columns = inside.any(axis=2), inside.any(axis=1)
    size = image.shape[1]

    def ends(found):
        return jnp.argmax(found, axis=1), size - jnp.argmax(found[:, ::-1], axis=1)

    (top, below), (left, right) = ends(rows), ends(columns)
    box = jnp.stack([left, top, right, below], axis=-1).astype(jnp.float32)
    corner = jnp.broadcast_to(jnp.float32([0, 0, 4, 4]), box.shape)
    count = len(image)
    return Detections(
        corners=jnp.stack([box, corner], axis=1),
        classes=jnp.tile(jnp.int32([[1, 0]]), (count, 1)),
        scores=jnp.tile(jnp.float32([[0.9, 0.6]]), (count, 1)),
        real=jnp.ones((count, 2), bool),
        found=jnp.full((count,), 2, jnp.int32),
    )


def fake(fit, detect=around):
    image = ImageConfig(size=64, channels=1, mean=(0.5,), std=(0.25,), fit=fit)
    config = image_models.detection_config()
    objective = types.SimpleNamespace(
        classes=("Mass", "Edema"), config=types.SimpleNamespace(post=config.post), detect=detect
    )
    return Detector(nnx.Dict({}), objective=objective, image=image)


@pytest.mark.parametrize("fit", ["stretch", "pad", "pad_evenly"])
def test_boxes_lie_on_the_pixels_of_images_of_any_size(fit, tmp_path):
    images, boxes = image_models.radiographs()
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    for given in (images, paths):
        found = fake(fit).predict(given)
        for image, box, one in zip(images, boxes, found, strict=True):
            pixel = max(image.shape) / 64
            np.testing.assert_allclose(one.corners[0], box, atol=1.01 * pixel)
            # The box in the corner of a padded square lies on its margin.
            assert one.names == (("Edema", "Mass") if fit == "stretch" else ("Edema",))
            assert one.scores[0] == np.float32(0.9) and one.classes[0] == 1


def test_a_trained_detector_gives_the_boxes_of_its_objective(tmp_path):
    config = image_models.detection_config()
    folder = image_models.saved(tmp_path / "w", "detection", config)
    found = prior_jax.load_detector(folder)
    images, _ = image_models.radiographs()
    pixels = jnp.asarray(found.process_images(images).pixels)
    detect = nnx.jit(image_models.OBJECTIVES["detection"](config).detect)
    wanted = jax.tree.map(np.asarray, detect(found.module, pixels))
    assert wanted.real.any()
    for row, (image, one) in enumerate(zip(images, found.predict(images), strict=True)):
        real, scale = wanted.real[row], np.tile(np.float32(image.shape[::-1]) / 32, 2)
        area = np.prod(wanted.corners[row, real, 2:] - wanted.corners[row, real, :2], axis=1) > 0
        np.testing.assert_allclose(
            one.corners, wanted.corners[row, real][area] * scale, rtol=1e-4, atol=1e-3
        )
        np.testing.assert_allclose(one.scores, wanted.scores[row, real][area], rtol=1e-5)
        assert one.names == tuple(config.classes[k] for k in wanted.classes[row, real][area])


@pytest.mark.slow
def test_the_rules_may_be_others_than_those_of_the_training(tmp_path):
    config = image_models.detection_config()
    folder = image_models.saved(tmp_path / "w", "detection", config)
    strict = dataclasses.replace(config.post, conf_threshold=0.5)
    images, _ = image_models.radiographs()
    found = prior_jax.load_detector(folder, post=strict)
    assert found.post == strict
    assert all(one.scores.size and (one.scores >= 0.5).all() for one in found.predict(images))
    assert any((one.scores < 0.5).any() for one in prior_jax.load_detector(folder).predict(images))
    tight = dataclasses.replace(config.post, conf_threshold=0.0, most_boxes=1)
    with pytest.raises(ConfigError, match="room for 1"):
        prior_jax.load_detector(folder, post=tight).predict(images)


@pytest.mark.parametrize("frozen", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_new_head_stands_on_the_encoder_of_the_weights(frozen, tmp_path):
    config = image_models.classification_config()
    folder = image_models.saved(tmp_path / "w", "classification", config)
    found = prior_jax.load_detector(folder, 2, freeze_encoder=frozen, head=NEW)
    wanted = image_models.weights_of("classification", config).arrays
    before = arrays_of(found.module)
    names = [name for name in before if name.startswith("image_encoder/")]
    assert names and all((before[name] == wanted[name]).all() for name in names)
    images, _ = image_models.radiographs()
    assert len(found.predict(images)) == 2 and found.classes == ("0", "1")
    pixels = jnp.asarray(found.process_images(images).pixels)

    @nnx.jit
    @nnx.grad
    def gradients(module):
        return sum(each.sum() for each in module(pixels, train=True))

    given = gradients(found.module)
    moved = [np.abs(np.asarray(x)).max() > 0 for x in jax.tree.leaves(given["image_encoder"])]
    assert any(moved) != frozen
    after = arrays_of(found.module)
    changed = {name.split("/")[0] for name in after if (after[name] != before[name]).any()}
    assert changed == ({"head"} if frozen else {"head", "image_encoder"})


def test_what_does_not_fit_is_refused(tmp_path):
    folder = image_models.saved(tmp_path / "w", "detection", image_models.detection_config())
    saved_encoder(tmp_path / "plain", "mean")
    with pytest.raises(WeightsError, match="no trained head of boxes"):
        prior_jax.load_detector(tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"image\.resnet\.depths"):  # two stages are too few
        prior_jax.load_detector(tmp_path / "plain", 1)
    with pytest.raises(ConfigError, match="head: "):
        prior_jax.load_detector(folder, head=NEW)
    with pytest.raises(WeightsError, match=r"prior_jax\.load_detector"):
        prior_jax.load_segmenter(folder)
    with pytest.raises(ConfigError, match="num_classes"):
        prior_jax.load_detector(folder, 0)


def test_damaged_weights_do_not_pass_for_ones_that_find_nothing():
    def broken(module, image):
        found = around(module, image)
        return found.replace(scores=found.scores * jnp.nan)

    with pytest.raises(DataError, match="NaN"):
        fake("pad", broken).predict(image_models.radiographs()[0])
