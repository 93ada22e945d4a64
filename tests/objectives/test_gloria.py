import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.errors import ConfigError, DataError
from prior_jax.nn.region_encoder import RegionEncoderConfig
from prior_jax.objectives import gloria_inference
from prior_jax.objectives.base import ShowsAttention, weighted_sum
from prior_jax.objectives.gloria import GloriaObjective
from prior_jax.objectives.gloria_config import FIDELITY, RELEASE_WEIGHTS, TERMS, GloriaConfig
from prior_jax.vocabulary import Vocabulary
from tests.nn.small import filled
from tests.objectives import tiny

STEP = jnp.zeros((), jnp.int32)
# The recorded numbers hold the release's mode to account every day.
FIDELITIES = ["paper", pytest.param("release", marks=pytest.mark.slow)]
# Of the 30 tokens, the upper third continues words.
VOCABULARY = Vocabulary(
    size=30,
    pad=0,
    cls=2,
    sep=3,
    starts_word=np.arange(30) < 20,
    bracketed=np.arange(30) < 4,
)


def config_of(**changes) -> GloriaConfig:
    prior = tiny.tiny_config()
    config = GloriaConfig(
        fidelity="paper",
        dtype="float32",
        image=RegionEncoderConfig(resnet=prior.image.resnet, image_size=tiny.SIDE, upsample=None),
        text=prior.text,
        last_layers=2,
        layer_pool="sum",
        whole_words=True,
        unit_text=False,
        unit_regions=False,
        attention_scale=4.0,
        word_scale=5.0,
        contrast_scale=10.0,
        caption_chunk=16,
        weights=RELEASE_WEIGHTS,
    )
    return dataclasses.replace(config, **changes)


def batch_of(rows=8, **options):
    """`tiny.tiny_batch` with [CLS] before and [SEP] behind every report."""
    batch = tiny.tiny_batch(rows, **options)
    tokens = jnp.where(batch.tokens > 0, jnp.maximum(batch.tokens, 4), batch.tokens)
    count = jnp.sum(batch.token_mask, axis=1, dtype=jnp.int32)
    tokens = tokens.at[:, 0].set(2)
    tokens = tokens.at[jnp.arange(len(tokens)), count - 1].set(3)
    return batch.replace(tokens=tokens)


@functools.cache
def made(**changes):
    objective = GloriaObjective(config_of(**changes), vocabulary=VOCABULARY)
    graph, params, rest = nnx.split(filled(lambda: objective.init(nnx.Rngs(0))), nnx.Param, ...)
    return objective, (graph, nnx.as_pure(params), nnx.as_pure(rest))


def step_of(objective, graph, *, train):
    def loss(params, rest, batch, key):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(
            model, batch, stage="pretrain", step=STEP, key=key, train=train
        )
        return weighted_sum(found.terms, objective.weights("pretrain")), dict(found.terms)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@functools.cache
def compiled(*, train=True, **changes):
    objective, (graph, params, rest) = made(**changes)
    return functools.partial(step_of(objective, graph, train=train), params, rest)


@functools.cache
def ran(**changes):
    return compiled(**changes)(batch_of(), jax.random.key(0))


def assert_near(actual, expected):
    """By their norms: the signs of a few pixels' ReLUs are rounding's."""
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        error = np.linalg.norm(np.asarray(ours) - np.asarray(theirs))
        assert error <= 2e-3 * max(0.01, float(np.linalg.norm(theirs)))


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_terms_are_summed_with_their_weights(fidelity):
    (total, terms), grads = ran(fidelity=fidelity)
    assert set(terms) == set(TERMS) == set(made()[0].weights("pretrain"))
    np.testing.assert_allclose(total, sum(float(value) for value in terms.values()), rtol=1e-5)
    assert all(value.dtype == jnp.float32 and np.isfinite(value) for value in terms.values())
    assert all(np.all(np.isfinite(grad)) for grad in jax.tree.leaves(grads))


