import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.losses.normalize import unit
from prior_jax.objectives import prior_inference
from prior_jax.objectives.base import in_stage
from prior_jax.types import ImageFeatures
from tests.objectives.tiny import SIDE, tiny_batch, tiny_config, tiny_model


@functools.cache
def encoded(fidelity, rows=5):
    objective, (graph, params, rest) = tiny_model(tiny_config(fidelity=fidelity))
    model = nnx.merge(graph, params, rest)
    batch = tiny_batch(rows)

    @jax.jit
    def encode(params, rest, batch, key):
        model = nnx.merge(graph, params, rest, copy=True)
        reports = objective.encode_report(
            model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask,
            key=key,
        )  # fmt: skip
        return objective.encode_image(model, batch.image), reports

    return objective, model, batch, functools.partial(encode, params, rest, batch)


def features(fidelity="paper", key=None):
    objective, model, _, encode = encoded(fidelity)
    return (objective, model, *encode(key))


def take(tree, rows):
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def test_report_features_are_deterministic_in_the_papers_mode_only():
    for fidelity, same in (("paper", True), ("release", False)):
        _, _, _, first = features(fidelity, jax.random.key(0))
        _, _, _, second = features(fidelity, jax.random.key(1))
        assert np.array_equal(first.global_, second.global_) == same
        _, _, _, again = features(fidelity)
        np.testing.assert_array_equal(again.global_, features(fidelity)[3].global_)


def test_similarity_does_not_depend_on_what_else_is_compared():
    objective, model, images, reports = features()
    whole = objective.similarity(model, images, reports)
    assert whole.shape == (5, 5)
    assert whole.dtype == jnp.float32
    alone = objective.similarity(model, take(images, slice(1, 2)), take(reports, slice(2, 4)))
    np.testing.assert_allclose(alone, whole[1:2, 2:4], rtol=1e-5, atol=1e-5)


def test_blocks_do_not_change_similarity(monkeypatch):
    objective, model, images, reports = features()
    whole = objective.similarity(model, images, reports)
    monkeypatch.setattr(prior_inference, "_BLOCK", 2)
    np.testing.assert_allclose(objective.similarity(model, images, reports), whole, rtol=1e-5)


def test_padded_sentences_do_not_change_similarity():
    objective, model, images, reports = features()
    grown = reports.replace(
        local=jnp.pad(reports.local, ((0, 0), (0, 3), (0, 0)), constant_values=5.0),
        local_mask=jnp.pad(reports.local_mask, ((0, 0), (0, 3))),
    )
    np.testing.assert_allclose(
        objective.similarity(model, images, grown),
        objective.similarity(model, images, reports),
        rtol=1e-5,
    )


def test_similarity_is_the_global_logit_and_half_the_mean_attention():
    objective, model, images, reports = features()
    cosine = unit(images.global_) @ unit(reports.global_).T
    context = model.attend(images.local, reports.local, reports.local_mask)
    mask = np.asarray(reports.local_mask)
    diagonal = []
    for row in range(5):
        patches = np.asarray(context.image_attention)[row][:, mask[row]]
        words = np.asarray(context.text_attention)[row][mask[row]]
        diagonal.append((patches.mean() + words.mean()) / 2)
    expected = jnp.exp(model.logit_scale[...]) * jnp.diagonal(cosine) + 0.5 * np.array(
        diagonal, np.float32
    )
    actual = jnp.diagonal(objective.similarity(model, images, reports))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_releases_local_score_is_shared_by_the_batch():
    _, model, images, reports = features("release")
    scores = prior_inference.pair_scores(model, images, reports)
    assert np.ptp(np.asarray(scores.local), axis=0).max() == 0
    _, model, images, reports = features("paper")
    assert np.ptp(np.asarray(prior_inference.pair_scores(model, images, reports).local)) > 0


def test_zero_shot_takes_the_best_global_and_the_mean_local_prompt():
    scores = prior_inference.PairScores(
        global_=jnp.array([[1.0, 4.0, 2.0]], jnp.float32),
        local=jnp.array([[0.2, 0.4, 0.6]], jnp.float32),
    )
    classes = jnp.array([0, 0, 1], jnp.int32)
    found = prior_inference.zero_shot_probabilities(scores, classes, num_classes=2)
    best, local = np.exp([4.0, 2.0]), np.exp([0.3, 0.6])
    np.testing.assert_allclose(found[0], best / best.sum() + 0.5 * local / local.sum(), rtol=1e-5)
    np.testing.assert_allclose(found.sum(), 1.5, rtol=1e-6)


@pytest.mark.parametrize(("separator", "count"), [(False, 2), (True, 3)])
def test_a_prompts_sentence_is_its_words_and_in_the_release_its_separator(separator, count):
    mask = jnp.array([[True] * 4 + [False] * 3])
    index = prior_inference.prompt_sentence_index(mask, separator_in_prompt=separator)
    np.testing.assert_array_equal(index[0], [-1] + [0] * count + [-1] * (6 - count))


def test_attention_maps_cover_the_grid_and_leave_absent_sentences_out():
    objective, model, images, reports = features()
    maps = np.asarray(objective.text_attention(model, images, reports))
    assert maps.shape == (5, reports.local.shape[1], model.grid[0] * model.grid[1])
    mask = np.asarray(reports.local_mask)
    assert not np.any(maps[~mask])
    assert np.all((maps[mask] > 0) & (maps[mask] < 1))


def test_reconstructions_have_the_images_shape_and_change_no_state():
    objective, model, batch, _ = encoded("paper")
    before = jax.tree.map(jnp.copy, nnx.as_pure(nnx.state(model)))
    images = nnx.jit(objective.reconstruct)(model, batch)
    assert images.shape == batch.image.shape == (5, SIDE, SIDE, 1)
    assert np.all(np.isfinite(images))
    after = nnx.as_pure(nnx.state(model))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)


def test_sentences_can_be_kept_as_stage_1_aligns_them():
    objective, model, batch, _ = encoded("paper")
    arguments = batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
    kept = in_stage(objective, "stage1").encode_report(model, *arguments)
    sentences, _ = model.encode_sentences(*arguments, train=False)
    np.testing.assert_allclose(kept.local, sentences)
    later = in_stage(in_stage(objective, "stage1"), "stage3").encode_report(model, *arguments)
    expected = objective.encode_report(model, *arguments)
    np.testing.assert_array_equal(later.local, expected.local)
    assert np.abs(later.local - kept.local).max() > 1e-3
    assert isinstance(objective.encode_image(model, batch.image), ImageFeatures)
