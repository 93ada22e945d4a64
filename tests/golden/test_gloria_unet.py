"""U-Nets against numbers recorded from GLoRIA's release and the library it uses, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.torch.finetuned_tables import unet_table
from prior_jax.interop.torch.names import to_torch
from prior_jax.losses.segmentation import mixed
from prior_jax.nn.resnet import ResNetConfig
from prior_jax.nn.unet import UNet, UNetDecoderConfig
from tests.golden import reader
from tests.golden.formula import Formula
from tests.golden.kinks import check_up_to_rounding
from tests.golden.prior_model import count
from tests.golden.test_prior_encoders import nchw, nhwc
from tests.torch_models import load_torch

pytestmark = pytest.mark.golden

VALUE_RTOL = 1e-4
GRADIENT_RTOL = 1e-3

# Form -> where the names of the encoder, of the blocks' first convolutions and of the output are.
NAMES = {
    "nearest": {
        "stem": "encoder.conv1",
        "stages": r"encoder\.layer{}\.(\d+)",
        "first_stage": 1,
        "blocks": r"decoder\.blocks\.(\d+)",
        "block": "decoder.blocks.{}.conv1.0",
        "output": "segmentation_head.0",
    },
    "transposed": {
        "stem": "input_block.0",
        "stages": r"down_blocks\.{}\.(\d+)",
        "first_stage": 0,
        "blocks": r"up_blocks\.(\d+)",
        "block": "up_blocks.{}.conv_block_1.conv",
        "output": "out",
    },
}


def unet(params, form):
    """The U-Net with these parameters, and its table."""
    names = NAMES[form]

    def features(name):
        return params[f"{name}.weight"].shape[0]

    first = names["first_stage"]
    depths = (count(params, names["stages"].format(first + stage)) for stage in range(4))
    resnet = ResNetConfig(
        depths=tuple(depths),
        width=features(names["stem"]),
        in_channels=params[f"{names['stem']}.weight"].shape[1],
        block="bottleneck",
        stem_pool=True,
        remat="none",
    )
    config = UNetDecoderConfig(
        channels=tuple(
            features(names["block"].format(i)) for i in range(count(params, names["blocks"]))
        ),
        form=form,
    )
    classes = features(names["output"])
    model = nnx.eval_shape(
        lambda: UNet(config, resnet=resnet, classes=classes, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    table = unet_table(config, resnet)
    load_torch(model, params, table)
    return model, table


def gradient_function(model, table, target):
    """A compiled function from images to what evaluation and training give.

    It returns (loss, logits, features) of evaluation and of training, and torch-named gradients
    of evaluation's loss.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    target = jnp.asarray(target)
    weight = jnp.ones(target.shape[:1], jnp.float32)

    def run(params, image):
        outputs = []
        for train in (False, True):
            module = nnx.merge(graphdef, params, rest, copy=True)
            logits, features = module(image, train=train)
            outputs.append((mixed(logits[..., 0], target, weight=weight), logits, features))
        return outputs[0][0], outputs

    compiled = jax.jit(jax.grad(run, has_aux=True))

    def call(image):
        grads, outputs = compiled(params, image)
        return outputs, to_torch(nnx.as_pure(grads), table, partial=True)

    return call


@pytest.mark.parametrize(("name", "form"), [("smp_unet", "nearest"), ("resnet_unet", "transposed")])
def test_small_unet(golden_dir, name, form):
    golden = reader.load(golden_dir, "gloria", name)
    model, table = unet(golden.prefix("param/"), form)
    run = gradient_function(model, table, golden["in/target"])
    images = nhwc(golden["in/x"])
    outputs, _ = run(images)
    for mode, (value, logits, features) in zip(("eval", "train"), outputs, strict=True):
        out = golden.prefix(f"out/{mode}/")
        reader.assert_close(nchw(logits), out["logits"], rtol=VALUE_RTOL, name=mode)
        reader.assert_close(value, out["MixedLoss"], rtol=VALUE_RTOL, name=mode)
        if "feature_map" in out:
            reader.assert_close(nchw(features), out["feature_map"], rtol=VALUE_RTOL, name=mode)
    expected = golden.prefix("grad/eval/param/")

    def check(result):
        reader.assert_trees_close(result[1], expected, rtol=GRADIENT_RTOL)

    check_up_to_rounding(run, check, [images])


@pytest.mark.golden_full
def test_full_size_unet_of_the_segmentation(golden_dir):
    golden = reader.load(golden_dir, "gloria", "real_smp_unet_resnet50")
    facts = reader.load_json(golden_dir, "gloria", "real_smp_unet_resnet50")
    formula = Formula(golden_dir)
    params = formula.params(facts["keys"])
    model, table = unet(params, "nearest")
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == facts["n_params"]
    run = gradient_function(model, table, golden["in/target"])
    ((value, logits, _), (_, trained, _)), grads = run(nhwc(formula.input(facts["x"])))
    reader.assert_close(logits[..., 0], golden["out/logits"], rtol=VALUE_RTOL)
    reader.assert_close(value, golden["out/MixedLoss"], rtol=VALUE_RTOL)
    reader.assert_close(trained[..., 0], golden["out/logits_train_mode"], rtol=VALUE_RTOL)
    reader.assert_trees_close(grads, golden.prefix("grad/"), rtol=GRADIENT_RTOL)
    for name, expected in facts["grad_l2_norms"].items():
        norm = np.linalg.norm(grads[name].astype(np.float64))
        reader.assert_close(norm, np.float64(expected), rtol=GRADIENT_RTOL, name=name)


@pytest.mark.golden_full
def test_full_size_unet_that_the_release_never_uses(golden_dir):
    golden = reader.load(golden_dir, "gloria", "real_resnet_unet")
    facts = reader.load_json(golden_dir, "gloria", "real_resnet_unet")
    formula = Formula(golden_dir)
    model, _ = unet(formula.params(facts["keys"]), "transposed")
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == facts["n_params"]
    batch, _, height, width = golden["out/logits"].shape
    channels = model.resnet.config.in_channels
    images = nhwc(formula.array("seg_x", (batch, channels, height, width)))
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x, train=False)[0])
    reader.assert_close(nchw(run(state, images)), golden["out/logits"], rtol=VALUE_RTOL)
