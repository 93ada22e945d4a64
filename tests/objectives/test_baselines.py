import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.errors import ConfigError
from prior_jax.losses.normalize import unit
from prior_jax.losses.sentence_region import local_contrast, spatial_positiveness
from prior_jax.losses.token_wise import token_context
from prior_jax.objectives.base import ShowsAttention, weighted_sum
from prior_jax.objectives.clip import ClipConfig, ClipObjective
from prior_jax.objectives.convirt import ConvirtConfig, ConvirtObjective
from prior_jax.objectives.lovt import LovtConfig, LovtObjective
from prior_jax.objectives.mgca import MgcaConfig, MgcaObjective
from prior_jax.objectives.siglip import SiglipConfig, SiglipObjective
from prior_jax.vocabulary import Vocabulary
from tests.nn.small import filled
from tests.objectives.tiny import SIDE, tiny_batch, tiny_config

CLS, SEP, SIZE = 28, 29, 30
VOCABULARY = Vocabulary(
    size=SIZE,
    pad=0,
    cls=CLS,
    sep=SEP,
    starts_word=np.arange(SIZE) % 3 != 0,
    bracketed=np.isin(np.arange(SIZE), (0, CLS, SEP)),
)
STEP = jnp.zeros((), jnp.int32)
STAGE = "pretrain"
LOVT_WEIGHTS = {"global_alignment": 1.0, "local_image": 0.75, "local_text": 0.5}
MGCA_WEIGHTS = {
    "global_alignment": 2.0,
    "token_image": 0.7,
    "token_text": 0.6,
    "prototype": 0.5,
}
KINDS = {
    "convirt": (ConvirtObjective, ConvirtConfig, {"text_pool": "max", "image_share": 0.75}),
    "clip": (ClipObjective, ClipConfig, {"text_pool": "first", "hidden_dim": None}),
    "siglip": (SiglipObjective, SiglipConfig, {"text_pool": "mean", "bias": -10.0}),
    "lovt": (
        LovtObjective,
        LovtConfig,
        {
            "pool_heads": 2,
            "local_temperature": 0.3,
            "image_share": 0.75,
            "positive_distance": 0.5,
            "positive_decay": 1.0,
            "weights": LOVT_WEIGHTS,
        },
    ),
    "mgca": (
        MgcaObjective,
        MgcaConfig,
        {
            "text_pool": "first",
            "local_temperature": 0.2,
            "num_prototypes": 6,
            "prototype_temperature": 0.2,
            "sinkhorn_epsilon": 0.05,
            "sinkhorn_iterations": 3,
            "weights": MGCA_WEIGHTS,
        },
    ),
}


def config_of(kind, **changes):
    shared = tiny_config()
    image = dataclasses.replace(shared.image, pool="mean")
    sections = {"dtype": "float32", "image": image, "text": shared.text}
    sizes = {"hidden_dim": 12, "embed_dim": 8, "temperature": 0.2}
    _, settings, own = KINDS[kind]
    return settings(**{**sections, **sizes, **own, **changes})


@functools.cache
def made(kind, **changes):
    """The objective and (graph, parameters, rest) of a model, as pure trees."""
    objective = KINDS[kind][0](config_of(kind, **changes), vocabulary=VOCABULARY)
    model = filled(lambda: objective.init(nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return objective, (graph, nnx.as_pure(params), nnx.as_pure(rest))


def batch_of(rows=6, **options):
    """Reports with [CLS] and [SEP] in their places."""
    batch = tiny_batch(rows, **options)
    tokens = np.where(batch.token_mask, np.asarray(batch.tokens) % 27 + 1, 0)
    tokens[:, :2] = CLS, 1  # a word begins behind [CLS]
    tokens[np.arange(len(tokens)), np.asarray(batch.token_mask).sum(1) - 1] = SEP
    return batch.replace(tokens=jnp.asarray(tokens))


@functools.cache
def step_of(kind, *, train=False, **changes):
    """A jitted (batch) -> (total, (terms, metrics)), gradients."""
    objective, (graph, params, rest) = made(kind, **changes)

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(
            model, batch, stage=STAGE, step=STEP, key=jax.random.key(0), train=train
        )
        total = weighted_sum(found.terms, objective.weights(STAGE))
        return total, (dict(found.terms), dict(found.metrics))

    # Nearly all the time goes into compiling: spend less of it.
    step = jax.jit(
        jax.value_and_grad(loss, has_aux=True),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return functools.partial(step, params, rest)


@functools.cache
def ran(kind, **changes):
    return step_of(kind, **changes)(batch_of(6, fill=2))


@functools.cache
def encoded(kind):
    objective, (graph, params, rest) = made(kind)
    batch = batch_of(6, fill=2)

    @jax.jit
    def encode(params, rest):
        model = nnx.merge(graph, params, rest, copy=True)
        images = objective.encode_image(model, batch.image)
        reports = objective.encode_report(
            model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
        )
        attention = None
        if isinstance(objective, ShowsAttention):
            attention = objective.text_attention(model, images, reports)
        return images, reports, objective.similarity(model, images, reports), attention

    return objective, *encode(params, rest)


def paths(tree):
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield tuple(str(part.key) for part in path), np.asarray(leaf)


@pytest.mark.parametrize("kind", KINDS)
def test_each_objective_has_its_terms_and_their_weighted_sum(kind):
    (total, (terms, metrics)), _ = ran(kind)
    weights = made(kind)[0].weights(STAGE)
    assert set(terms) == set(weights) >= {"global_alignment"}
    expected = sum(weights[name] * float(value) for name, value in terms.items())
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert all(value.dtype == jnp.float32 and float(value) > 0 for value in terms.values())
    assert float(metrics["logit_scale"]) > 0


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


@pytest.mark.parametrize("kind", KINDS)
def test_similarity_is_the_scaled_cosine_of_whole_pairs(kind):
    objective, images, reports, similarity, _ = encoded(kind)
    assert images.pooled.shape == (8, objective.config.image.resnet.features)
    assert images.global_.shape == reports.global_.shape == (8, 8)
    scale = ran(kind)[0][1][1]["logit_scale"]
    bias = ran(kind)[0][1][1].get("logit_bias", jnp.zeros((), jnp.float32))
    expected = scale * unit(images.global_) @ unit(reports.global_).T + bias
    np.testing.assert_allclose(similarity, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["convirt", "clip", "siglip"])
def test_whole_pairs_have_nothing_local(kind):
    objective, images, reports, _, _ = encoded(kind)
    assert images.local.shape == reports.local.shape == (8, 0, 8)
    assert reports.local_mask.shape == (8, 0)
    assert not isinstance(objective, ShowsAttention)


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
        images, regions = model.weigh_image(batch.image, train=False)
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
        images = model.encode_image(batch.image, train=False)
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
        ("siglip", "temperature", -1.0),
        ("convirt", "temperature", 0.0),
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


def test_lovt_pools_regions_itself():
    image = dataclasses.replace(config_of("lovt").image, pool="attention")
    with pytest.raises(ConfigError, match=r"^image\.pool: .*mean"):
        config_of("lovt", image=image)
