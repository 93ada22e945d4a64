"""Supervised classification: targets, heads, losses, rates, and which parameters are trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses.classification import binary_losses, exclusive_loss, log_odds
from prior_jax.nn.classification_head import HeadConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.objectives.classification import (
    ClassificationConfig,
    ClassificationObjective,
)
from prior_jax.objectives.label_targets import LabelTargets, columns_of, one_class
from prior_jax.objectives.on_images import FINE_TUNED, FROZEN
from prior_jax.train.state import define_model
from prior_jax.types import Batch

LABELS = ("No Finding", "Edema", "Pleural Effusion", "Pneumonia")
SIDE = 16


def config_of(**changes):
    resnet = ResNetConfig(
        depths=(1, 1), width=4, in_channels=1, block="basic", stem_pool=False, remat="none"
    )
    fields = dict(
        dtype="float32",
        image=ImageEncoderConfig(resnet=resnet, pool="mean", pool_heads=1, image_size=SIDE),
        upsample=None,
        head=HeadConfig(kind="linear", hidden=None, dropout=0.0),
        classes=("Pneumonia", "Edema"),
        loss="binary",
        uncertain="ignore",
        not_mentioned="negative",
        encoder_rate=1.0,
        layer_decay=None,
        drifting_statistics=False,
    )
    return ClassificationConfig(**(fields | changes))


def batch_of(rows=6, *, labels=None, seed=0):
    rng = np.random.default_rng(seed)
    if labels is None:
        labels = rng.integers(-2, 2, (rows, len(LABELS)))
    text = np.zeros((rows, 3))
    return Batch(
        image=jnp.asarray(rng.normal(size=(rows, SIDE, SIDE, 1)), jnp.float32),
        tokens=jnp.asarray(text, jnp.int32),
        token_mask=jnp.asarray(text, bool),
        sentence_index=jnp.asarray(text, jnp.int32),
        sentence_mask=jnp.zeros((rows, 1), bool),
        labels=jnp.asarray(labels, jnp.int8),
        weight=jnp.ones(rows, jnp.float32),
        record=jnp.arange(rows, dtype=jnp.int32),
    )


def loss_of(config, batch, *, stage=FINE_TUNED, train=True):
    """Loss, gradients by path, and the model's other state afterwards."""
    objective = ClassificationObjective(config, labels=LABELS)
    model = objective.init(nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(
            model, batch, stage=stage, step=jnp.int32(0), key=jax.random.key(1), train=train
        )
        assert set(found.terms) == set(objective.weights(stage))
        (value,) = found.terms.values()
        return value, nnx.as_pure(nnx.state(model, nnx.BatchStat))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, statistics), gradients = run(params, rest, batch)
    before = nnx.as_pure(nnx.state(model, nnx.BatchStat))
    return float(value), nnx.as_pure(gradients), (before, statistics)


def test_classes_are_found_by_their_names():
    assert columns_of(("Pneumonia", "Edema"), LABELS) == (3, 1)


def test_a_class_that_the_set_lacks_is_refused_and_the_nearest_named():
    with pytest.raises(ConfigError, match=r"config\.model\.classes: .*'Pleural Effusion'"):
        ClassificationObjective(config_of(classes=("pleural effusions",)), labels=LABELS)


def test_every_state_of_a_label_has_its_meaning():
    targets = LabelTargets(
        columns=(0, 1, 2), uncertain=("positive", "negative", "ignore"), not_mentioned="ignore"
    )
    states = np.repeat(np.array([[1], [0], [-1], [-2]], np.int8), 3, axis=1)
    target, known = targets(jnp.asarray(states))
    np.testing.assert_array_equal(target, [[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(known, [[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0]])


def test_a_single_exclusive_class_is_absent_or_present():
    index, known = one_class(jnp.array([[1.0], [0.0], [0.0]]), jnp.array([[1.0], [1.0], [0.0]]))
    np.testing.assert_array_equal(index, [1, 0, 0])
    np.testing.assert_array_equal(known, [1, 1, 0])


def test_exclusive_classes_need_exactly_one_positive():
    target = jnp.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    index, known = one_class(target, jnp.ones_like(target))
    np.testing.assert_array_equal(index[0], 1)
    np.testing.assert_array_equal(known, [1, 0, 0])


def test_the_sigmoid_of_log_odds_is_the_softmax():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)) * 4, jnp.float32)
    found = jax.nn.sigmoid(log_odds(logits))
    np.testing.assert_allclose(found, jax.nn.softmax(logits), rtol=2e-6)


@pytest.mark.parametrize("loss", ["binary", "exclusive"])
def test_padding_and_unknown_labels_change_neither_value_nor_gradient(loss):
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    target = jnp.asarray(rng.integers(0, 2, (4, 3)), jnp.float32)
    index = jnp.asarray(rng.integers(0, 3, 4), jnp.int32)

    def value(logits, rows):
        weight = (jnp.arange(rows) < 2).astype(jnp.float32)
        if loss == "binary":
            known = jnp.ones((rows, 3), jnp.float32)
            return binary_losses(logits, target[:rows], known=known, weight=weight)
        return exclusive_loss(
            logits, index[:rows], known=jnp.ones(rows, jnp.float32), weight=weight
        )

    whole, padded = (jax.value_and_grad(value)(logits[:rows], rows) for rows in (2, 4))
    np.testing.assert_allclose(whole[0], padded[0], rtol=1e-6)
    np.testing.assert_allclose(whole[1], padded[1][:2], rtol=1e-6)
    assert not padded[1][2:].any()


