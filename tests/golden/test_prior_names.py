"""Names and shapes of the full-size release: every tensor of a part finds its place."""

import jax
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.torch.module_tables import (
    attention_pool_table,
    bert_table,
    image_decoder_table,
    image_encoder_table,
    sentence_decoder_table,
)
from prior_jax.interop.torch.names import to_nnx, to_torch
from prior_jax.nn.attention_pool import SentenceAttentionPool
from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.nn.image_decoder import ImageDecoder, ImageDecoderConfig
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig, ResNetConfig
from prior_jax.nn.sentence_decoder import SentenceDecoder, SentenceDecoderConfig
from tests.golden import reader

pytestmark = pytest.mark.golden

RESNET50 = ResNetConfig(
    depths=(3, 4, 6, 3), width=64, in_channels=1, block="bottleneck", stem_pool=True, remat="none"
)
IMAGE = ImageEncoderConfig(resnet=RESNET50, pool="attention", pool_heads=8, image_size=224)
BERT_BASE = {
    "hidden_size": 768,
    "heads": 12,
    "intermediate_size": 3072,
    "dropout": 0.1,
    "scan_layers": True,
    "remat": "none",
    "max_positions": 512,
    "token_types": 2,
}
TEXT = BertConfig(layers=12, vocab_size=28996, pad_token=0, **BERT_BASE)
SENTENCES = SentenceDecoderConfig(layers=8, causal=True, **BERT_BASE)
PIXELS = ImageDecoderConfig(features=768, grid=7, image_size=224, channels=1, dropout=0.5)


def sentence_pool(rngs):
    sizes = {"out_features": 768, "heads": 8, "positions": None}
    return SentenceAttentionPool(768, dtype="float32", rngs=rngs, **sizes)


PARTS = {
    "image_encoder.": (
        lambda rngs: ImageEncoder(IMAGE, dtype="float32", rngs=rngs),
        image_encoder_table(IMAGE),
    ),
    "text_encoder.encoder.": (
        lambda rngs: Bert(TEXT, dtype="float32", rngs=rngs),
        bert_table(TEXT),
    ),
    "global_text_attention.": (sentence_pool, attention_pool_table(positions=False)),
    "sentence_decoder.": (
        lambda rngs: SentenceDecoder(SENTENCES, dtype="float32", rngs=rngs),
        sentence_decoder_table(SENTENCES),
    ),
    "image_decoder.": (
        lambda rngs: ImageDecoder(PIXELS, dtype="float32", rngs=rngs),
        image_decoder_table(PIXELS),
    ),
}


@pytest.mark.parametrize("prefix", PARTS)
def test_every_name_of_the_release_maps_onto_the_model_and_back(golden_dir, prefix):
    recorded = reader.load_json(golden_dir, "prior", "real_state_dict_shapes")["state_dict"]
    shapes = {k[len(prefix) :]: v[0] for k, v in recorded.items() if k.startswith(prefix)}
    # Broadcast views of one number stand for the weights: shapes without their memory.
    state_dict = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes.items()}
    create, table = PARTS[prefix]
    model = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    abstract = nnx.as_pure(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    filled = to_nnx(state_dict, table, abstract)
    assert jax.tree.map(np.shape, filled) == jax.tree.map(lambda leaf: leaf.shape, abstract)
    back = to_torch(filled, table)
    assert {name: list(array.shape) for name, array in back.items()} == {
        name: shape for name, shape in shapes.items() if not table.ignores(name)
    }
    carries_nothing = {name for name in shapes if table.ignores(name)}
    endings = ("num_batches_tracked", "position_ids", "embeddings.word_embeddings.weight")
    assert all(name.endswith(endings) for name in carries_nothing)