def test_exactly_the_trainable_parameters_get_a_gradient():
    _, grads = ran(fidelity="paper")
    objective, _ = made()
    idle = set()
    for path, grad in nnx.to_flat_state(grads):
        if not objective.trainable("pretrain", path):
            idle.add(path[:2])
            assert not np.any(grad), path
        elif path[-2:] != ("key", "bias") and "position_embedding" not in path:
            assert np.any(grad), path
    assert idle == {("text_encoder", "pooler")}


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_padded_rows_and_words_change_neither_value_nor_gradient(fidelity):
    # Batch norm sees every row of a batch, real or not: compare with its running statistics.
    step = compiled(train=False, fidelity=fidelity)
    (total, terms), grads = step(batch_of(5), None)
    (other, other_terms), other_grads = step(batch_of(5, tokens=30, fill=3), None)
    for name, value in terms.items():
        np.testing.assert_allclose(other_terms[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(other, total, rtol=1e-5)
    assert_near(other_grads, grads)


def test_a_caption_without_a_word_counts_in_no_term():
    step = compiled(train=False, fidelity="paper")
    batch = batch_of(5, tokens=30, fill=3)
    tokens = batch.tokens.at[5:, 1:].set(0).at[5:, 1].set(3)
    empty = batch.replace(tokens=tokens, token_mask=tokens > 0, weight=jnp.ones((8,), jnp.float32))
    (total, _), _ = step(batch, None)
    (other, _), _ = step(empty, None)
    np.testing.assert_allclose(other, total, rtol=1e-5)


@pytest.mark.multidevice
def test_sharding_the_batch_does_not_change_the_loss():
    (total, terms), grads = ran(fidelity="paper")
    objective, (graph, params, rest) = made(fidelity="paper")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    with jax.set_mesh(mesh):
        (other, other_terms), other_grads = jax.block_until_ready(
            step_of(objective, graph, train=True)(
                *jax.device_put((params, rest), whole),
                jax.device_put(batch_of(), split),
                jax.device_put(jax.random.key(0), whole),
            )
        )
    np.testing.assert_allclose(other, total, rtol=1e-4)
    for name, value in terms.items():
        np.testing.assert_allclose(other_terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert_near(other_grads, grads)


@functools.cache
def features(fidelity="paper", **changes):
    objective, (graph, params, rest) = made(fidelity=fidelity, **changes)
    batch = batch_of(5)

    @jax.jit
    def encode(params, rest, batch):
        model = nnx.merge(graph, params, rest)
        images = objective.encode_image(model, batch.image)
        reports = objective.encode_report(
            model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
        )
        scores = objective.similarity(model, images, reports)
        return images, reports, scores, objective.text_attention(model, images, reports)

    return objective, *encode(params, rest, batch)


def compiled_with(function, objective):
    """A score of images and reports, compiled: by itself it would run a hundred small programs."""
    return jax.jit(functools.partial(function, config=objective.config))


def take(tree, rows):
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def test_similarity_does_not_depend_on_what_else_is_compared():
    objective, images, reports, whole, _ = features()
    assert whole.shape == (5, 5)
    assert whole.dtype == jnp.float32
    assert np.all(np.abs(whole) <= 1)
    score = compiled_with(gloria_inference.similarity, objective)
    alone = score(take(images, slice(1, 2)), take(reports, slice(2, 4)))
    np.testing.assert_allclose(alone, whole[1:2, 2:4], rtol=1e-4, atol=1e-5)


def test_padded_words_do_not_change_similarity_in_the_papers_mode():
    objective, images, reports, whole, _ = features()
    grown = reports.replace(
        local=jnp.pad(reports.local, ((0, 0), (0, 3), (0, 0)), constant_values=5.0),
        local_mask=jnp.pad(reports.local_mask, ((0, 0), (0, 3))),
    )
    score = compiled_with(gloria_inference.similarity, objective)
    np.testing.assert_allclose(score(images, grown), whole, rtol=1e-4)


@pytest.mark.parametrize(("fidelity", "grows"), [("paper", False), ("release", True)])
def test_a_caption_said_twice_scores_higher_in_the_releases_mode_only(fidelity, grows):
    objective, images, reports, _, _ = features(fidelity)
    twice = reports.replace(
        local=jnp.concatenate([reports.local, reports.local], axis=1),
        local_mask=jnp.concatenate([reports.local_mask, reports.local_mask], axis=1),
    )
    score = compiled_with(gloria_inference.retrieval_scores, objective)
    once, both = (np.asarray(score(images, r).local) for r in (reports, twice))
    if grows:
        assert np.all(both > once + 1)
    else:
        np.testing.assert_allclose(both, once, rtol=1e-4)


def test_the_papers_local_similarity_is_that_of_training_without_its_scales():
    objective, images, reports, _, _ = features()
    trained = compiled_with(gloria_inference.retrieval_scores, objective)(images, reports).local
    found = compiled_with(gloria_inference.pair_scores, objective)(images, reports).local
    scales = objective.config.contrast_scale * objective.config.word_scale
    np.testing.assert_allclose(found, trained / scales, rtol=1e-5)


@pytest.mark.parametrize(("fidelity", "same"), [("paper", True), ("release", False)])
def test_a_report_is_the_mean_of_its_words_in_the_papers_mode(fidelity, same):
    _, _, reports, _, _ = features(fidelity)
    # Of these reports both modes compare the real words, without [CLS] and [SEP].
    count = np.asarray(reports.local_mask).sum(axis=1, keepdims=True)
    mean = np.asarray(reports.local).sum(axis=1) / count
    assert np.allclose(reports.global_, mean, atol=1e-4) == same


def test_kinds_of_similarity_are_the_global_the_local_and_their_mean():
    objective, images, reports, whole, _ = features("release")
    whole_score, parts = jax.jit(lambda *f: objective.similarity_parts(None, *f))(images, reports)
    found = {"global": whole_score, "local": parts, "both": (whole_score + parts) / 2}
    np.testing.assert_allclose(found["both"], whole, rtol=1e-5)
    # The best word's cosine, times 5.
    assert np.abs(found["local"]).max() > 1


def test_attention_of_real_words_is_a_distribution_over_regions():
    objective, _, reports, _, attention = features()
    assert isinstance(objective, ShowsAttention)
    assert objective.text_unit == "word"
    h, w = objective.config.image.grid
    mask = np.asarray(reports.local_mask)
    assert attention.shape == (*mask.shape, h * w)
    np.testing.assert_allclose(np.sum(attention, axis=2)[mask], 1, rtol=1e-5)
    assert not np.any(np.asarray(attention)[~mask])
    assert not np.any(mask[:, 0])


def test_prompts_are_counted_in_characters_and_refused_when_too_long():
    words = gloria_inference.prompt_words([" no [edema", "a"], length=12)
    np.testing.assert_array_equal(words.sum(1), [9, 1])
    assert not words[:, 0].any()
    with pytest.raises(DataError, match="12 characters"):
        gloria_inference.prompt_words(["abcdefghijkl"], length=12)


def test_other_layers_pools_and_pieces_give_finite_features():
    changes = {"layer_pool": "mean", "last_layers": 1, "whole_words": False, "unit_text": True}
    _, images, reports, scores, _ = features(**changes)
    for leaf in jax.tree.leaves((images, reports, scores)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    _, _, _, exact, _ = features()
    _, _, _, near, _ = features(dtype="bfloat16")
    assert near.dtype == jnp.float32
    np.testing.assert_allclose(near, exact, atol=0.05)


def test_an_unknown_stage_is_refused_by_name():
    objective, _ = made()
    for call in (objective.weights, lambda s: objective.trainable(s, ("text_encoder",))):
        with pytest.raises(ConfigError, match="stage1"):
            call("stage1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fidelity", "faithful"),
        ("dtype", "float16"),
        ("layer_pool", "max"),
        ("last_layers", 3),
        ("last_layers", 0),
        ("attention_scale", 0.0),
        ("word_scale", -1.0),
        ("contrast_scale", 0.0),
        ("caption_chunk", 0),
        ("attention_scale", float("inf")),
        ("local_group", 0),
        ("local_group", 1),  # a loss of 0
        ("weights", {"global_image_to_text": 1.0}),
    ],
)
def test_wrong_values_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        config_of(**{field: value})


def test_a_negative_weight_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"^weights\.local_text_to_image: The value is -1"):
        config_of(weights={**dict.fromkeys(TERMS, 1.0), "local_text_to_image": -1.0})


def test_the_two_fidelities_differ_in_every_choice():
    paper, release = FIDELITY["paper"], FIDELITY["release"]
    for field in dataclasses.fields(paper):
        assert getattr(paper, field.name) != getattr(release, field.name), field.name


def test_groups_change_the_local_terms_alone():
    (_, terms), _ = ran()
    (_, grouped), _ = compiled(local_group=4)(batch_of(), jax.random.key(0))
    for name in TERMS:
        same = np.isclose(terms[name], grouped[name], rtol=1e-5)
        assert same == name.startswith("global"), name
