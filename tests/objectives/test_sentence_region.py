"""PRIOR with the contrast of sentences and regions over the global batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.errors import ConfigError
from prior_jax.losses.word_region import word_region_contrast
from prior_jax.nn import hidden_regions
from prior_jax.objectives.all_pairs import PLAIN, AllPairs, AllPairsConfig
from prior_jax.objectives.base import AlignsLocally
from prior_jax.objectives.kinds import KINDS
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import RELEASE_WEIGHTS
from prior_jax.objectives.sentence_region import (
    COORDINATES,
    SentenceRegionConfig,
    coordinates_of,
)
from tests.objectives.tiny import SIDE, tiny_batch, tiny_config, tiny_model

STEP = jnp.full((), 15, jnp.int32)
CONTRAST = SentenceRegionConfig(
    stages_back=1,
    attention_scale=8.0,
    learn_attention_scale=True,
    sentence_scale=5.0,
    contrast_scale=10.0,
    aggregate="sum",
    chunk=3,
    group=None,
)
WEIGHTS = {
    stage: {**weights, "local_text": 0.0, "sentence_region": 1.0}
    for stage, weights in RELEASE_WEIGHTS.items()
}


@functools.cache
def made(*, all_pairs=None, **changes):
    contrast = dataclasses.replace(CONTRAST, **changes)
    config = tiny_config(sentence_region=contrast, weights=WEIGHTS)
    return tiny_model(config, **({} if all_pairs is None else {"all_pairs": all_pairs}))


def term(objective, graph):
    """A jitted (params, rest, batch) -> the term and its gradient, as in validation."""

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(
            model, batch, stage="stage2", step=STEP, key=jax.random.key(0), train=False
        )
        return found.terms["sentence_region"]

    return jax.jit(jax.value_and_grad(loss), compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def computed(fill=0, tokens=24, sentences=5, **changes):
    objective, (graph, params, rest) = made(**changes)
    batch = tiny_batch(5, fill=fill, tokens=tokens, sentences=sentences)
    return term(objective, graph)(params, rest, batch)


def check_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * max(1e-3, np.abs(b).max()))


def test_the_term_is_glorias_contrast_of_unit_vectors():
    objective, (graph, params, rest) = made()
    model, batch = nnx.merge(graph, params, rest), tiny_batch(5)
    reports = objective.encode_report(
        model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
    )
    images = objective.encode_image(model, batch.image)
    words = model.sentence_region.sentence(reports.local)
    words = words / jnp.linalg.norm(words, axis=-1, keepdims=True)
    np.testing.assert_allclose(jnp.linalg.norm(images.local, axis=-1), 1, rtol=1e-5)
    found = word_region_contrast(
        words, images.local, word_mask=reports.local_mask, weight=batch.weight,
        temp1=model.sentence_region.attention_scale(), temp2=5.0, temp3=10.0,
        softmax_over_words=False, aggregate="sum",
    )  # fmt: skip
    # The bank's temperature at inference is that of the schedule's end, which step 30 is.
    terms = objective.loss_terms(
        model, batch, stage="stage2", step=jnp.int32(30), key=jax.random.key(0), train=False
    ).terms
    expected = found.image_to_text + found.text_to_image
    np.testing.assert_allclose(terms["sentence_region"], expected, rtol=1e-4)


def test_every_part_of_the_contrast_learns():
    _, grads = computed()
    for path, grad in jax.tree_util.tree_flatten_with_path(grads["sentence_region"])[0]:
        assert np.any(grad), path


def test_padding_changes_neither_value_nor_gradient():
    check_same(computed(fill=3, tokens=30, sentences=7), computed())


def test_a_ring_gives_the_same():
    ring = AllPairs(config=AllPairsConfig(form="ring", chunk=2), axis=None)
    check_same(computed(all_pairs=ring), computed())


def test_a_group_of_the_whole_batch_gives_the_same():
    check_same(computed(group=5), computed())


def test_walking_over_images_gives_the_same():
    walk = AllPairs(config=AllPairsConfig(form="gathered", chunk=2), axis=None, walk="images")
    check_same(computed(all_pairs=walk), computed())


@pytest.mark.multidevice
@pytest.mark.parametrize("form", ["gathered", "ring"])
def test_sharding_the_batch_changes_nothing(form):
    batch = tiny_batch(8)
    objective, (graph, params, rest) = made()
    expected = term(objective, graph)(params, rest, batch)
    pairs = AllPairs(config=AllPairsConfig(form=form, chunk=1), axis="data")
    objective, _ = made(all_pairs=pairs)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(batch, NamedSharding(mesh, P("data")))
        held = jax.device_put((params, rest), NamedSharding(mesh, P()))
        check_same(term(objective, graph)(*held, placed), expected)


def test_regions_are_those_of_the_chosen_map():
    for back, side, spacing in ((0, 4, 8.0), (1, 8, 4.0)):
        objective, (graph, params, rest) = made(stages_back=back)
        images = objective.encode_image(
            nnx.merge(graph, params, rest), jnp.zeros((2, SIDE, SIDE, 1))
        )
        assert images.local.shape == (2, side * side, 16)
        assert objective.patch_spacing == spacing


def test_attention_is_a_distribution_over_regions():
    objective, (graph, params, rest) = made()
    model, batch = nnx.merge(graph, params, rest), tiny_batch(5)
    images = objective.encode_image(model, batch.image)
    reports = objective.encode_report(
        model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
    )
    attention = objective.text_attention(model, images, reports)
    real = np.asarray(reports.local_mask)
    np.testing.assert_allclose(attention.sum(axis=2), real, atol=1e-5)
    local = objective.similarity_parts(model, images, reports)[1]
    assert local.shape == (5, 5)
    assert np.abs(local).max() <= 5.0
    empty = reports.replace(local_mask=reports.local_mask.at[1].set(False))
    local = np.asarray(objective.similarity_parts(model, images, empty)[1])
    assert np.all(local[:, 1] == 0) and np.all(local[:, 0] != 0)


def test_after_training_the_own_image_beats_anothers():
    """Each report names the corner of its image that is bright."""
    objective, (graph, params, rest) = made()
    batch = tiny_batch(8)
    corners = np.zeros((8, SIDE, SIDE, 1), np.float32)
    for row in range(8):
        y, x = divmod(row % 4, 2)
        corners[row, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 1 + row // 4
    batch = batch.replace(image=jnp.asarray(corners))
    value_and_grad = term(objective, graph)
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)
    first = value_and_grad(params, rest, batch)[0]
    for _ in range(60):
        own, grads = value_and_grad(params, rest, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
    moved = batch.replace(image=jnp.roll(batch.image, 1, axis=0))
    assert own < 0.5 * first
    assert value_and_grad(params, rest, moved)[0] > own + 1


def test_weights_name_the_term_exactly_where_it_is():
    objective, _ = made()
    assert isinstance(objective, AlignsLocally)
    assert objective.local_terms("stage1") == ("local_image", "local_text", "sentence_region")
    with pytest.raises(ConfigError, match="sentence_region"):
        tiny_config(sentence_region=CONTRAST)
    with pytest.raises(ConfigError, match="sentence_region"):
        tiny_config(weights=WEIGHTS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stages_back", 2),
        ("attention_scale", 0.0),
        ("attention_scale", float("inf")),
        ("sentence_scale", 1e-40),  # 0 in float32
        ("contrast_scale", 1e39),  # infinite in float32
        ("contrast_scale", float("nan")),
        ("aggregate", "median"),
        ("chunk", 0),
        ("group", 0),
        ("group", 1),  # a loss of 0
        ("hidden_every", -1),
        ("hidden_share", 0.3),  # of no image
    ],
)
def test_bad_settings_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(CONTRAST, **{field: value})


def test_the_section_needs_a_weight_in_some_stage():
    untrained = {stage: {**terms, "sentence_region": 0.0} for stage, terms in WEIGHTS.items()}
    with pytest.raises(ConfigError, match="0 in every stage") as error:
        tiny_config(sentence_region=CONTRAST, weights=untrained)
    assert error.value.where == "sentence_region"
    tiny_config(sentence_region=CONTRAST, weights={**untrained, "stage3": WEIGHTS["stage3"]})


def test_hidden_squares_are_smaller_than_the_map_where_some_are_hidden():
    hiding = dataclasses.replace(CONTRAST, hidden_every=2, hidden_share=0.3, hidden_side=7)
    tiny_config(sentence_region=hiding, weights=WEIGHTS)
    hiding = dataclasses.replace(hiding, hidden_side=8)
    with pytest.raises(ConfigError, match="less than 8") as error:
        tiny_config(sentence_region=hiding, weights=WEIGHTS)
    assert error.value.where == "sentence_region.hidden_side"
    nothing = dataclasses.replace(hiding, hidden_every=0, hidden_share=0.0)
    tiny_config(sentence_region=nothing, weights=WEIGHTS)


def test_a_learned_scale_does_not_start_above_its_limit():
    with pytest.raises(ConfigError, match="at most 100"):
        dataclasses.replace(CONTRAST, attention_scale=200.0)
    dataclasses.replace(CONTRAST, attention_scale=200.0, learn_attention_scale=False)


def test_a_group_divides_the_pairs_of_a_step():
    config = tiny_config(sentence_region=dataclasses.replace(CONTRAST, group=4), weights=WEIGHTS)
    KINDS["prior"].check_rows(config, 8)
    with pytest.raises(ConfigError, match="divisor of 6") as error:
        KINDS["prior"].check_rows(config, 6)
    assert error.value.where == "sentence_region.group"


def trained(objective, params, rest, batch):
    """The terms of a training step, and the gradient of the contrast."""
    graph = nnx.split(objective.init(nnx.Rngs(0)), nnx.Param, ...)[0]

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        terms = objective.loss_terms(
            model, batch, stage="stage1", step=STEP, key=jax.random.key(0), train=True
        ).terms
        return terms["sentence_region"], terms

    options = {"xla_backend_optimization_level": 0}
    run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=options)
    (_, terms), grads = run(params, rest, batch)
    return terms, grads


@functools.cache
def step_of_four(**changes):
    """What `trained` gives of four pairs, with the same parameters whatever the changes."""
    _, (_, params, rest) = made()
    return trained(made(**changes)[0], params, rest, tiny_batch(4))


def check_same_step(found, expected):
    """Compares the contrast and its gradient; a bias before a normalisation has only rounding."""
    name = "sentence_region"
    np.testing.assert_allclose(found[0][name], expected[0][name], rtol=1e-4)
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * max(1e-3, np.abs(b).max()))


def test_copies_that_hide_nothing_change_nothing():
    """With a copy of every image the statistics of batch normalisation are the batch's own."""
    expected, _ = step_of_four()
    found, _ = step_of_four(hidden_every=1, hidden_share=1e-9)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)


