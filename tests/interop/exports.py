"""Weights to export: models of tiny or full size, filled without compiling their initialisers."""

import dataclasses
import functools
import json
import re

import numpy as np
import safetensors.numpy
from flax import nnx, traverse_util

from prior_jax.interop.torch.module_tables import resnet_table
from prior_jax.interop.weights_folder import Weights
from prior_jax.nn.bert import Bert
from prior_jax.nn.resnet import ResNet
from prior_jax.objectives.prior_config import RELEASE_WEIGHTS
from prior_jax.objectives.prior_model import PriorModel
from tests.nn import small
from tests.objectives import tiny

IMAGE = {"size": 32, "channels": 1, "mean": [0.4], "std": [0.25]}


def arrays_of(module):
    """The parameters and batch statistics, the latter as no fresh model has them."""
    state = nnx.as_pure(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")
    rng = np.random.default_rng(0)
    arrays = {name: np.asarray(value) for name, value in flat.items()}
    for name, value in arrays.items():
        if name.endswith(("/mean", "/var")) or "norm" in name:
            arrays[name] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    return arrays


def image_weights(**changes):
    config = small.resnet_config(**changes)
    module = small.filled(lambda: ResNet(config, dtype="float32", rngs=nnx.Rngs(0)))
    return _image(config, arrays_of(module))


def hollow_image_weights(**changes):
    """Every array of a ResNet by name, but only the stem's kernel by shape: made at once."""
    config = small.resnet_config(**changes)
    sizes = {"conv": (1, 1, 1, 1), "same": (1,)}
    entries = resnet_table(config).entries
    arrays = {"/".join(e.path): np.zeros(sizes[e.layout], np.float32) for e in entries}
    arrays["stem_conv/kernel"] = np.zeros((7, 7, config.in_channels, config.width), np.float32)
    return _image(config, arrays)


def _image(config, arrays):
    return Weights(
        part="image",
        objective=None,
        model={"resnet": {"stem_pool": config.stem_pool}},
        data={"image": {**IMAGE, "channels": config.in_channels}},
        origin={"source": "tests"},
        arrays={f"resnet/{name}": value for name, value in arrays.items()},
    )


def text_weights(**changes):
    config = small.bert_config(**changes)
    module = small.filled(lambda: Bert(config, dtype="float32", rngs=nnx.Rngs(0)))
    return Weights(
        part="text",
        objective=None,
        model={"heads": config.heads, "dropout": config.dropout},
        data={"tokenizer": {"kind": "wordpiece", "lower_case": True}},
        origin={"source": "tests"},
        arrays=arrays_of(module),
    )


def prior_config(vocab_size=30):
    text = small.bert_config(vocab_size=vocab_size, max_positions=64)
    plain = {stage: dict(terms) for stage, terms in RELEASE_WEIGHTS.items()}
    return tiny.tiny_config(text=text, weights=plain)


def prior_weights(vocab_size=30):
    """A whole PRIOR, with every section that `prior_jax.load` reads."""
    config = prior_config(vocab_size)
    module = small.filled(lambda: PriorModel(config, bank_axis=None, rngs=nnx.Rngs(0)))
    model = json.loads(json.dumps(dataclasses.asdict(config)))
    # What follows from the data, the tokenizer and the stages is not given twice.
    for section, names in _DERIVED.items():
        for name in names:
            del functools.reduce(dict.get, section, model)[name]
    return Weights(
        part="model",
        objective="prior",
        model=model,
        data={
            "image": IMAGE,
            "text_mode": "paper",
            "max_tokens": 24,
            "max_sentences": 5,
            "tokenizer": {"kind": "wordpiece", "lower_case": True},
        },
        origin={"source": "tests"},
        arrays=arrays_of(module),
    )


_DERIVED = {
    ("image",): ("image_size",),
    ("image", "resnet"): ("in_channels",),
    ("text",): ("vocab_size", "pad_token"),
    ("bank",): ("start_step", "steps"),
}


def tensors_of(exported, name="model.safetensors"):
    return safetensors.numpy.load(exported.files[name])


def settings_of(exported, name="config.json"):
    return json.loads(exported.files[name])


def example_of(card):
    """The block of Python in a card."""
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code
