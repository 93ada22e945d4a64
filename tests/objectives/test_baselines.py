"""Terms, gradients, padding, sharding and settings of the baselines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.errors import ConfigError
from prior_jax.objectives.convirt import ConvirtObjective
from tests.nn.small import filled
from tests.objectives.baselines import (
    KINDS,
    LOVT_WEIGHTS,
    STAGE,
    VOCABULARY,
    batch_of,
    config_of,
    made,
    paths,
    ran,
    step_of,
    training_step,
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_objective_has_its_terms_and_their_weighted_sum(kind):
    (total, (terms, metrics)), _ = ran(kind)
    weights = made(kind)[0].weights(STAGE)
    assert set(terms) == set(weights)
    expected = sum(weights[name] * float(value) for name, value in terms.items())
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert all(value.dtype == jnp.float32 and np.isfinite(value) for value in terms.values())
    assert all(np.isfinite(value) for value in metrics.values())
    assert float(metrics.get("logit_scale", 1)) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_trainable_parameters_get_a_gradient(kind):
    _, grads = ran(kind)
    for names, grad in paths(grads):
        assert np.all(np.isfinite(grad)), names
        if not made(kind)[0].trainable(STAGE, names):
            assert names[:2] == ("text_encoder", "pooler")
            assert not np.any(grad), names
        # A bias of the keys adds the same to every logit of a softmax.
        elif names[-2:] != ("key", "bias"):
            assert np.any(grad), names


def test_the_prototypes_of_mgca_begin_at_unit_length():
    model = KINDS["mgca"][0](config_of("mgca"), vocabulary=VOCABULARY).init(nnx.Rngs(0))
    np.testing.assert_allclose(jnp.linalg.norm(model.prototypes[...], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_padding_holds_changes_neither_value_nor_gradient(kind):
    batch = batch_of(6, fill=2)
    real = batch.weight > 0
    junk = batch.replace(
        image=jnp.where(real[:, None, None, None], batch.image, jnp.float32(7)),
        tokens=jnp.where(batch.token_mask & real[:, None], batch.tokens, jnp.int32(5)),
        labels=batch.labels + jnp.int8(1),
    )
    (total, _), grads = ran(kind)
    (other, _), other_grads = step_of(kind)(junk)
    np.testing.assert_allclose(other, total, rtol=1e-6)
    for (names, grad), (_, other_grad) in zip(paths(grads), paths(other_grads), strict=True):
        tolerance = 1e-5 * max(1, np.abs(grad).max())
        np.testing.assert_allclose(other_grad, grad, atol=tolerance, err_msg=str(names))


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_without_a_sentence_counts_in_no_term(kind):
    batch = batch_of(6, fill=2)
    empty = batch.replace(
        weight=jnp.ones_like(batch.weight),
        sentence_mask=batch.sentence_mask & (batch.weight > 0)[:, None],
    )
    (total, _), _ = step_of(kind)(empty)
    np.testing.assert_allclose(total, ran(kind)[0][0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lovt", "mgca"])
def test_longer_padding_changes_neither_value_nor_gradient(kind):
    (total, _), grads = step_of(kind)(batch_of(6))
    (other, _), other_grads = step_of(kind)(batch_of(6, tokens=30, sentences=7, fill=3))
    np.testing.assert_allclose(other, total, rtol=1e-5)
    for (names, grad), (_, other_grad) in zip(paths(grads), paths(other_grads), strict=True):
        tolerance = 1e-4 * max(1, np.abs(grad).max())
        np.testing.assert_allclose(other_grad, grad, atol=tolerance, err_msg=str(names))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near_float32_and_training_runs(kind):
    (_, (exact, _)), _ = ran(kind, train=True)
    (_, (near, _)), grads = ran(kind, train=True, dtype="bfloat16")
    for name, value in exact.items():
        assert near[name].dtype == jnp.float32
        np.testing.assert_allclose(near[name], value, rtol=0.1, atol=0.1, err_msg=name)
    assert all(np.all(np.isfinite(grad)) for grad in jax.tree.leaves(grads))


def test_learned_scales_are_exponentials_and_clips_is_limited():
    for kind, most in (("clip", 100), ("siglip", 1000)):
        objective, (graph, params, rest) = made(kind)
        for scale, expected in ((5.0, 5), (1000.0, most)):
            learned = {**params, "logit_scale": jnp.full((), np.log(scale), jnp.float32)}
            found = objective.scale(nnx.merge(graph, learned, rest))
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    objective, (graph, params, rest) = made("convirt")
    assert "logit_scale" not in params
    np.testing.assert_allclose(objective.scale(nnx.merge(graph, params, rest)), 5)


@pytest.mark.multidevice
def test_sharding_the_batch_changes_no_term():
    (total, (terms, _)), grads = ran("mgca")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        found = step_of("mgca")(jax.device_put(batch_of(6, fill=2), split))
    (other, (other_terms, _)), other_grads = jax.block_until_ready(found)
    np.testing.assert_allclose(other, total, rtol=1e-5)
    for name, value in terms.items():
        np.testing.assert_allclose(other_terms[name], value, rtol=1e-4, err_msg=name)
    for (names, grad), (_, other_grad) in zip(paths(grads), paths(other_grads), strict=True):
        error = np.linalg.norm(other_grad - grad)
        assert error <= 1e-3 * max(0.01, float(np.linalg.norm(grad))), (names, error)


@pytest.mark.multidevice
@pytest.mark.parametrize("kind", KINDS)
def test_sharding_the_batch_changes_no_term_and_no_statistic_of_a_training_step(kind):
    terms, rest = training_step(kind)(batch_of(6, fill=2))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        found = training_step(kind)(jax.device_put(batch_of(6, fill=2), split))
    other_terms, other_rest = jax.block_until_ready(found)
    for name, value in terms.items():
        np.testing.assert_allclose(other_terms[name], value, rtol=1e-3, err_msg=name)
    before = dict(paths(made(kind)[1][2]))
    for (names, value), (_, other) in zip(paths(rest), paths(other_rest), strict=True):
        np.testing.assert_allclose(other, value, rtol=1e-3, atol=1e-5, err_msg=str(names))
        assert np.any(value != before[names]), names


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_stage_is_refused_by_name(kind):
    objective, _ = made(kind)
    with pytest.raises(ConfigError, match="stage1"):
        objective.weights("stage1")
    with pytest.raises(ConfigError, match="stage1"):
        objective.trainable("stage1", ("image_head",))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("clip", "dtype", "float16"),
        ("clip", "embed_dim", 0),
        ("clip", "hidden_dim", 0),
        ("clip", "text_pool", "last"),
        ("clip", "temperature", 0.0),
        ("clip", "temperature", 0.005),  # its learned inverse is at most 100
        ("siglip", "temperature", -1.0),
        ("siglip", "bias", float("nan")),
        ("convirt", "temperature", 0.0),
        ("convirt", "temperature", 1e-40),
        ("convirt", "image_share", 1.5),
        ("lovt", "pool_heads", 3),
        ("lovt", "image_share", -0.5),
        ("lovt", "positive_distance", -0.1),
        ("lovt", "positive_decay", 0.0),
        ("lovt", "local_temperature", 0.0),
        ("lovt", "weights", {"global_alignment": 1.0}),
        ("mgca", "num_prototypes", 0),
        ("mgca", "sinkhorn_iterations", 0),
        ("mgca", "sinkhorn_epsilon", 0.0),
        ("mgca", "weights", LOVT_WEIGHTS),
    ],
)
def test_wrong_values_are_refused_by_name(kind, field, value):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        config_of(kind, **{field: value})


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_used_is_refused_by_name(weight):
    with pytest.raises(ConfigError, match=r"^weights\.local_text: The value is "):
        config_of("lovt", weights={**LOVT_WEIGHTS, "local_text": weight})


def test_lovt_pools_regions_itself():
    image = dataclasses.replace(config_of("lovt").image, pool="attention")
    with pytest.raises(ConfigError, match=r"^image\.pool: .*mean"):
        config_of("lovt", image=image)


class DotObjective(ConvirtObjective):
    """Products of vectors of any length, without a temperature."""

    unit_length = False

    def scale(self, model):
        return None

    def contrast(self, model, image, text, *, weight):
        return jnp.sum(weight[:, None] * jnp.square(image - text))


def test_unit_vectors_and_a_temperature_are_not_obligatory():
    objective = DotObjective(config_of("convirt"), vocabulary=VOCABULARY)
    model = filled(lambda: objective.init(nnx.Rngs(0)))
    batch = batch_of(3)

    @nnx.jit
    def run(model, batch):
        found = objective.loss_terms(
            model, batch, stage=STAGE, step=0, key=jax.random.key(0), train=False
        )
        images = objective.encode_image(model, batch.image)
        reports = objective.encode_report(
            model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
        )
        return found, images, reports

    found, images, reports = run(model, batch)
    x, y = (np.asarray(features.global_) for features in (images, reports))
    assert found.metrics == {}
    np.testing.assert_allclose(found.terms["global_alignment"], ((x - y) ** 2).sum(), rtol=1e-4)
    np.testing.assert_allclose(
        objective.similarity(model, images, reports), x @ y.T, rtol=1e-4, atol=1e-5
    )
