"""Fine-tuned models as ONNX in onnxruntime, against the functions that they are of."""

import dataclasses

import jax
import numpy as np
import pytest

import prior_jax
from prior_jax.interop.export.image_program import image_program
from prior_jax.interop.onnx.graph import export_onnx
from prior_jax.interop.weights_folder import save_weights
from prior_jax.nn.classification_head import HeadConfig
from tests.interface import image_models
from tests.interop import tiny_towers
from tests.objectives.test_segmentation import config_of

pytestmark = pytest.mark.parity

BATCHES = (1, 2, 5)
LOADERS = {
    "segmentation": "load_segmenter",
    "detection": "load_detector",
    "classification": "load_classifier",
}
DEEP = image_models.encoder_config(side=64, depths=(1, 1, 1, 1))
MODELS = {
    "unet": ("segmentation", config_of()),
    "transposed": ("segmentation", config_of("unet_transposed")),
    "linear": ("segmentation", config_of("linear")),
    "upernet": ("segmentation", config_of("upernet", image=DEEP)),
    "exclusive": ("segmentation", config_of(loss="cross_entropy")),
    "bfloat16": ("segmentation", config_of(dtype="bfloat16")),
    "detection": ("detection", image_models.detection_config()),
    "classification": ("classification", image_models.classification_config()),
    "enlarged": (
        "classification",
        image_models.classification_config(
            head=HeadConfig(kind="mlp", hidden=6, dropout=0.1), upsample=40, loss="exclusive"
        ),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_agrees(name, tmp_path):
    import onnxruntime

    kind, config = MODELS[name]
    save_weights(tmp_path / "w", image_models.weights_of(kind, config))
    if config.dtype == "bfloat16":  # ONNX computes it in float32
        config = dataclasses.replace(config, dtype="float32")
    objective = image_models.OBJECTIVES[kind](config)
    module = getattr(prior_jax, LOADERS[kind])(tmp_path / "w").module
    side = config.image.image_size
    program = image_program(objective, module, image_shape=(side, side, 1))
    model = export_onnx(program.function, program.inputs, program.outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = np.random.default_rng(0).normal(size=(max(BATCHES), side, side, 1)).astype(np.float32)
    expected = jax.tree.map(np.asarray, jax.jit(program.function)(image))
    for rows in BATCHES:
        found = session.run(list(program.outputs), {"image": image[:rows]})
        answers = {output: expected[output][:rows] for output in program.outputs}
        tolerance = 3e-2 if name == "bfloat16" else 1e-4
        tiny_towers.assert_near(dict(zip(program.outputs, found, strict=True)), answers, tolerance)
