"""The whole model and batch that were recorded, read from the file's own shapes."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

import prior_jax
from prior_jax.data.tokenizer import SPECIAL_TOKENS
from prior_jax.interop.sources.imports import open_checkpoint
from prior_jax.interop.sources.plans import Unseen
from prior_jax.interop.sources.prior_names import prior_table
from prior_jax.interop.weights_folder import save_weights
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
from tests.torch_models import dump_torch, load_torch


def count(params, pattern: str) -> int:
    """One more than the largest number the pattern's group takes."""
    found = [re.match(pattern, name) for name in params]
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def config_of(params, config, *, image_size: int) -> PriorConfig:
    """The configuration that fits recorded parameters.

    Args:
      params: torch name -> array (or anything with a shape).
      config: the file's `in/config/`, for what shapes do not tell.
      image_size: side of the images, in pixels.
    """

    def shape(name):
        return tuple(params[name].shape)

    def scalar(name, default):
        return int(config[name]) if name in config else default

    text, decoder = "text_encoder.encoder.", "sentence_decoder."
    embed_dim = shape("local_image_projection.weight")[0]
    vocab, hidden = shape(f"{text}embeddings.word_embeddings.weight")
    layers = count(params, r"text_encoder\.encoder\.encoder\.layer\.(\d+)")
    has_decoder = f"{decoder}embeddings.position_embeddings.weight" in params
    places = f"{decoder}embeddings.position_embeddings.weight"
    inner = f"{decoder}encoder.layer.0.intermediate.dense.weight"
    return PriorConfig(
        fidelity="release",
        dtype="float32",
        image=ImageEncoderConfig(
            resnet=ResNetConfig(
                depths=tuple(
                    count(params, rf"image_encoder\.encoder\.layer{stage}\.(\d+)")
                    for stage in (1, 2, 3, 4)
                ),
                width=shape("image_encoder.encoder.conv1.weight")[0],
                in_channels=shape("image_encoder.encoder.conv1.weight")[1],
                block="bottleneck",
                stem_pool=True,
                remat="none",
            ),
            pool="attention",
            pool_heads=scalar("img_heads", 8),
            image_size=image_size,
        ),
        text=BertConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            layers=layers,
            heads=scalar("txt_heads", 1),
            intermediate_size=shape(f"{text}encoder.layer.0.intermediate.dense.weight")[0],
            dropout=0.0,
            scan_layers=True,
            remat="none",
            max_positions=shape(f"{text}embeddings.position_embeddings.weight")[0],
            token_types=shape(f"{text}embeddings.token_type_embeddings.weight")[0],
            pad_token=0,
        ),
        embed_dim=embed_dim,
        sentence_pool="mean",
        sentence_heads=8,
        temperature=0.01,
        local_temperature=0.01,
        num_queries=shape("prototype_queries")[1] if has_decoder else 16,
        bank=BankConfig(
            num_prototypes=shape("sentence_bank.embed.weight")[0],
            temperature=float(config["tau"]) if "tau" in config else 0.9,
            schedule="fixed",
            start_step=0,
            steps=1,
        ),
        sentence_decoder=SentenceDecoderOptions(
            layers=count(params, r"sentence_decoder\.encoder\.layer\.(\d+)") if has_decoder else 1,
            heads=scalar("dec_heads", 1),
            intermediate_size=shape(inner)[0] if has_decoder else embed_dim,
            dropout=0.0,
            max_positions=shape(places)[0] if has_decoder else 16,
            token_types=2,
            scan_layers=True,
            remat="none",
        ),
        image_decoder=ImageDecoderOptions(dropout=0.0),
        weights=weights_with(scalar("lam", 10)),
    )


def weights_with(lambda_proto: float) -> dict[str, dict[str, float]]:
    """The released weights, with another lambda_proto (quirk P10)."""
    scaled = ("prototype", "sentence_prototype")
    return {
        stage: {name: float(lambda_proto) if name in scaled else w for name, w in terms.items()}
        for stage, terms in RELEASE_WEIGHTS.items()
    }


def model_of(params, config: PriorConfig):
    """The objective and its model with recorded parameters; parts not recorded are 0."""
    objective = PriorObjective(config)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: objective.init(nnx.Rngs(0))))
    zeros = jax.tree.map(
        lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), nnx.as_pure(shapes)
    )
    model = nnx.merge(graph, zeros)
    table = prior_table(config)
    load_torch(model, {**dump_torch(model, table), **params}, table)
    return objective, model


def imported(params, config: PriorConfig, folder: pathlib.Path):
    """The same as it comes from a checkpoint: imported, saved as weights, loaded.

    Args:
      params: torch name -> array; parts not recorded are 0.
      config: for what shapes do not tell.
      folder: an empty one.
    """
    table = prior_table(config)
    state_dict = {**dump_torch(model_of(params, config)[1], table), **params}
    file, vocabulary = folder / "checkpoint.safetensors", folder / "vocab.txt"
    save_file({name: np.asarray(array, order="C") for name, array in state_dict.items()}, file)
    words = [f"word{number}" for number in range(config.text.vocab_size)]
    words[: len(SPECIAL_TOKENS)] = SPECIAL_TOKENS
    vocabulary.write_text("\n".join(words) + "\n")
    found = open_checkpoint(
        "prior",
        file,
        part="model",
        unseen=Unseen(
            heads=config.text.heads,
            decoder_heads=config.sentence_decoder.heads,
            pool_heads=config.image.pool_heads,
            image_size=config.image.image_size,
        ),
        tokenizer=vocabulary,
    )
    save_weights(folder / "weights", found.weights, found.tokenizer)
    loaded = prior_jax.load(folder / "weights")
    return loaded.objective, loaded.module


def batch_of(golden) -> Batch:
    """The recorded batch; sentences counted from 0."""
    index = golden["in/sentence_index"]
    index = np.where(index > 0, index - 1, -1).astype(np.int32)
    rows, sentences = len(index), int(index.max()) + 1
    mask = np.arange(sentences)[None] <= index.max(axis=1, keepdims=True)
    return Batch(
        image=jnp.asarray(golden["in/image"].transpose(0, 2, 3, 1)),
        tokens=jnp.asarray(golden["in/input_ids"], jnp.int32),
        token_mask=jnp.asarray(golden["in/attention_mask"] > 0),
        sentence_index=jnp.asarray(index),
        sentence_mask=jnp.asarray(mask),
        labels=jnp.zeros((rows, 1), jnp.int8),
        weight=jnp.ones((rows,), jnp.float32),
        record=jnp.arange(rows, dtype=jnp.int32),
    )