def test_hidden_regions_change_their_own_term_and_teach_the_encoder():
    expected, _ = step_of_four()
    found, grads = step_of_four(hidden_every=2, hidden_share=0.5)
    assert abs(found["sentence_region"] - expected["sentence_region"]) > 1e-3
    assert np.isfinite(found["sentence_region"])
    assert any(np.any(grad) for grad in jax.tree.leaves(grads["image_encoder"]))


def test_a_stage_that_does_not_train_the_contrast_hides_nothing(monkeypatch):
    weights = {**WEIGHTS, "stage1": {**WEIGHTS["stage1"], "sentence_region": 0.0}}
    hiding = dataclasses.replace(CONTRAST, hidden_every=2, hidden_share=0.5)
    objective = PriorObjective(tiny_config(sentence_region=hiding, weights=weights))
    stages = []
    draw = hidden_regions.draw_visible

    def draws(stage):
        def one(*arguments, **options):
            stages.append(stage)
            return draw(*arguments, **options)

        return one

    _, (graph, params, rest) = made()
    for stage in ("stage1", "stage2"):
        monkeypatch.setattr(hidden_regions, "draw_visible", draws(stage))

        def terms(params, rest, batch, stage=stage):
            model = nnx.merge(graph, params, rest, copy=True)
            key = jax.random.key(0)
            return objective.loss_terms(
                model, batch, stage=stage, step=STEP, key=key, train=True
            ).terms

        jax.eval_shape(terms, params, rest, tiny_batch(4))
    assert stages == ["stage2"]


