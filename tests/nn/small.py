"""Small models that the tests of several modules share."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig, ResNetConfig
from prior_jax.nn.sentence_decoder import SentenceDecoder, SentenceDecoderConfig

STACK = {
    "hidden_size": 16,
    "layers": 2,
    "heads": 4,
    "intermediate_size": 24,
    "dropout": 0.1,
    "scan_layers": True,
    "remat": "none",
    "max_positions": 12,
    "token_types": 2,
}

# Ways to run a stack of layers: (scan_layers, remat).
WAYS = [(True, "none"), (True, "elementwise"), (True, "layer"), (False, "layer")]


def bert_config(**changes):
    return BertConfig(**{**STACK, "vocab_size": 30, "pad_token": 0, **changes})


def bert(dtype=jnp.float32, **changes):
    config = bert_config(**changes)
    return filled(lambda: Bert(config, dtype=dtype, rngs=nnx.Rngs(0)))


def decoder_config(**changes):
    return SentenceDecoderConfig(**{**STACK, "causal": False, **changes})


def sentence_decoder(dtype=jnp.float32, **changes):
    config = decoder_config(**changes)
    return filled(lambda: SentenceDecoder(config, dtype=dtype, rngs=nnx.Rngs(0)))


def resnet_config(**changes):
    sizes = {"depths": (1, 1), "width": 4, "in_channels": 1, "block": "bottleneck"}
    return ResNetConfig(**{**sizes, "stem_pool": True, "remat": "none", **changes})


def image_encoder(dtype=jnp.float32, pool="attention", image_size=32, **changes):
    config = ImageEncoderConfig(
        resnet=resnet_config(**changes), pool=pool, pool_heads=4, image_size=image_size
    )
    return filled(lambda: ImageEncoder(config, dtype=dtype, rngs=nnx.Rngs(0)))


def filled(create):
    """The module that `create()` makes, filled without compiling its initialisers.

    Weights are large enough for attention to be far from uniform.
    """
    random = np.random.default_rng(5)
    model = nnx.eval_shape(create)
    state = nnx.as_pure(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))

    def fill(path, leaf):
        name = path[-1].key
        noise = random.standard_normal(leaf.shape).astype(np.float32)
        if name in ("scale", "var"):
            return jnp.asarray(1 + 0.1 * np.abs(noise))
        return jnp.asarray(0.3 * noise)

    nnx.update(model, jax.tree_util.tree_map_with_path(fill, state))
    return model


def evaluate(model, *inputs, **kwargs):
    """`model(*inputs, **kwargs)`, compiled as one program; the model stays as it is."""
    graphdef, state = nnx.split(model)
    return jax.jit(lambda *x: nnx.merge(graphdef, state, copy=True)(*x, **kwargs))(*inputs)


def value_and_grads(model, loss, *inputs, **options):
    """(value, pure parameter gradients, input gradients) of loss(model, *inputs).

    Options go to `jax.value_and_grad`.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def run(params, *inputs):
        return loss(nnx.merge(graphdef, params, rest, copy=True), *inputs)

    argnums = tuple(range(1 + len(inputs)))
    value, grads = jax.jit(jax.value_and_grad(run, argnums=argnums, **options))(params, *inputs)
    return value, nnx.as_pure(grads[0]), grads[1:]


def count(model):
    """Number of parameters, batch statistics left out."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
