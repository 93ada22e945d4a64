"""Tiny models of the baselines, and what they compute."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.objectives.base import ShowsAttention, weighted_sum
from prior_jax.objectives.clip import ClipConfig, ClipObjective
from prior_jax.objectives.convirt import ConvirtConfig, ConvirtObjective
from prior_jax.objectives.lovt import LovtConfig, LovtObjective
from prior_jax.objectives.mgca import MgcaConfig, MgcaObjective
from prior_jax.objectives.siglip import SiglipConfig, SiglipObjective
from prior_jax.vocabulary import Vocabulary
from tests.nn.small import filled
from tests.objectives.tiny import tiny_batch, tiny_config

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
    fields = {field.name for field in dataclasses.fields(settings)}
    sizes = {name: value for name, value in sizes.items() if name in fields}
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
def training_step(kind):
    """A jitted (batch) -> terms, all that is no parameter and that the step changes."""
    objective, (graph, params, rest) = made(kind)

    def step(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(
            model, batch, stage=STAGE, step=STEP, key=jax.random.key(0), train=True
        )
        return dict(found.terms), nnx.as_pure(nnx.split(model, nnx.Param, ...)[2])

    step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})
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