@pytest.mark.parametrize("form", ["ring", "group", "images"])
def test_every_form_of_the_contrast_leaves_hidden_regions_out(form):
    hidden = dict(hidden_every=2, hidden_share=0.5)
    changes = {
        "ring": dict(all_pairs=AllPairs(config=AllPairsConfig(form="ring", chunk=2), axis=None)),
        "group": dict(group=4),
        "images": dict(all_pairs=dataclasses.replace(PLAIN, walk="images")),
    }[form]
    check_same_step(step_of_four(**hidden, **changes), step_of_four(**hidden))


@pytest.mark.multidevice
def test_sharding_the_batch_changes_nothing_with_hidden_regions():
    batch = tiny_batch(16)
    objective, (_, params, rest) = made(hidden_every=2, hidden_share=0.3)
    expected = trained(objective, params, rest, batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(batch, NamedSharding(mesh, P("data")))
        held = jax.device_put((params, rest), NamedSharding(mesh, P()))
        found = trained(objective, *held, placed)
    check_same_step(found, expected)


def test_coordinates_tell_every_place_and_nothing_else():
    place = np.asarray(coordinates_of((6, 4)))
    assert place.shape == (24, COORDINATES)
    rows, columns = place[::4], place[:4]
    assert np.all(np.diff(rows[:, 0]) > 0) and np.ptp(columns[:, 0]) == 0
    assert np.all(np.diff(columns[:, 2]) > 0) and np.ptp(rows[:, 2]) == 0
    np.testing.assert_allclose(place[:, 0::2] ** 2 + place[:, 1::2] ** 2, 1, rtol=1e-5)
    np.testing.assert_allclose(place[::-1, 0], -place[:, 0], atol=1e-6)


def test_regions_with_coordinates_know_their_place_in_an_image_without_content():
    flat = jnp.zeros((1, SIDE, SIDE, 1))
    for coordinates in (False, True):
        objective, (graph, params, rest) = made(coordinates=coordinates)
        local = objective.encode_image(nnx.merge(graph, params, rest), flat).local[0]
        inner = local.reshape(8, 8, -1)[3:5, 3:5].reshape(4, -1)
        assert (np.ptp(inner, axis=0).max() > 1e-3) == coordinates


def test_hidden_regions_divide_the_pairs_of_a_step():
    contrast = dataclasses.replace(CONTRAST, hidden_every=4, hidden_share=0.3)
    config = tiny_config(sentence_region=contrast, weights=WEIGHTS)
    KINDS["prior"].check_rows(config, 8)
    with pytest.raises(ConfigError, match="divisor of 6") as error:
        KINDS["prior"].check_rows(config, 6)
    assert error.value.where == "sentence_region.hidden_every"
