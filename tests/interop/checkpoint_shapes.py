"""Tiny state dicts with the names and shapes of every checkpoint that can be imported."""

import re

import jax
import numpy as np
from flax import nnx

from prior_jax.interop.sources.accounting import summary
from prior_jax.interop.sources.plans import Unseen
from prior_jax.interop.sources.prior_names import prior_table
from prior_jax.interop.torch.names import to_torch
from prior_jax.objectives.prior_model import PriorModel
from tests.objectives.tiny import tiny_config

WIDTH, HIDDEN, INNER, WORDS, PLACES = 4, 16, 24, 11, 8
HEADS = Unseen(heads=2)


def norm(name, size, *, statistics=True):
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)
    if statistics:
        yield f"{name}.running_mean", (size,)
        yield f"{name}.running_var", (size,)
        yield f"{name}.num_batches_tracked", ()


def linear(name, outputs, inputs):
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def resnet(*, depths=(1, 2), channels=3, stem=("conv1", "bn1"), stages=("layer1", "layer2")):
    """Names and shapes of a ResNet of basic blocks."""
    yield f"{stem[0]}.weight", (WIDTH, channels, 7, 7)
    yield from norm(stem[1], WIDTH)
    inputs = WIDTH
    for number, depth in enumerate(depths):
        width = WIDTH * 2**number
        for block in range(depth):
            name = f"{stages[number]}.{block}"
            for i in (1, 2):
                yield f"{name}.conv{i}.weight", (width, inputs if i == 1 else width, 3, 3)
                yield from norm(f"{name}.bn{i}", width)
            if inputs != width:
                yield f"{name}.downsample.0.weight", (width, inputs, 1, 1)
                yield from norm(f"{name}.downsample.1", width)
            inputs = width


def attention_pool(features, grid):
    yield "positional_embedding", (grid * grid + 1, features)
    for name in ("k_proj", "q_proj", "v_proj", "c_proj"):
        yield from linear(name, features, features)


def bert(*, layers=2, pooler=True, words=WORDS):
    yield "embeddings.position_ids", (1, PLACES)
    yield "embeddings.word_embeddings.weight", (words, HIDDEN)
    yield "embeddings.position_embeddings.weight", (PLACES, HIDDEN)
    yield "embeddings.token_type_embeddings.weight", (2, HIDDEN)
    yield from norm("embeddings.LayerNorm", HIDDEN, statistics=False)
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from linear(f"{name}.attention.{part}", HIDDEN, HIDDEN)
        yield from norm(f"{name}.attention.output.LayerNorm", HIDDEN, statistics=False)
        yield from linear(f"{name}.intermediate.dense", INNER, HIDDEN)
        yield from linear(f"{name}.output.dense", HIDDEN, INNER)
        yield from norm(f"{name}.output.LayerNorm", HIDDEN, statistics=False)
    if pooler:
        yield from linear("pooler.dense", HIDDEN, HIDDEN)


def med():
    """Names and shapes of MGCA's BERT: with cross-attention, without token types and pooler.

    Source: MGCA's release, mgca/models/backbones/med.py and mgca/configs/bert_config.json.
    """
    for name, shape in bert(pooler=False):
        if "token_type" not in name:
            yield name, shape
        if ".attention." in name:
            yield name.replace(".attention.", ".crossattention."), shape


def filled(shapes, prefix="", *, seed=0):
    """Random numbers; integers where torch has them."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes:
        if name.endswith("num_batches_tracked"):
            tensors[prefix + name] = np.array(7, np.int64)
        elif name.endswith("position_ids"):
            tensors[prefix + name] = np.arange(shape[1], dtype=np.int64)[None]
        else:
            tensors[prefix + name] = random.normal(size=shape).astype(np.float32)
    return tensors


def gloria(prefix="gloria."):
    features = 2 * WIDTH
    return {
        **filled(resnet(), f"{prefix}img_encoder.model."),
        **filled(linear("global_embedder", HIDDEN, features), f"{prefix}img_encoder."),
        **filled([("local_embedder.weight", (HIDDEN, WIDTH, 1, 1))], f"{prefix}img_encoder."),
        **filled(bert(), f"{prefix}text_encoder.model."),
    }


def mgca():
    towers = {
        **filled(resnet(), "img_encoder_q.model."),
        **filled(med(), "text_encoder_q.model."),
    }
    heads = filled(
        [("img_encoder_q.global_embed.head.0.weight", (3, 8)), ("prototype_layer.weight", (5, 3)),
         ("text_encoder_q.local_embed.head.1.num_batches_tracked", ()),
         ("word_local_atten_layer.in_proj_weight", (9, 3))]
    )  # fmt: skip
    return {**towers, **heads}


def prior():
    """A whole checkpoint of PRIOR, by the table of its names."""
    config = tiny_config(fidelity="release")
    model = nnx.eval_shape(lambda: PriorModel(config, bank_axis=None, rngs=nnx.Rngs(0)))
    state = nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    named = to_torch(zeros, prior_table(config))
    return filled(
        [(name, array.shape) for name, array in named.items()]
        + list(linear("global_text_projection", config.embed_dim, config.text.hidden_size))
        + [("sentence_decoder.embeddings.word_embeddings.weight", (30, config.embed_dim)),
           ("image_encoder.encoder.bn1.num_batches_tracked", ())]
    )  # fmt: skip


PRIOR_HEADS = Unseen(heads=2, decoder_heads=2, pool_heads=2)


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def counts(imported):
    found = [int(n) for n in re.findall(r"\d+", summary(imported.rows))]
    assert found[0] == sum(found[1:])
    return found


CHECKPOINTS = {
    "prior_resnet50.pt, flat": (
        "prior", {"part": "image"},
        lambda: {**filled(resnet(channels=1)), **filled(attention_pool(8, 2), "atten_pool.")},
    ),
    "prior_resnet50.pt, nested": (
        "prior", {},
        lambda: {
            **filled(resnet(channels=1), "encoder."),
            **filled(attention_pool(8, 2), "atten_pool."),
        },
    ),
    "prior_resnet50.pt without pool": ("prior", {}, lambda: filled(resnet(channels=1))),
    "gloria": ("gloria", {"unseen": HEADS}, gloria),
    "gloria, prefix gone": ("gloria", {"unseen": HEADS}, lambda: gloria("")),
    "convirt numbered": (
        "convirt", {},
        lambda: filled(resnet(stem=("0", "1"), stages=("4", "5")), "visual.model."),
    ),
    "convirt named": ("convirt", {}, lambda: filled(resnet(), "visual.model.")),
    "convirt text": (
        "convirt", {"unseen": HEADS, "part": "text"}, lambda: filled(bert(), "linguistic.encoder."),
    ),
    "MGCA's convirt text": (
        "convirt", {"unseen": HEADS, "part": "text"}, lambda: filled(med(), "text_encoder.model."),
    ),
    "torchvision": (
        "torchvision", {},
        lambda: {**filled(resnet()), **filled(linear("fc", 10, 8))},
    ),
    "timm in DataParallel": (
        "timm", {}, lambda: filled(resnet(depths=(2, 1)), "module."),
    ),
}  # fmt: skip