def test_losses_without_a_known_label_are_zero():
    nothing = jnp.zeros((2, 3), jnp.float32)
    weight = jnp.ones(2, jnp.float32)
    assert binary_losses(nothing + 3, nothing, known=nothing, weight=weight) == 0
    index = jnp.zeros(2, jnp.int32)
    assert exclusive_loss(nothing, index, known=nothing[:, 0], weight=weight) == 0


def test_extreme_logits_have_finite_losses_and_gradients():
    logits = jnp.array([[500.0, -500.0]])
    target, one = jnp.array([[0.0, 1.0]]), jnp.ones((1, 2), jnp.float32)
    value, gradient = jax.value_and_grad(binary_losses)(logits, target, known=one, weight=one[:, 0])
    np.testing.assert_allclose(value, 500, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.5, -0.5]], rtol=1e-6)


HEADS = {
    "linear": HeadConfig(kind="linear", hidden=None, dropout=0.0),
    "mlp": HeadConfig(kind="mlp", hidden=8, dropout=0.2),
    "layer_norm": HeadConfig(kind="layer_norm", hidden=None, dropout=0.0),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", ["binary", "exclusive"])
def test_every_head_learns_every_loss(head, loss):
    labels = np.zeros((6, len(LABELS)))
    labels[np.arange(6), [1, 3, 1, 3, 1, 3]] = 1
    config = config_of(head=HEADS[head], loss=loss)
    value, gradients, _ = loss_of(config, batch_of(labels=labels))
    assert value > 0
    for part in ("image_encoder", "head"):
        leaves = jax.tree.leaves(gradients[part])
        assert leaves and any(np.abs(np.asarray(leaf)).max() > 0 for leaf in leaves), part


def moved(statistics):
    before, after = (jax.tree.leaves(tree) for tree in statistics)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(before, after, strict=True))


def test_a_frozen_encoder_keeps_its_statistics_unless_they_are_to_drift():
    batch = batch_of()
    assert not moved(loss_of(config_of(), batch, stage=FROZEN)[2])
    assert moved(loss_of(config_of(drifting_statistics=True), batch, stage=FROZEN)[2])
    assert moved(loss_of(config_of(), batch, stage=FINE_TUNED)[2])
    assert not moved(loss_of(config_of(), batch, stage=FINE_TUNED, train=False)[2])


def test_stages_train_the_head_or_everything():
    objective = ClassificationObjective(config_of(), labels=LABELS)
    paths = [tuple(name.split("/")) for name in define_model(objective.init).params]
    frozen = {path[0] for path in paths if objective.trainable(FROZEN, path)}
    assert frozen == {"head"}
    assert all(objective.trainable(FINE_TUNED, path) for path in paths)
    with pytest.raises(ConfigError, match=r"config\.stages"):
        objective.trainable("pretrain", paths[0])


def test_rates_fall_from_the_head_to_the_stem():
    config = config_of(encoder_rate=0.5, layer_decay=0.1)
    objective = ClassificationObjective(config, labels=LABELS)
    rates = {}
    for name in define_model(objective.init).params:
        path = tuple(name.split("/"))
        part = path[0] if path[0] == "head" else path[3] if path[2] == "stages" else "stem"
        rates.setdefault(part, set()).add(round(objective.rate(FINE_TUNED, path), 9))
    assert rates == {"head": {1.0}, "stage2": {0.05}, "stage1": {0.005}, "stem": {0.0005}}


@pytest.mark.parametrize("loss", ["binary", "exclusive"])
@pytest.mark.parametrize("classes", [("Edema",), ("Edema", "Pneumonia", "No Finding")])
def test_scores_have_a_column_for_each_class(loss, classes):
    objective = ClassificationObjective(config_of(loss=loss, classes=classes), labels=LABELS)
    odds = objective.classify(objective.init(nnx.Rngs(0)), batch_of().image)
    assert odds.shape == (6, len(classes)) and np.isfinite(odds).all()
    target, known = objective.targets(batch_of().labels)
    assert target.shape == known.shape == (6, len(classes))


def test_a_model_without_labels_scores_but_has_no_loss():
    objective = ClassificationObjective(config_of())
    assert objective.classify(objective.init(nnx.Rngs(0)), batch_of().image).shape == (6, 2)
    with pytest.raises(ConfigError, match="labels"):
        objective.targets(batch_of().labels)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float16"),
        ("loss", "hinge"),
        ("upsample", 0),
        ("classes", ()),
        ("classes", ("Edema", "Edema")),
        ("uncertain", "maybe"),
        ("uncertain", {"Edema": "positive"}),
        ("not_mentioned", "maybe"),
        ("encoder_rate", 0.0),
        ("layer_decay", 1.5),
    ],
)
def test_wrong_settings_are_refused_by_name(field, value):
    with pytest.raises(ConfigError) as raised:
        config_of(**{field: value})
    assert raised.value.where.startswith(field)


@pytest.mark.parametrize(
    "change",
    [{"kind": "deep"}, {"kind": "mlp"}, {"hidden": 8}, {"dropout": 1.0}],
)
def test_heads_that_cannot_be_are_refused(change):
    with pytest.raises(ConfigError):
        dataclasses.replace(HEADS["linear"], **change)


def test_it_reads_no_reports():
    objective = ClassificationObjective(config_of())
    with pytest.raises(ConfigError, match="no reports"):
        objective.encode_report(None, *[jnp.zeros(1)] * 4)
