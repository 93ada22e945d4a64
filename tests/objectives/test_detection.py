"""Detection as an objective: its terms, what is trained, and the boxes that it finds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses import yolo
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.nn.yolo_head import ANCHORS, YoloConfig
from prior_jax.objectives import boxes
from prior_jax.objectives.detection import (
    DetectionConfig,
    DetectionObjective,
)
from prior_jax.objectives.on_images import FINE_TUNED, FROZEN
from prior_jax.train.state import define_model
from prior_jax.types import Batch, Boxes

SIDE = 32
CLASSES = ("Mass", "Edema")
LOSS = yolo.YoloLossConfig(
    matching="shape",
    cross_entropy="logits",
    ignore_above=0.5,
    position=2.5,
    negative=0.5,
    single_class=False,
)
POST = boxes.PostConfig(
    conf_threshold=0.2, nms_threshold=0.4, most_boxes=None, clip=True, extra_pixel=False
)


def config_of(**changes):
    resnet = ResNetConfig(
        depths=(1, 1, 1), width=4, in_channels=1, block="basic", stem_pool=False, remat="none"
    )
    fields = dict(
        dtype="float32",
        image=ImageEncoderConfig(resnet=resnet, pool="mean", pool_heads=1, image_size=SIDE),
        head=YoloConfig(anchors="coco", anchor_size=None, width=8),
        loss=LOSS,
        post=POST,
        classes=CLASSES,
        encoder_rate=1.0,
        drifting_statistics=False,
    )
    return DetectionConfig(**(fields | changes))


def batch_of(rows=4, *, slots=2, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, SIDE / 2, (rows, slots, 2))
    corners = np.concatenate([low, low + rng.uniform(3, SIDE / 2, low.shape)], axis=2)
    real = rng.random((rows, slots)) < 0.7
    text = np.zeros((rows, 3))
    return Batch(
        image=jnp.asarray(rng.normal(size=(rows, SIDE, SIDE, 1)), jnp.float32),
        tokens=jnp.asarray(text, jnp.int32),
        token_mask=jnp.asarray(text, bool),
        sentence_index=jnp.asarray(text, jnp.int32),
        sentence_mask=jnp.zeros((rows, 1), bool),
        labels=jnp.zeros((rows, 1), jnp.int8),
        weight=jnp.ones(rows, jnp.float32),
        record=jnp.arange(rows, dtype=jnp.int32),
        boxes=Boxes(
            corners=jnp.asarray(corners * real[..., None], jnp.float32),
            classes=jnp.asarray(rng.integers(0, len(CLASSES), (rows, slots)) * real, jnp.int32),
            real=jnp.asarray(real),
        ),
    )


@functools.cache
def compiled(config, stage, train):
    """The loss and its gradients as a function of a batch."""
    objective = DetectionObjective(config)
    model = objective.init(nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(
            model, batch, stage=stage, step=jnp.int32(0), key=None, train=train
        )
        assert set(found.terms) == set(objective.weights(stage))
        return sum(found.terms.values()), found.terms

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return functools.partial(run, params, rest)


def loss_of(config, batch, *, stage=FINE_TUNED, train=True):
    """Terms, and gradients by path."""
    (_, terms), gradients = compiled(config, stage, train)(batch)
    return terms, nnx.as_pure(gradients)


def test_the_terms_are_those_of_the_loss_and_reach_every_parameter():
    config, batch = config_of(), batch_of()
    terms, gradients = loss_of(config, batch)
    objective = DetectionObjective(config)
    model = objective.init(nnx.Rngs(0))
    wanted = yolo.total_terms(
        nnx.jit(lambda model, image: model(image, train=True))(model, batch.image),
        batch.boxes.corners,
        batch.boxes.real,
        batch.boxes.classes,
        weight=batch.weight,
        anchors=config.head.scaled_anchors(SIDE),
        image_size=(SIDE, SIDE),
        config=LOSS,
    )
    for name, value in terms.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, err_msg=name)
    for part in ("image_encoder", "head"):
        for leaf in jax.tree.leaves(gradients[part]):
            assert np.abs(np.asarray(leaf)).max() > 0, part


def test_padding_rows_and_padded_slots_change_neither_terms_nor_gradients():
    """In inference mode: the statistics of a batch are those of all of its rows."""
    batch = batch_of(rows=3)
    wide = jax.tree.map(
        lambda x: jnp.pad(x, [(0, 0), (0, 3), *[(0, 0)] * (x.ndim - 2)]), batch.boxes
    )
    # What lies in a slot of no box is not looked at.
    corners = jnp.where(wide.real[..., None], wide.corners, jnp.nan)
    padded = dataclasses.replace(batch, boxes=dataclasses.replace(wide, corners=corners))
    longer = jax.tree.map(lambda x: jnp.concatenate([x, x[:2]]), padded)
    longer = dataclasses.replace(longer, weight=jnp.array([1.0, 1, 1, 0, 0]))
    whole, other = (loss_of(config_of(), one, train=False) for one in (batch, longer))
    for name, value in whole[0].items():
        np.testing.assert_allclose(value, other[0][name], rtol=1e-5, err_msg=name)
    for one, two in zip(jax.tree.leaves(whole[1]), jax.tree.leaves(other[1]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("matching", ["shape", "release"])
def test_no_room_for_boxes_is_the_same_as_rooms_that_are_empty(matching):
    objective = DetectionObjective(config_of(loss=dataclasses.replace(LOSS, matching=matching)))
    batch = batch_of(slots=2)
    raw = objective.init(nnx.Rngs(0))(batch.image, train=False)

    def terms(slots):
        return yolo.total_terms(
            raw,
            batch.boxes.corners[:, :slots],
            jnp.zeros_like(batch.boxes.real[:, :slots]),
            batch.boxes.classes[:, :slots],
            weight=batch.weight,
            anchors=objective.anchors,
            image_size=(SIDE, SIDE),
            config=objective.config.loss,
        )

    none, empty = terms(0), terms(2)
    assert float(none["object"]) > 0
    for name in yolo.TERMS:
        np.testing.assert_array_equal(none[name], empty[name])


def test_a_batch_without_boxes_is_refused():
    with pytest.raises(ConfigError, match=r"config\.data\.regions"):
        loss_of(config_of(), dataclasses.replace(batch_of(), boxes=None))


class Modes:
    """A model that notes the modes of its head and encoder, and predicts nothing."""

    def __init__(self):
        self.seen = []

    def __call__(self, image, *, train, train_encoder=None):
        self.seen.append((train, train_encoder))
        cells = [(SIDE // stride, SIDE // stride) for stride in (8, 4, 2)]
        return tuple(jnp.zeros((len(image), *cell, 3, 5 + len(CLASSES))) for cell in cells)


@pytest.mark.parametrize(
    ("stage", "drifts", "train", "modes"),
    [
        (FROZEN, False, True, (True, False)),
        (FROZEN, True, True, (True, True)),
        (FINE_TUNED, False, True, (True, True)),
        (FINE_TUNED, False, False, (False, False)),
    ],
)
def test_a_frozen_encoder_is_in_inference_mode_unless_it_is_to_drift(stage, drifts, train, modes):
    objective, model = DetectionObjective(config_of(drifting_statistics=drifts)), Modes()
    objective.loss_terms(model, batch_of(), stage=stage, step=jnp.int32(0), key=None, train=train)
    assert model.seen == [modes]


def test_stages_train_the_head_or_everything_at_rates_of_their_own():
    objective = DetectionObjective(config_of(encoder_rate=0.1))
    paths = [tuple(name.split("/")) for name in define_model(objective.init).params]
    assert {path[0] for path in paths if objective.trainable(FROZEN, path)} == {"head"}
    assert all(objective.trainable(FINE_TUNED, path) for path in paths)
    rates = {path[0]: objective.rate(FINE_TUNED, path) for path in paths}
    assert rates == {"image_encoder": 0.1, "head": 1.0}
    with pytest.raises(ConfigError, match=r"config\.stages"):
        objective.trainable("pretrain", paths[0])


def decoded(*rows):
    """Boxes as the head gives them: centre, size, objectness and two classes."""
    return jnp.asarray([rows], jnp.float32)


ROWS = decoded(
    (10, 10, 8, 8, 0.9, 0.8, 0.1),
    (11, 10, 8, 8, 0.8, 0.7, 0.2),  # overlaps the first by 7 / 9
    (10, 10, 8, 8, 0.7, 0.1, 0.9),  # the same place, another class
    (30, 4, 12, 12, 0.5, 0.6, 0.1),  # reaches beyond the right and the upper edge
    (20, 20, 4, 4, 0.1, 0.9, 0.1),  # not sure enough
)


def test_boxes_are_suppressed_by_class_sorted_clipped_and_padded():
    found = jax.jit(lambda x: boxes.chosen(x, image_size=(32, 32), config=POST))(ROWS)
    np.testing.assert_array_equal(found.real, [[True, True, True, False, False]])
    np.testing.assert_allclose(found.scores, [[0.9, 0.7, 0.5, 0, 0]])
    np.testing.assert_array_equal(found.classes, [[0, 1, 0, 0, 0]])
    np.testing.assert_allclose(found.corners[0, 0], [6, 6, 14, 14])
    np.testing.assert_allclose(found.corners[0, 2], [24, 0, 32, 10])
    assert not found.corners[0, 3:].any() and found.found.tolist() == [3]
    whole = boxes.chosen(ROWS, image_size=(32, 32), config=dataclasses.replace(POST, clip=False))
    np.testing.assert_allclose(whole.corners[0, 2], [24, -2, 36, 10])


def test_more_boxes_than_there_is_room_for_are_counted():
    config = dataclasses.replace(POST, most_boxes=2)
    found = boxes.chosen(ROWS, image_size=(32, 32), config=config)
    assert found.scores.shape == (1, 2) and found.found.tolist() == [3]
    np.testing.assert_allclose(found.scores, [[0.9, 0.7]])


def test_a_pixel_more_on_every_side_makes_boxes_overlap_sooner():
    pair = decoded((10, 10, 2, 2, 0.9, 1, 0), (11, 10, 2, 2, 0.8, 1, 0))  # 2 / 6, with it 6 / 12
    counts = [
        boxes.chosen(
            pair, image_size=(32, 32), config=dataclasses.replace(POST, extra_pixel=extra)
        ).found.tolist()
        for extra in (False, True)
    ]
    assert counts == [[2], [1]]


def test_a_number_that_is_not_one_is_no_lack_of_boxes():
    found = boxes.chosen(ROWS.at[0, 4, 2].set(jnp.nan), image_size=(32, 32), config=POST)
    assert found.real.all() and jnp.isnan(found.scores).all()
    wide = boxes.chosen(ROWS.at[0, 0, 2].set(jnp.inf), image_size=(32, 32), config=POST)
    assert jnp.isfinite(wide.corners).all() and jnp.isfinite(wide.scores).all()


def test_detection_gives_boxes_inside_of_the_images():
    objective = DetectionObjective(config_of())
    image = batch_of().image
    found = jax.jit(objective.detect)(objective.init(nnx.Rngs(0)), image)
    cells = sum((SIDE // stride) ** 2 for stride in (2, 4, 8))
    assert found.corners.shape == (4, 3 * cells, 4) and found.found.min() > 0
    assert found.corners.min() >= 0 and found.corners.max() <= SIDE
    assert (np.diff(np.asarray(found.scores), axis=1) <= 0).all()


def test_the_width_of_the_head_follows_the_encoder_where_it_is_not_given():
    free = dataclasses.replace(config_of().head, width=None)
    wide = dataclasses.replace(config_of().image.resnet, width=16)
    image = dataclasses.replace(config_of().image, resnet=wide)
    shapes = define_model(DetectionObjective(config_of(head=free, image=image)).init).params
    assert shapes["head/heads/head0/blocks/block0/conv/kernel"].shape == (1, 1, 64, 16)
    with pytest.raises(ConfigError) as raised:
        config_of(head=dataclasses.replace(free, width=None), image=_narrow())
    assert raised.value.where == "head.width"


def _narrow():
    resnet = dataclasses.replace(config_of().image.resnet, width=2)
    return dataclasses.replace(config_of().image, resnet=resnet)


def test_anchors_have_a_name_or_a_size():
    named = YoloConfig(anchors="coco", anchor_size=None, width=8)
    given = YoloConfig(anchors=ANCHORS["coco"][1], anchor_size=416, width=8)
    assert named.scaled_anchors(224) == given.scaled_anchors(224)
    assert YoloConfig(anchors="lovt", anchor_size=None, width=8).scaled_anchors(224)[0][0] == (
        64.64,
        48.6,
    )
    for changes in (dict(anchors="yolo"), dict(anchor_size=224), dict(anchors=((1.0, 2.0),))):
        with pytest.raises(ConfigError, match="anchor"):
            dataclasses.replace(named, **changes)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (dict(dtype="float16"), "dtype"),
        (dict(classes=()), "classes"),
        (dict(classes=("Edema", "Edema")), "classes"),
        (dict(encoder_rate=0.0), "encoder_rate"),
        (dict(pool="attention"), "image.pool"),
        (dict(image_size=33), "image.image_size"),
        (dict(depths=(1, 1)), "image.resnet.depths"),
    ],
)
def test_wrong_settings_are_refused_by_name(change, where):
    def changed():
        image = config_of().image
        if "depths" in change:
            image = dataclasses.replace(image, resnet=dataclasses.replace(image.resnet, **change))
        elif change.keys() & {"pool", "image_size"}:
            image = dataclasses.replace(image, **change)
        else:
            return config_of(**change)
        return config_of(image=image)

    with pytest.raises(ConfigError) as raised:
        changed()
    assert raised.value.where == where


@pytest.mark.parametrize(
    ("field", "value"), [("conf_threshold", 1.5), ("nms_threshold", -0.1), ("most_boxes", 0)]
)
def test_rules_that_choose_no_box_are_refused(field, value):
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(POST, **{field: value})
    assert raised.value.where == field


def test_it_reads_no_reports():
    objective = DetectionObjective(config_of())
    with pytest.raises(ConfigError, match="no reports"):
        objective.encode_report(None, *[jnp.zeros(1)] * 4)
