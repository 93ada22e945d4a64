"""Sentence and image decoders against numbers recorded from the authors' release, in float32."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.torch.module_tables import image_decoder_table, sentence_decoder_table
from prior_jax.nn.image_decoder import ImageDecoder, ImageDecoderConfig
from prior_jax.nn.layers import resize_align_corners
from prior_jax.nn.patches import scrambled_map
from prior_jax.nn.sentence_decoder import SentenceDecoder, SentenceDecoderConfig
from tests.golden import reader
from tests.golden.kinks import check_up_to_rounding
from tests.golden.test_prior_encoders import (
    check_statistics,
    gradient_function,
    gradients,
    nchw,
    nhwc,
)
from tests.torch_models import dump_torch, load_torch

pytestmark = pytest.mark.golden

VALUE_RTOL = 1e-4
GRADIENT_RTOL = 1e-3
# Signs flip inside the image decoder and in the L1 loss behind it: see `kinks`.
IMAGE_GRADIENT_RTOL = 5e-3


def sentence_decoder(golden, **changes):
    params = golden.prefix("param/")
    places = params["embeddings.position_embeddings.weight"]
    layers = {name.split(".")[2] for name in params if name.startswith("encoder.layer.")}
    config = SentenceDecoderConfig(
        hidden_size=places.shape[1],
        layers=len(layers),
        heads=golden.scalar("in/num_heads"),
        intermediate_size=params["encoder.layer.0.intermediate.dense.weight"].shape[0],
        dropout=0.0,
        scan_layers=True,
        remat="none",
        max_positions=places.shape[0],
        token_types=params["embeddings.token_type_embeddings.weight"].shape[0],
        causal=golden.scalar("out/is_causal_in_transformers_4.17.0"),
    )
    config = dataclasses.replace(config, **changes)
    model = nnx.eval_shape(lambda: SentenceDecoder(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    table = sentence_decoder_table(config)
    load_torch(model, params, table)
    return model, table


@pytest.fixture
def sentence_golden(golden_dir):
    return reader.load(golden_dir, "prior", "sentence_decoder")


def test_sentence_decoder(sentence_golden):
    golden = sentence_golden
    model, table = sentence_decoder(golden)

    def loss(model, queries, patches):
        y = model(queries, patches, train=True)
        return jnp.sum(y * golden["in/cotangent"]), y

    x, y = jnp.asarray(golden["in/x"]), jnp.asarray(golden["in/y"])
    out, grads, (grad_x, grad_y), _ = gradients(model, table, loss, x, y)
    reader.assert_close(out, golden["out/last_hidden_state"], rtol=VALUE_RTOL)
    reader.assert_close(grad_x, golden["grad/in/x"], rtol=GRADIENT_RTOL)
    reader.assert_close(grad_y, golden["grad/in/y"], rtol=GRADIENT_RTOL)
    expected = golden.prefix("grad/param/")
    reader.assert_trees_close(grads, expected, rtol=GRADIENT_RTOL, skip_key_biases=True)
    norms = {name: np.linalg.norm(grad) for name, grad in grads.items()}
    expected = golden.prefix("gradnorm/param/")
    reader.assert_trees_close(norms, expected, rtol=GRADIENT_RTOL, skip_key_biases=True)


def test_sentence_decoder_without_a_causal_mask(sentence_golden):
    golden = sentence_golden
    model, _ = sentence_decoder(golden, causal=False)
    run = nnx.jit(lambda model, x, y: model(x, y, train=False))
    out = run(model, jnp.asarray(golden["in/x"]), jnp.asarray(golden["in/y"]))
    reader.assert_close(out, golden["out/last_hidden_state_if_noncausal"], rtol=VALUE_RTOL)


def test_sentence_decoder_depends_on_the_queries_that_the_recording_says(sentence_golden):
    golden = sentence_golden
    moved = golden["out/dependency_max_abs_change_in_out_row_j_when_in_row_i_moves"] > 0
    model, _ = sentence_decoder(golden)
    x, y = jnp.asarray(golden["in/x"][:1]), jnp.asarray(golden["in/y"][:1])
    run = jax.jit(lambda x: nnx.merge(graphdef, state, copy=True)(x, y, train=False)[0])
    graphdef, state = nnx.split(model)
    base = run(x)
    for query in range(x.shape[1]):
        bumped = run(x.at[0, query].add(jnp.linspace(-1, 1, x.shape[2])))
        changes = np.abs(np.asarray(bumped - base)).max(axis=1)
        assert np.array_equal(changes > 0, moved[query]), query


def image_decoder(golden):
    params = golden.prefix("param/")
    channels, side = golden["in/image_embed"].shape[1:3]
    blocks = {name.split(".")[1] for name in params if name.startswith("blocks.")}
    config = ImageDecoderConfig(
        features=channels,
        grid=side,
        image_size=side * 2 ** len(blocks),
        channels=params["output_head.0.weight"].shape[0],
        dropout=0.0,
    )
    model = nnx.eval_shape(lambda: ImageDecoder(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    table = image_decoder_table(config)
    load_torch(model, params, table)
    return model, table


@pytest.fixture
def image_golden(golden_dir):
    return reader.load(golden_dir, "prior", "image_decoder")


def l1(output, image):
    if output.shape != image.shape:
        image = resize_align_corners(image, size=output.shape[1:3])
    return jnp.mean(jnp.abs(output - image))


def check_output(golden, prefix, output):
    # Every so many rows and columns were recorded; the name says how many.
    (name,) = (name for name in golden.prefix(prefix) if re.fullmatch(r"output_s\d+", name))
    step = int(name.removeprefix("output_s"))
    stored = golden[prefix + name]
    reader.assert_close(nchw(output)[:, :, ::step, ::step], stored, rtol=VALUE_RTOL)


def test_image_decoder_in_training(image_golden):
    golden = image_golden
    model, table = image_decoder(golden)
    image = nhwc(golden["in/image"])

    def loss(model, image_map, text_map):
        output = model(image_map, text_map, train=True)
        value = l1(output, image)
        return value, (value, output)

    inputs = [nhwc(golden[f"in/{name}"]) for name in ("image_embed", "text_embed")]
    run = gradient_function(model, table, loss, inputs=2)
    (value, output), _, _, after = run(*inputs)
    reader.assert_close(value, golden["out/loss"], rtol=VALUE_RTOL)
    check_output(golden, "out/", output)
    total = np.asarray(output, np.float64)
    reader.assert_close(np.abs(total).sum(), golden["out/output_abs_sum"], rtol=VALUE_RTOL)
    reader.assert_close(total.sum(), golden["out/output_sum"], rtol=VALUE_RTOL)
    # The recording evaluated with the statistics that this pass had left.
    check_evaluation(golden, after, table, inputs)

    def check(result):
        _, grads, input_grads, _ = result
        for name, grad in zip(("image_embed", "text_embed"), input_grads, strict=True):
            expected = golden[f"grad/in/{name}"]
            reader.assert_close(nchw(grad), expected, rtol=IMAGE_GRADIENT_RTOL, name=name)
        reader.assert_trees_close(grads, golden.prefix("grad/param/"), rtol=IMAGE_GRADIENT_RTOL)

    check_up_to_rounding(run, check, inputs)


def check_evaluation(golden, model, table, inputs):
    before = dump_torch(model, table)
    output = nnx.jit(lambda model, a, b: model(a, b, train=False))(model, *inputs)
    check_output(golden, "out/eval/", output)
    value = l1(output, nhwc(golden["in/image"]))
    reader.assert_close(value, golden["out/eval/loss"], rtol=VALUE_RTOL)
    after = dump_torch(model, table)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_image_reconstruction_through_the_reinterpreted_maps(image_golden):
    golden = image_golden
    model, table = image_decoder(golden)
    image = nhwc(golden["in/image"])
    grid = golden["in/image_embed"].shape[2:]
    names = ("image_embed", "text_to_local_image_embed_stacks")

    def loss(model, image_patches, text_patches):
        maps = [scrambled_map(x, grid=grid) for x in (image_patches, text_patches)]
        value = l1(model(*maps, train=True), image)
        return value, (value, maps[0])

    inputs = [jnp.asarray(golden[f"in/recon_image/{name}"]) for name in names]
    run = gradient_function(model, table, loss, inputs=2)
    (value, viewed), _, _, after = run(*inputs)
    reader.assert_close(value, golden["out/recon_image/rec_image_loss"], rtol=VALUE_RTOL)
    assert np.array_equal(nchw(viewed), golden["out/recon_image/viewed_image_embed"])
    # The stored statistics are those that this pass had left.
    check_statistics(golden, before=model, after=after, table=table)

    def check(result):
        for name, grad in zip(names, result[2], strict=True):
            expected = golden[f"grad/recon_image/in/{name}"]
            reader.assert_close(grad, expected, rtol=IMAGE_GRADIENT_RTOL, name=name)

    check_up_to_rounding(run, check, inputs)
