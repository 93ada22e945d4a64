"""What the baselines compare: whole pairs, and the places that words and sentences look at."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.losses.sentence_region import local_contrast, spatial_positiveness
from prior_jax.losses.token_wise import token_context
from prior_jax.objectives.base import EmbedsPatches, ShowsAttention, weighted_sum
from prior_jax.objectives.lovt import LovtObjective
from tests.nn.small import filled
from tests.objectives.baselines import (
    KINDS,
    LOVT_WEIGHTS,
    SEP,
    STAGE,
    STEP,
    VOCABULARY,
    batch_of,
    config_of,
    encoded,
    made,
    ran,
)
from tests.objectives.tiny import SIDE


@pytest.mark.parametrize("kind", KINDS)
def test_similarity_is_the_scaled_cosine_of_whole_pairs(kind):
    objective, images, reports, similarity, _ = encoded(kind)
    assert images.pooled.shape == (8, objective.config.image.resnet.features)
    assert images.global_.shape == reports.global_.shape == (8, 8)
    metrics = ran(kind)[0][1][1]
    scale, bias = metrics.get("logit_scale", 1.0), metrics.get("logit_bias", jnp.float32(0))
    x, y = (objective.compared(features.global_) for features in (images, reports))
    if objective.unit_length:
        np.testing.assert_allclose(jnp.linalg.norm(x, axis=1), 1, rtol=1e-5)
    expected = scale * x @ y.T + bias
    np.testing.assert_allclose(similarity, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["convirt", "clip", "siglip"])
def test_whole_pairs_have_nothing_local(kind):
    objective, images, reports, _, _ = encoded(kind)
    assert images.local.shape == reports.local.shape == (8, 0, 8)
    assert reports.local_mask.shape == (8, 0)
    assert not isinstance(objective, ShowsAttention)


@pytest.mark.parametrize("pool", ["mean", "attention"])
@pytest.mark.parametrize("kind", ["convirt", "clip", "siglip"])
def test_a_map_of_one_patch_is_embedded_as_the_whole_image(kind, pool):
    config = config_of(kind)
    encoder = dataclasses.replace(config.image, pool=pool, image_size=config.image.resnet.stride)
    objective = KINDS[kind][0](dataclasses.replace(config, image=encoder), vocabulary=VOCABULARY)
    model = filled(lambda: objective.init(nnx.Rngs(0)))
    if pool == "attention":  # the mean, which is the query, and the only patch have no place
        positions = model.image_encoder.pool.position_embedding
        positions[...] = jnp.zeros_like(positions[...])
    side = encoder.image_size
    image = jax.random.normal(jax.random.key(1), (3, side, side, config.image.resnet.in_channels))
    patches = objective.embed_patches(model, image)
    assert patches.shape == (3, 1, 8)
    whole = objective.encode_image(model, image).global_
    np.testing.assert_allclose(patches[:, 0], whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["lovt", "mgca"])
def test_patches_that_no_report_is_compared_with_are_not_offered(kind):
    assert not isinstance(made(kind)[0], EmbedsPatches)


@pytest.mark.parametrize(("kind", "unit_name"), [("lovt", "sentence"), ("mgca", "word")])
def test_sentences_and_words_look_at_places(kind, unit_name):
    objective, images, reports, _, attention = encoded(kind)
    assert objective.text_unit == unit_name
    mask = np.asarray(reports.local_mask)
    assert (
        attention.shape == (*mask.shape, (SIDE // 8) ** 2) == (*mask.shape, images.local.shape[1])
    )
    np.testing.assert_allclose(np.asarray(attention).sum(2), mask, rtol=1e-5)
    assert not np.any(np.asarray(reports.local)[~mask])


def test_words_are_counted_from_cls_and_end_before_sep():
    _, _, reports, _, _ = encoded("mgca")
    batch = batch_of(6, fill=2)
    for tokens, mask in zip(np.asarray(batch.tokens), np.asarray(reports.local_mask), strict=True):
        inside = tokens[1 : list(tokens).index(SEP)]
        words = int(VOCABULARY.starts_word[inside].sum())
        np.testing.assert_array_equal(np.flatnonzero(mask), 1 + np.arange(words))


def local_losses(kind, parts):
    """`parts(objective, model, batch)`: term -> arguments of `local_contrast`; forward alone."""
    objective, (graph, params, rest) = made(kind)
    batch = batch_of(6, fill=2)
    scale = jnp.float32(1 / objective.config.local_temperature)

    @jax.jit
    def run(params, rest):
        found = parts(objective, nnx.merge(graph, params, rest, copy=True), batch)
        return {
            name: local_contrast(*pair, scale=scale, weight=batch.weight, **options)
            for name, (pair, options) in found.items()
        }

    return run(params, rest)


def test_regions_and_sentences_count_by_their_share_and_regions_have_neighbours():
    def parts(objective, model, batch):
        (images, regions), _ = model.weigh_image(batch.image, train=False)
        reports, sentences = model.weigh_report(
            batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask, train=False
        )
        context = model.attend(images, reports)
        near = spatial_positiveness(objective.config.image.grid, threshold=0.5, decay=1.0)
        every = jnp.ones(regions.shape, bool)
        image, text = (images.local, context.image), (reports.local, context.text)
        mask = {"mask": reports.local_mask}
        return {
            "local_image": (
                image,
                {"mask": every, "row_weight": regions, "positiveness": near},
            ),
            "alike": (
                image,
                {"mask": every, "row_weight": 0 * regions + 1, "positiveness": near},
            ),
            "alone": (image, {"mask": every, "row_weight": regions}),
            "local_text": (text, {**mask, "row_weight": sentences}),
            "alike_text": (text, {**mask, "row_weight": 0 * sentences + 1}),
        }

    found, terms = local_losses("lovt", parts), ran("lovt")[0][1][0]
    for name, others in (("local_image", ("alike", "alone")), ("local_text", ("alike_text",))):
        np.testing.assert_allclose(terms[name], found[name], rtol=1e-4)
        for other in others:
            assert not np.isclose(terms[name], found[other], rtol=1e-3), other


def test_words_count_by_what_cls_takes_of_them():
    def parts(objective, model, batch):
        images, _ = model.encode_regions(batch.image, train=False)
        words = model.encode_words(
            batch.tokens, batch.token_mask, vocabulary=VOCABULARY, train=False
        )
        every = jnp.ones(images.local.shape[:2], bool)
        local, mask = words.report.local, words.report.local_mask
        context = token_context(local, images.local, key_mask=every, scale=jnp.float32(5))
        return {
            "token_text": ((local, context), {"mask": mask, "row_weight": words.share}),
            "alike": ((local, context), {"mask": mask, "row_weight": 0 * words.share + 1}),
        }

    found, terms = local_losses("mgca", parts), ran("mgca")[0][1][0]
    np.testing.assert_allclose(terms["token_text"], found["token_text"], rtol=1e-4)
    assert not np.isclose(terms["token_text"], found["alike"], rtol=1e-3)


def test_weights_of_regions_and_sentences_get_no_gradient():
    weights = {**LOVT_WEIGHTS, "global_alignment": 0.0}
    objective, (graph, params, rest) = made("lovt")
    local = LovtObjective(
        dataclasses.replace(objective.config, weights=weights), vocabulary=VOCABULARY
    )

    batch = batch_of(6)

    def loss(pools):
        model = nnx.merge(graph, {**params, **pools}, rest, copy=True)
        found = local.loss_terms(model, batch, stage=STAGE, step=STEP, key=None, train=False)
        return weighted_sum(found.terms, local.weights(STAGE))

    grads = jax.jit(jax.grad(loss))({name: params[name] for name in ("image_pool", "text_pool")})
    assert not any(np.any(grad) for grad in jax.tree.leaves(grads))
