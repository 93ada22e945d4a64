"""Image and text encoders against numbers recorded from the authors' release, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.torch.module_tables import (
    attention_pool_table,
    bert_table,
    image_encoder_table,
)
from prior_jax.interop.torch.names import to_torch
from prior_jax.nn.attention_pool import AttentionPool2d, SentenceAttentionPool
from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.nn.patches import scrambled_patches, spatial_patches
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig, ResNetConfig
from tests.golden import reader
from tests.golden.kinks import check_up_to_rounding
from tests.torch_models import dump_torch, load_torch

pytestmark = pytest.mark.golden

VALUE_RTOL = 1e-4
GRADIENT_RTOL = 1e-3


def nhwc(array):
    return jnp.asarray(array.transpose(0, 2, 3, 1))


def nchw(array):
    return np.asarray(array).transpose(0, 3, 1, 2)


def gradient_function(model, table, loss, *, inputs):
    """A compiled function of the `inputs` arguments of `loss(model, *) -> (float32[], outputs)`.

    It returns (outputs, torch-named parameter gradients, input gradients, model after).
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def run(params, *inputs):
        module = nnx.merge(graphdef, params, rest, copy=True)
        value, outputs = loss(module, *inputs)
        return value, (outputs, nnx.state(module))

    compiled = jax.jit(jax.grad(run, argnums=tuple(range(1 + inputs)), has_aux=True))

    def call(*inputs):
        grads, (outputs, state) = compiled(params, *inputs)
        after = nnx.merge(graphdef, state)
        return outputs, to_torch(nnx.as_pure(grads[0]), table, partial=True), grads[1:], after

    return call


def gradients(model, table, loss, *inputs):
    """`gradient_function`, called once."""
    return gradient_function(model, table, loss, inputs=len(inputs))(*inputs)


def test_attention_pool2d(golden_dir):
    golden = reader.load(golden_dir, "prior", "attention_pool2d")
    for case in golden.cases("in/"):
        check_attention_pool2d(golden, case)


