"""The recorded GLoRIA, read from the shapes of its parameters."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.interop.sources.gloria_names import gloria_table
from prior_jax.interop.torch.module_tables import bert_table
from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.nn.region_encoder import RegionEncoderConfig
from prior_jax.nn.resnet import ResNetConfig
from prior_jax.objectives.gloria import GloriaObjective
from prior_jax.objectives.gloria_config import RELEASE_WEIGHTS, GloriaConfig
from prior_jax.types import Batch
from prior_jax.vocabulary import Vocabulary
from tests.golden.prior_model import count
from tests.golden.reader import load, load_json
from tests.torch_models import load_torch

TEXT, IMAGE = "text_encoder.model.", "img_encoder."
USUAL_HEADS = (4, 2, 8)  # tried first
UPSAMPLE = 299  # release, gloria/models/vision_model.py


def nhwc(array):
    return jnp.asarray(array.transpose(0, 2, 3, 1), jnp.float32)


def nchw(array):
    return np.asarray(array).transpose(0, 3, 1, 2)


def channels_last(words):
    """The release's [B, D, W] as our [B, W, D], and back."""
    return np.asarray(words).transpose(0, 2, 1)


def regions_map(regions, like):
    """Our [B, P, D] as the release's [B, D, h, w]."""
    return np.asarray(regions).transpose(0, 2, 1).reshape(like.shape)


def tokens_of(golden, prefix="in/"):
    """int32[B, L] ids and their mask."""
    mask = golden[f"{prefix}attention_mask"] > 0
    return jnp.asarray(golden[f"{prefix}caption_ids"], jnp.int32), jnp.asarray(mask)


def vocabulary_of(tokens) -> Vocabulary:
    """Of a vocabulary's tokens, in the order of their ids."""
    return Vocabulary(
        size=len(tokens),
        pad=tokens.index("[PAD]"),
        cls=tokens.index("[CLS]"),
        sep=tokens.index("[SEP]"),
        starts_word=np.array([not token.startswith("##") for token in tokens]),
        bracketed=np.array([token.startswith("[") for token in tokens]),
    )


def text_config(params, *, heads: int) -> BertConfig:
    """Of parameters named as the release's, with its prefix."""

    def shape(name):
        return tuple(params[TEXT + name].shape)

    vocab, hidden = shape("embeddings.word_embeddings.weight")
    return BertConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        layers=count(params, re.escape(TEXT) + r"encoder\.layer\.(\d+)"),
        heads=heads,
        intermediate_size=shape("encoder.layer.0.intermediate.dense.weight")[0],
        dropout=0.0,
        scan_layers=True,
        remat="none",
        max_positions=shape("embeddings.position_embeddings.weight")[0],
        token_types=shape("embeddings.token_type_embeddings.weight")[0],
        pad_token=0,
    )


def config_of(params, *, heads: int, image_size: int) -> GloriaConfig:
    """The configuration that fits recorded parameters."""
    stem = params[f"{IMAGE}model.conv1.weight"].shape
    depths = (count(params, rf"img_encoder\.model\.layer{stage}\.(\d+)") for stage in (1, 2, 3, 4))
    resnet = ResNetConfig(
        depths=tuple(depths), width=stem[0], in_channels=stem[1], block="bottleneck",
        stem_pool=True, remat="none",
    )  # fmt: skip
    return GloriaConfig(
        fidelity="release",
        dtype="float32",
        image=RegionEncoderConfig(resnet=resnet, image_size=image_size, upsample=UPSAMPLE),
        text=text_config(params, heads=heads),
        last_layers=4,
        layer_pool="sum",
        whole_words=True,
        unit_text=False,
        unit_regions=False,
        attention_scale=4.0,
        word_scale=5.0,
        contrast_scale=10.0,
        caption_chunk=8,
        weights=RELEASE_WEIGHTS,
    )


def zeros_of(create):
    """The module that `create()` makes, of zeros."""
    graph, shapes = nnx.split(nnx.eval_shape(create))
    zeros = jax.tree.map(
        lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), nnx.as_pure(shapes)
    )
    return nnx.merge(graph, zeros)


def model_of(params, config: GloriaConfig, vocabulary: Vocabulary):
    """The objective and its model with recorded parameters."""
    objective = GloriaObjective(config, vocabulary=vocabulary)
    model = zeros_of(lambda: objective.init(nnx.Rngs(0)))
    load_torch(model, params, gloria_table(config))
    return objective, model


@functools.cache
def recorded_heads(golden_dir) -> int:
    """The number of attention heads, which no file holds: the one that was computed with."""
    params = load(golden_dir, "gloria", "model_params").prefix("param/")
    golden = load(golden_dir, "gloria", "bert_encoder")
    tokens, mask = tokens_of(golden)
    text = {name[len(TEXT) :]: value for name, value in params.items() if name.startswith(TEXT)}
    width = text["pooler.dense.bias"].size
    divisors = [heads for heads in range(1, width + 1) if width % heads == 0]
    for heads in sorted(divisors, key=lambda heads: (heads not in USUAL_HEADS, heads)):
        config = text_config(params, heads=heads)
        model = zeros_of(lambda config=config: Bert(config, dtype="float32", rngs=nnx.Rngs(0)))
        load_torch(model, text, bert_table(config))
        run = nnx.jit(lambda model: model(tokens, mask, train=False).pooled)
        if np.allclose(run(model), golden["out/pooler"], atol=1e-4):
            return heads
    raise ValueError("no number of heads gives the recorded vectors")


class Recorded:
    """The recorded model in the release's fidelity, in float32 or, made inside, in float64."""

    def __init__(self, golden_dir, *, image_size: int, **changes):
        self.params = load(golden_dir, "gloria", "model_params").prefix("param/")
        self.vocab = load_json(golden_dir, "gloria", "aggregate_tokens")["vocab"]
        config = config_of(self.params, heads=recorded_heads(golden_dir), image_size=image_size)
        self.config = dataclasses.replace(config, **changes)
        self.table = gloria_table(self.config)
        vocabulary = vocabulary_of(self.vocab)
        self.objective, self.model = model_of(self.params, self.config, vocabulary)


def batch_of(golden) -> Batch:
    """The recorded batch: each caption is one sentence."""
    tokens, mask = tokens_of(golden)
    rows, length = tokens.shape
    return Batch(
        image=nhwc(golden["in/imgs"]),
        tokens=tokens,
        token_mask=mask,
        sentence_index=jnp.full((rows, length), -1, jnp.int32),
        sentence_mask=jnp.zeros((rows, 1), bool),
        labels=jnp.zeros((rows, 1), jnp.int8),
        weight=jnp.ones((rows,), jnp.float32),
        record=jnp.arange(rows, dtype=jnp.int32),
    )
