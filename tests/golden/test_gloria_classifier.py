"""The linear classifier on GLoRIA's image encoder against recorded numbers, in float32."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from prior_jax.interop.sources.gloria_names import region_encoder_table
from prior_jax.losses.segmentation import binary_cross_entropy
from prior_jax.nn.classifier import ImageClassifier
from prior_jax.nn.region_encoder import RegionEncoder
from tests.golden import reader
from tests.golden.gloria_downstream_names import image_classifier_table
from tests.golden.gloria_model import config_of
from tests.golden.test_prior_encoders import nhwc
from tests.torch_models import dump_torch, load_torch

pytestmark = pytest.mark.golden

VALUE_RTOL = 1e-4
GRADIENT_RTOL = 1e-3


def pooled(encoder, image, *, train):
    return encoder(image, train=train).pooled


def classifier(params, *, image_size):
    """The classifier with these parameters, and its table."""
    config = config_of(params, heads=1, image_size=image_size).image
    embed_dim = params["img_encoder.global_embedder.weight"].shape[0]
    classes, features = params["classifier.weight"].shape

    def create():
        rngs = nnx.Rngs(0)
        return ImageClassifier(
            RegionEncoder(config, embed_dim, dtype=jnp.float32, rngs=rngs),
            pooled,
            features=features,
            classes=classes,
            frozen=True,
            drifting_statistics=True,
            rngs=rngs,
        )

    model = nnx.eval_shape(create)
    table = image_classifier_table(region_encoder_table(config))
    own = ("img_encoder.", "classifier.")
    load_torch(model, {name: x for name, x in params.items() if name.startswith(own)}, table)
    return model, table


def test_one_training_pass(golden_dir):
    golden = reader.load(golden_dir, "gloria", "pretrained_image_classifier")
    recorded = reader.load(golden_dir, "gloria", "model_params").prefix("param/")
    params = {**recorded, **golden.prefix("param/")}
    model, table = classifier(params, image_size=golden["in/x"].shape[2])
    target = jnp.asarray(golden["in/y"])
    weight = jnp.ones(target.shape[:1], jnp.float32)
    graphdef, trained, rest = nnx.split(model, nnx.Param, ...)

    def run(trained, image):
        module = nnx.merge(graphdef, trained, rest, copy=True)
        logits = module(image, train=True)
        loss = binary_cross_entropy(logits, target, weight=weight)
        return loss, (loss, logits, nnx.state(module))

    run_compiled = jax.jit(jax.grad(run, has_aux=True))
    grads, (loss, logits, state) = run_compiled(trained, nhwc(golden["in/x"]))
    reader.assert_close(logits, golden["out/logits_train_mode"], rtol=VALUE_RTOL)
    reader.assert_close(loss, golden["out/loss"], rtol=VALUE_RTOL)
    nnx.update(model, state)
    buffers = golden.prefix("out/updated_buffer/")
    reader.assert_trees_close(dump_torch(model, table), buffers, rtol=VALUE_RTOL)
    # Gradients under the same names: the frozen encoder's are zero.
    nnx.update(model, grads)
    found = dump_torch(model, table)
    reader.assert_trees_close(found, golden.prefix("grad/param/"), rtol=GRADIENT_RTOL)
    encoder = {name: x for name, x in found.items() if name.startswith("img_encoder.")}
    assert not any(x.any() for name, x in encoder.items() if "running_" not in name)
