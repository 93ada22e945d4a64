"""Segmentation: decoders, losses on logits, padded rows, rates, and what is trained and refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses.segmentation import dice_of_batch, mixed, softmax_cross_entropy
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.objectives.on_images import FINE_TUNED, FROZEN
from prior_jax.objectives.segmentation import (
    AUXILIARY,
    TERM,
    SegmentationObjective,
)
from prior_jax.objectives.segmentation_config import DecoderConfig, SegmentationConfig
from prior_jax.train.state import define_model
from prior_jax.types import Batch

SIDE = 16
CLASSES = ("Effusion", "Edema")
DECODERS = {
    "unet": DecoderConfig(kind="unet", channels=(4, 3), auxiliary_weight=0.0, dropout=0.0),
    "unet_transposed": DecoderConfig(
        kind="unet_transposed", channels=(4, 3), auxiliary_weight=0.0, dropout=0.0
    ),
    "linear": DecoderConfig(kind="linear", channels=(), auxiliary_weight=0.0, dropout=0.0),
    "upernet": DecoderConfig(kind="upernet", channels=(4, 3), auxiliary_weight=0.4, dropout=0.1),
}


def config_of(decoder: str | DecoderConfig = "unet", **changes):
    resnet = ResNetConfig(
        depths=(1, 1), width=4, in_channels=1, block="basic", stem_pool=False, remat="none"
    )
    fields = dict(
        dtype="float32",
        image=ImageEncoderConfig(resnet=resnet, pool="mean", pool_heads=1, image_size=SIDE),
        decoder=DECODERS[decoder] if isinstance(decoder, str) else decoder,
        classes=CLASSES,
        loss="mixed",
        encoder_rate=1.0,
        drifting_statistics=False,
    )
    return SegmentationConfig(**(fields | changes))


def batch_of(rows=4, *, seed=0, classes=2):
    """Images with a bright square, which is the mask of the first class."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(rows, SIDE, SIDE, 1)) * 0.3
    masks = np.zeros((rows, SIDE, SIDE, classes), bool)
    for row in range(rows):
        top, left = rng.integers(0, SIDE - 6, 2)
        masks[row, top : top + 6, left : left + 6, 0] = True
    image[..., 0] += masks[..., 0]
    masks[1::2, : SIDE // 2, :, 1:] = True
    nothing = np.zeros((rows, 3))
    return Batch(
        image=jnp.asarray(image, jnp.float32),
        tokens=jnp.asarray(nothing, jnp.int32),
        token_mask=jnp.asarray(nothing, bool),
        sentence_index=jnp.asarray(nothing, jnp.int32),
        sentence_mask=jnp.zeros((rows, 1), bool),
        labels=jnp.zeros((rows, 2), jnp.int8),
        weight=jnp.ones(rows, jnp.float32),
        record=jnp.arange(rows, dtype=jnp.int32),
        masks=jnp.asarray(masks),
    )


def loss_of(config, batch, *, stage=FINE_TUNED, train=True):
    """Terms, gradients of their sum by path, and the model's other state before and afterwards."""
    objective = SegmentationObjective(config)
    graph, params, rest = nnx.split(objective.init(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(
            model, batch, stage=stage, step=jnp.int32(0), key=jax.random.key(1), train=train
        )
        assert set(found.terms) == set(objective.weights(stage))
        value = sum(found.terms.values())
        return value, (found.terms, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (terms, after)), gradients = run(params, rest, batch)
    return (
        terms,
        nnx.as_pure(gradients),
        (nnx.as_pure(nnx.filter_state(rest, nnx.BatchStat)), after),
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_gives_masks_of_the_image_s_size_and_trains_all_its_parameters(decoder):
    batch, config = batch_of(), config_of(decoder)
    objective = SegmentationObjective(config)
    odds = objective.segment(objective.init(nnx.Rngs(0)), batch.image)
    assert odds.shape == batch.masks.shape and odds.dtype == jnp.float32
    terms, gradients, _ = loss_of(config, batch)
    assert set(terms) == ({TERM, AUXILIARY} if decoder == "upernet" else {TERM})
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        cancelled = decoder == "unet_transposed" and "conv" in name and "bias" in name
        assert cancelled or np.any(gradient), name


@pytest.mark.parametrize(
    ("loss", "function"),
    [("mixed", mixed), ("dice", dice_of_batch), ("cross_entropy", softmax_cross_entropy)],
)
def test_the_loss_is_that_of_the_logits(loss, function):
    batch, objective = batch_of(), SegmentationObjective(config_of(loss=loss))
    model = objective.init(nnx.Rngs(0))
    logits, _ = model(batch.image, train=False)
    terms = objective.loss_terms(
        model, batch, stage=FROZEN, step=jnp.int32(0), key=None, train=False
    ).terms
    wanted = function(logits, batch.masks.astype(jnp.float32), weight=batch.weight)
    np.testing.assert_array_equal(terms[TERM], wanted)


@pytest.mark.parametrize(
    ("decoder", "loss"), [("linear", "mixed"), ("linear", "dice"), ("upernet", "cross_entropy")]
)
def test_padded_rows_change_neither_loss_nor_gradient(decoder, loss):
    config, batch = config_of(decoder, loss=loss), batch_of()
    whole = loss_of(config, jax.tree.map(lambda x: x[:3], batch), train=False)
    weight = jnp.asarray([1, 1, 1, 0], jnp.float32)
    padded = loss_of(config, batch.replace(weight=weight), train=False)
    for name in whole[0]:
        np.testing.assert_allclose(whole[0][name], padded[0][name], rtol=1e-6)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7),
        whole[1],
        padded[1],
    )


def test_cross_entropy_is_torch_s_and_leaves_out_pixels_of_two_classes():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 4, 2)).astype(np.float32)
    truth = rng.random((3, 5, 4, 1)) > 0.5
    one = jnp.ones(3, jnp.float32)
    found = softmax_cross_entropy(jnp.asarray(logits), jnp.asarray(truth), weight=one)
    wanted = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(truth[..., 0].astype(np.int64)),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_pixel_of_two_classes_has_no_loss():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 3, 3)), jnp.float32)
    truth = jnp.asarray([[[[1, 1], [0, 1], [0, 0]]]], jnp.float32)
    one = jnp.ones(1, jnp.float32)
    value, gradient = jax.value_and_grad(
        lambda logits: softmax_cross_entropy(logits, truth, weight=one)
    )(logits)
    assert not gradient[0, 0, 0].any() and gradient[0, 0, 1:].all()
    log = jax.nn.log_softmax(logits[0, 0])
    np.testing.assert_allclose(value, -(log[1, 2] + log[2, 0]) / 2, rtol=1e-6)


