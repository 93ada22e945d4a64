"""A PRIOR small enough to differentiate in a test, and batches for it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.nn.bert import BertConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import (
    RELEASE_WEIGHTS,
    BankConfig,
    ImageDecoderOptions,
    PriorConfig,
    SentenceDecoderOptions,
)
from prior_jax.types import Batch
from tests.nn.small import filled

SIDE = 32


def tiny_config(**changes) -> PriorConfig:
    config = PriorConfig(
        fidelity="paper",
        dtype="float32",
        image=ImageEncoderConfig(
            resnet=ResNetConfig(
                depths=(1, 1), width=4, in_channels=1, block="basic", stem_pool=True, remat="none"
            ),
            pool="attention",
            pool_heads=2,
            image_size=SIDE,
        ),
        text=BertConfig(
            vocab_size=30,
            hidden_size=16,
            layers=1,
            heads=2,
            intermediate_size=16,
            dropout=0.0,
            scan_layers=True,
            remat="none",
            max_positions=64,
            token_types=2,
            pad_token=0,
        ),
        embed_dim=16,
        sentence_pool="mean",
        sentence_heads=2,
        temperature=0.1,
        local_temperature=0.1,
        num_queries=4,
        bank=BankConfig(
            num_prototypes=24, temperature=0.9, schedule="linear", start_step=10, steps=20
        ),
        sentence_decoder=SentenceDecoderOptions(
            layers=1,
            heads=2,
            intermediate_size=16,
            dropout=0.0,
            max_positions=8,
            token_types=2,
            scan_layers=True,
            remat="none",
        ),
        image_decoder=ImageDecoderOptions(dropout=0.0),
        weights=RELEASE_WEIGHTS,
    )
    return dataclasses.replace(config, **changes)


def tiny_batch(rows=8, *, tokens=24, sentences=5, fill=0, seed=0) -> Batch:
    """Reports of 1 to 5 sentences of 4 tokens; `fill` rows of junk and weight 0 at the end."""
    total = rows + fill
    count = np.resize([5, 1, 3, 2, 4], total)
    index = np.full((total, tokens), -1, np.int32)
    ids = np.zeros((total, tokens), np.int32)
    image = np.zeros((total, SIDE, SIDE, 1))
    for row in range(total):
        random = np.random.default_rng([seed, row])
        image[row] = random.normal(size=(SIDE, SIDE, 1))
        words = 4 * count[row]
        index[row, 1 : 1 + words] = np.repeat(np.arange(count[row]), 4)
        ids[row, : words + 2] = random.integers(1, 30, size=22)[: words + 2]
    return Batch(
        image=jnp.asarray(image, jnp.float32),
        tokens=jnp.asarray(ids),
        token_mask=jnp.asarray(ids > 0),
        sentence_index=jnp.asarray(index),
        sentence_mask=jnp.asarray(np.arange(sentences)[None] < count[:, None]),
        labels=jnp.zeros((total, 2), jnp.int8),
        weight=jnp.asarray(np.arange(total) < rows, jnp.float32),
        record=jnp.arange(total, dtype=jnp.int32),
    )


def tiny_model(config: PriorConfig, **options):
    """The objective and (graph, parameters, rest) of its model, as pure trees."""
    objective = PriorObjective(config, **options)
    graph, params, rest = nnx.split(filled(lambda: objective.init(nnx.Rngs(0))), nnx.Param, ...)
    return objective, (graph, nnx.as_pure(params), nnx.as_pure(rest))
