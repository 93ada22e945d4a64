"""LoVT and MGCA with the contrast of their sentences, or words, and regions over the batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs.baselines import lovt, mgca
from prior_jax.errors import ConfigError
from prior_jax.losses.word_region import word_region_contrast
from prior_jax.objectives.kinds import KINDS
from tests.nn.small import filled
from tests.objectives import baselines
from tests.objectives.baselines import STAGE, STEP, VOCABULARY, batch_of
from tests.objectives.test_sentence_region import CONTRAST
from tests.objectives.tiny import SIDE

KEY = jax.random.key(0)
WEIGHTS = {"lovt": baselines.LOVT_WEIGHTS, "mgca": baselines.MGCA_WEIGHTS}
both = pytest.mark.parametrize("kind", sorted(WEIGHTS))


def config_of(kind, contrast=CONTRAST, **changes):
    weights = {**WEIGHTS[kind], "sentence_region": 1.0}
    return baselines.config_of(kind, **{"sentence_region": contrast, "weights": weights, **changes})


@functools.cache
def made(kind, **changes):
    """The objective and (graph, parameters, rest) of a model."""
    config = config_of(kind, dataclasses.replace(CONTRAST, **changes))
    objective = baselines.KINDS[kind][0](config, vocabulary=VOCABULARY)
    graph, params, rest = nnx.split(filled(lambda: objective.init(nnx.Rngs(0))), nnx.Param, ...)
    return objective, (graph, nnx.as_pure(params), nnx.as_pure(rest))


@functools.cache
def step(kind, *, train=False, **changes):
    """A jitted (params, rest, batch) -> (the contrast, all terms), gradients of the contrast."""
    objective, (graph, _, _) = made(kind, **changes)

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        terms = objective.loss_terms(
            model, batch, stage=STAGE, step=STEP, key=KEY, train=train
        ).terms
        return terms["sentence_region"], dict(terms)

    options = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=options)


@both
def test_the_section_needs_a_weight(kind):
    weights = {**WEIGHTS[kind], "sentence_region": 0.0}
    with pytest.raises(ConfigError, match=r"^sentence_region: .*weights\.sentence_region is 0"):
        config_of(kind, weights=weights)


def encoded(objective, model, batch):
    report = batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
    return objective.encode_image(model, batch.image), objective.encode_report(model, *report)


@both
def test_the_term_is_glorias_contrast_of_unit_vectors_and_all_of_it_learns(kind):
    objective, (graph, params, rest) = made(kind)
    model, batch = nnx.merge(graph, params, rest), batch_of(6, fill=2)
    images, reports = encoded(objective, model, batch)
    words = model.sentence_region.sentence(reports.local)
    words = words / jnp.linalg.norm(words, axis=-1, keepdims=True)
    expected = word_region_contrast(
        words, images.local, word_mask=reports.local_mask, weight=batch.weight,
        temp1=model.sentence_region.attention_scale(), temp2=5.0, temp3=10.0,
        softmax_over_words=False, aggregate="sum",
    )  # fmt: skip
    (found, terms), grads = step(kind)(params, rest, batch)
    total = expected.image_to_text + expected.text_to_image
    np.testing.assert_allclose(found, total, rtol=1e-4)
    assert set(terms) == set(objective.weights(STAGE))
    for part in ("sentence_region", "image_encoder", "local_text_head"):
        assert any(np.any(grad) for grad in jax.tree.leaves(grads[part])), part


@both
def test_the_other_terms_stay_as_they_are(kind):
    _, (_, params, rest) = made(kind)
    batch = batch_of(6, fill=2)
    plain = baselines.KINDS[kind][0](baselines.config_of(kind), vocabulary=VOCABULARY)
    model = plain.init(nnx.Rngs(0))
    nnx.update(model, {k: v for k, v in params.items() if k != "sentence_region"})
    nnx.update(model, rest)
    expected = plain.loss_terms(model, batch, stage=STAGE, step=STEP, key=KEY, train=False).terms
    found = step(kind)(params, rest, batch)[0][1]
    for name in WEIGHTS[kind]:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)


@both
def test_copies_with_hidden_regions_change_the_contrast_alone(kind):
    """With a copy of every image the statistics of batch normalisation are the batch's own."""
    batch = batch_of(4)
    _, (_, params, rest) = made(kind)
    expected = step(kind, train=True)(params, rest, batch)[0][1]
    nothing = step(kind, train=True, hidden_every=1, hidden_share=1e-9)
    for name, value in nothing(params, rest, batch)[0][1].items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)
    half = step(kind, train=True, hidden_every=2, hidden_share=0.5)
    found = half(params, rest, batch)[0][1]
    assert abs(found["sentence_region"] - expected["sentence_region"]) > 1e-3


@both
def test_texts_attend_to_regions_of_their_own_side_and_spacing(kind):
    for back, side, spacing in ((0, 4, 8.0), (1, 8, 4.0)):
        objective, (graph, params, rest) = made(kind, stages_back=back)
        model, batch = nnx.merge(graph, params, rest), batch_of(3)
        images, reports = encoded(objective, model, batch)
        assert objective.patch_spacing == spacing and SIDE == side * spacing
        attention = objective.text_attention(model, images, reports)
        assert attention.shape[2] == side * side
        np.testing.assert_allclose(attention.sum(axis=2), reports.local_mask, atol=1e-5)


@pytest.mark.slow  # test_sentence_region trains PRIOR with the same term
@both
def test_after_training_the_own_image_beats_anothers(kind):
    """Each report names the corner of its image that is bright."""
    _, (_, params, rest) = made(kind)
    batch = batch_of(8)
    corners = np.zeros((8, SIDE, SIDE, 1), np.float32)
    for row in range(8):
        y, x = divmod(row % 4, 2)
        corners[row, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 1 + row // 4
    batch = batch.replace(image=jnp.asarray(corners))
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)
    first = step(kind)(params, rest, batch)[0][0]
    for _ in range(60):
        (own, _), grads = step(kind)(params, rest, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
    moved = batch.replace(image=jnp.roll(batch.image, 1, axis=0))
    assert own < 0.5 * first
    assert step(kind)(params, rest, moved)[0][0] > own + 1


@both
def test_the_term_has_a_weight_exactly_where_it_is(kind):
    objective, _ = made(kind)
    assert objective.local_terms(STAGE)[-1] == "sentence_region"
    assert len(objective.local_terms(STAGE)) == 3
    for wrong in (dict(contrast=None), dict(weights=WEIGHTS[kind])):
        with pytest.raises(ConfigError, match="sentence_region"):
            config_of(kind, **wrong)
    grouped = config_of(kind, dataclasses.replace(CONTRAST, group=4))
    with pytest.raises(ConfigError, match="divisor of 6") as error:
        KINDS[kind].check_rows(grouped, 6)
    assert error.value.where == "sentence_region.group"


@pytest.mark.parametrize("config", [lovt, mgca])
def test_a_config_has_it_by_name_in_place_of_the_local_terms(config):
    plain, improved = config.get_config().model, config.get_config("improved").model
    assert "sentence_region" not in plain
    changed = {k for k, v in improved.weights.items() if v != plain.weights.get(k)}
    assert len(changed) == 3 and "sentence_region" in changed
    assert sorted(improved.weights[name] for name in changed) == [0.0, 0.0, 1.0]
    with pytest.raises(ConfigError, match="paper, improved"):
        config.get_config("better")