@pytest.mark.parametrize("drifts", [False, True])
def test_a_frozen_encoder_keeps_its_statistics_unless_they_are_to_drift(drifts):
    config = config_of(drifting_statistics=drifts)
    before, after = loss_of(config, batch_of(), stage=FROZEN)[2]

    def changed(part):
        pairs = zip(jax.tree.leaves(before[part]), jax.tree.leaves(after[part]), strict=True)
        return [bool(np.any(one != other)) for one, other in pairs]

    assert all(changed("decoder"))
    assert all(changed("image_encoder")) if drifts else not any(changed("image_encoder"))


def test_the_decoder_alone_is_trained_while_the_encoder_is_frozen_and_has_the_full_rate():
    objective = SegmentationObjective(config_of(encoder_rate=0.1))
    paths = [tuple(name.split("/")) for name in define_model(objective.init).params]
    frozen = {path[0] for path in paths if objective.trainable(FROZEN, path)}
    assert frozen == {"decoder"} and all(objective.trainable(FINE_TUNED, path) for path in paths)
    rates = {path[0]: objective.rate(FINE_TUNED, path) for path in paths}
    assert rates == {"decoder": 1.0, "image_encoder": 0.1}
    with pytest.raises(ConfigError, match=r"config\.stages"):
        objective.weights("stage1")


def test_exclusive_classes_have_the_softmax_for_their_probability():
    objective = SegmentationObjective(config_of(loss="cross_entropy"))
    model, image = objective.init(nnx.Rngs(0)), batch_of().image
    logits, _ = model(image, train=False)
    assert logits.shape[-1] == 3
    np.testing.assert_allclose(
        jax.nn.sigmoid(objective.segment(model, image)),
        jax.nn.softmax(logits, axis=-1)[..., 1:],
        rtol=1e-5,
    )


def test_half_precision_leaves_logits_and_losses_in_single_precision():
    batch, found = batch_of(), {}
    for dtype in ("bfloat16", "float32"):
        objective = SegmentationObjective(config_of("linear", dtype=dtype))
        model = objective.init(nnx.Rngs(0))
        logits, _ = model(batch.image, train=False)
        assert logits.dtype == jnp.float32
        found[dtype] = mixed(logits, batch.masks.astype(jnp.float32), weight=batch.weight)
    assert found["bfloat16"] != found["float32"]
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=0.02)


WRONG = {
    "dtype": "float16",
    "loss": "hinge",
    "classes": ("Edema", "Edema"),
    "encoder_rate": 0.0,
}


@pytest.mark.parametrize("field", WRONG)
def test_wrong_settings_are_refused_by_name(field):
    with pytest.raises(ConfigError) as raised:
        config_of(**{field: WRONG[field]})
    assert raised.value.where == field


@pytest.mark.parametrize(
    ("decoder", "changes", "field"),
    [
        ("unet", {"kind": "cup"}, "kind"),
        ("unet", {"channels": ()}, "channels"),
        ("unet", {"dropout": 0.1}, "dropout"),
        ("unet", {"auxiliary_weight": 0.4}, "auxiliary_weight"),
        ("linear", {"channels": (4,)}, "channels"),
        ("upernet", {"channels": (4,)}, "channels"),
        ("upernet", {"channels": (4, 0)}, "channels"),
        ("upernet", {"dropout": 1.0}, "dropout"),
        ("upernet", {"auxiliary_weight": -1.0}, "auxiliary_weight"),
    ],
)
def test_decoders_that_cannot_be_are_refused_by_name(decoder, changes, field):
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(DECODERS[decoder], **changes)
    assert raised.value.where == field


def test_a_decoder_that_does_not_lead_back_to_the_image_is_refused():
    five = dataclasses.replace(DECODERS["unet"], channels=(4, 3, 2))
    with pytest.raises(ConfigError, match=r"decoder\.channels"):
        config_of(five)
    image = dataclasses.replace(config_of().image, image_size=SIDE + 1)
    with pytest.raises(ConfigError, match=r"image\.image_size.*multiple of 4"):
        config_of(image=image)
    config_of("linear", image=image)  # which resizes to any size


def test_it_reads_no_reports_and_needs_masks():
    objective = SegmentationObjective(config_of())
    with pytest.raises(ConfigError, match="no reports"):
        objective.encode_report(None, *[jnp.zeros(1)] * 4)
    with pytest.raises(ConfigError, match=r"config\.data\.regions"):
        loss_of(config_of(), batch_of().replace(masks=None))