def check_attention_pool2d(golden, case):
    params = golden.prefix(f"param/{case}/")
    x = golden[f"in/{case}/x"]
    cotangent = golden[f"in/{case}/cotangent"]
    model = AttentionPool2d(
        x.shape[1],
        out_features=cotangent.shape[1],
        heads=golden.scalar(f"in/{case}/num_heads"),
        grid=x.shape[2:],
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    table = attention_pool_table(positions=True)
    load_torch(model, params, table)

    def loss(model, x):
        y = model(x)
        return jnp.sum(y * cotangent), y

    y, grads, (grad_x,), _ = gradients(model, table, loss, nhwc(x))
    reader.assert_close(y, golden[f"out/{case}/y"], rtol=VALUE_RTOL)
    reader.assert_close(nchw(grad_x), golden[f"grad/{case}/in/x"], rtol=GRADIENT_RTOL)
    expected = golden.prefix(f"grad/{case}/param/")
    reader.assert_trees_close(grads, expected, rtol=GRADIENT_RTOL, skip_key_biases=True)


@pytest.mark.parametrize("padding", [0, 3])
def test_sentence_attention_pool(golden_dir, padding):
    golden = reader.load(golden_dir, "prior", "sentence_attention_pool")
    for case in golden.cases("in/"):
        check_sentence_attention_pool(golden, case, padding)


def check_sentence_attention_pool(golden, case, padding):
    params = golden.prefix(f"param/{case}/")
    features = params["q_proj.weight"].shape[0]
    positions = None
    if "positional_embedding" in params:
        positions = params["positional_embedding"].shape[0] - 1
    model = SentenceAttentionPool(
        features,
        out_features=params["c_proj.weight"].shape[0],
        heads=8,
        positions=positions,
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    table = attention_pool_table(positions=positions is not None)
    load_torch(model, params, table)
    for size in golden.cases(f"in/{case}/"):
        x = golden[f"in/{case}/{size}/x"]
        count = x.shape[1]
        room = padding if positions is None else min(padding, positions - count)
        x = np.pad(x, ((0, 0), (0, room), (0, 0)), constant_values=3.0)
        mask = jnp.broadcast_to(jnp.arange(x.shape[1])[None] < count, x.shape[:2])
        cotangent = golden[f"in/{case}/{size}/cotangent"]

        def loss(model, x, mask=mask, cotangent=cotangent):
            y = model(x, mask)
            return jnp.sum(y * cotangent), y

        y, grads, (grad_x,), _ = gradients(model, table, loss, jnp.asarray(x))
        reader.assert_close(y, golden[f"out/{case}/{size}/y"], rtol=VALUE_RTOL, name=size)
        expected = golden[f"grad/{case}/{size}/in/x"]
        reader.assert_close(grad_x[:, :count], expected, rtol=GRADIENT_RTOL, name=size)
        assert not np.any(grad_x[:, count:])
        below = f"grad/{case}/{size}/param/"
        if any(name.startswith(below) for name in golden):
            expected = golden.prefix(below)
            reader.assert_trees_close(grads, expected, rtol=GRADIENT_RTOL, skip_key_biases=True)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_bert_encoder(golden_dir, scan_layers):
    golden = reader.load(golden_dir, "prior", "bert_encoder")
    params = golden.prefix("param/encoder.")
    words = params["embeddings.word_embeddings.weight"]
    layers = {name.split(".")[2] for name in params if name.startswith("encoder.layer.")}
    config = BertConfig(
        hidden_size=words.shape[1],
        layers=len(layers),
        heads=golden.scalar("in/num_heads"),
        intermediate_size=params["encoder.layer.0.intermediate.dense.weight"].shape[0],
        dropout=0.0,
        scan_layers=scan_layers,
        remat="none",
        vocab_size=words.shape[0],
        max_positions=params["embeddings.position_embeddings.weight"].shape[0],
        token_types=params["embeddings.token_type_embeddings.weight"].shape[0],
        pad_token=0,
    )
    model = nnx.eval_shape(lambda: Bert(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    table = bert_table(config)
    load_torch(model, params, table)
    tokens = jnp.asarray(golden["in/input_ids"], jnp.int32)
    mask = jnp.asarray(golden["in/attention_mask"] == 1)

    def loss(model):
        out = model(tokens, mask, train=True)
        value = jnp.sum(out.last_hidden_state * golden["in/cotangent"])
        return value + jnp.sum(out.pooled * golden["in/cotangent_pooler"]), out

    out, grads, _, _ = gradients(model, table, loss)
    expected = golden["out/last_hidden_state"]
    reader.assert_close(out.last_hidden_state, expected, rtol=VALUE_RTOL)
    reader.assert_close(out.pooled, golden["out/pooler_output"], rtol=VALUE_RTOL)
    expected = golden.prefix("grad/param/encoder.")
    reader.assert_trees_close(grads, expected, rtol=GRADIENT_RTOL, skip_key_biases=True)


@pytest.fixture
def resnet_golden(golden_dir):
    return reader.load(golden_dir, "prior", "resnet_encoder")


def image_encoder(golden):
    """The encoder with the recorded parameters, and its table."""
    params = golden.prefix("param/")
    config = ImageEncoderConfig(
        resnet=ResNetConfig(
            depths=tuple(int(depth) for depth in golden["in/layers"]),
            width=golden.scalar("in/base"),
            in_channels=golden["in/image"].shape[1],
            block="bottleneck",
            stem_pool=True,
            remat="none",
        ),
        pool="attention",
        pool_heads=8,
        image_size=golden["in/image"].shape[2],
    )
    model = nnx.eval_shape(lambda: ImageEncoder(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    table = image_encoder_table(config)
    load_torch(model, params, table)
    return model, table


def test_resnet_encoder_in_training(resnet_golden):
    golden = resnet_golden
    model, table = image_encoder(golden)

    def loss(model, image):
        feature_map, pooled = model(image, train=True)
        value = jnp.sum(scrambled_patches(feature_map) * golden["in/cotangent_local"])
        value += jnp.sum(pooled * golden["in/cotangent_global"])
        return value, (feature_map, pooled)

    image = nhwc(golden["in/image"])
    run = gradient_function(model, table, loss, inputs=1)
    (feature_map, pooled), _, _, after = run(image)
    out = golden.prefix("out/train/")
    reader.assert_close(nchw(feature_map), out["layer4_nchw"], rtol=VALUE_RTOL)
    reader.assert_close(pooled, out["global"], rtol=VALUE_RTOL)
    reader.assert_close(scrambled_patches(feature_map), out["local"], rtol=VALUE_RTOL)
    expected = out["local_if_permuted"]
    reader.assert_close(spatial_patches(feature_map), expected, rtol=VALUE_RTOL)
    check_statistics(golden, before=model, after=after, table=table)
    expected = golden.prefix("grad/param/")

    def check(result):
        grads = result[1]
        reader.assert_trees_close(grads, expected, rtol=GRADIENT_RTOL, skip_key_biases=True)

    check_up_to_rounding(run, check, [image])


def check_statistics(golden, *, before, after, table):
    """Statistics after as many training passes as the recording's own counter says.

    The recording of the image encoder took its statistics with the counter still at 0.
    """
    recorded = golden.prefix("state_after/")
    counter = next(name for name in recorded if name.endswith("num_batches_tracked"))
    passes = int(recorded[counter] - golden[f"param/{counter}"])
    assert passes in (0, 1)
    statistics = {k: v for k, v in recorded.items() if not k.endswith("num_batches_tracked")}
    actual = dump_torch(after if passes else before, table)
    reader.assert_trees_close(actual, statistics, rtol=VALUE_RTOL)


def test_resnet_encoder_in_evaluation(resnet_golden):
    golden = resnet_golden
    model, table = image_encoder(golden)
    # The recording evaluated with the statistics it stored as the last ones.
    load_torch(model, {**golden.prefix("param/"), **golden.prefix("state_after/")}, table)
    before = dump_torch(model, table)
    run = nnx.jit(lambda model, image: model(image, train=False))
    feature_map, pooled = run(model, nhwc(golden["in/image"]))
    reader.assert_close(pooled, golden["out/eval/global"], rtol=VALUE_RTOL)
    reader.assert_close(scrambled_patches(feature_map), golden["out/eval/local"], rtol=VALUE_RTOL)
    after = dump_torch(model, table)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_resnet_encoder_intermediate_maps(resnet_golden):
    golden = resnet_golden
    model, _ = image_encoder(golden)
    run = nnx.jit(lambda model, image: model.resnet(image, train=True))
    _, maps = run(model, nhwc(golden["in/image"]))
    for index, feature_map in enumerate(reversed(maps)):
        expected = tuple(golden[f"out/train/feature{index}_shape"])
        assert nchw(feature_map).shape == expected
        expected = golden[f"out/train/feature{index}_mean_abs"]
        reader.assert_close(jnp.abs(feature_map).mean(), expected, rtol=VALUE_RTOL)
