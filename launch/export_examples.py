"""The Python on the model cards that loads exported files, with places for what differs."""

STABLEHLO_TOWERS = """\
import pathlib

import numpy as np
from jax import export

towers = {{
    name: export.deserialize(bytearray(pathlib.Path(f"{{name}}.stablehlo").read_bytes()))
    for name in ("image", "text")
}}
features = towers["image"].call(np.zeros({shape}, np.float32))
print({{name: value.shape for name, value in features.items()}})
print(towers["text"].in_avals)"""

ONNX_TOWERS = """\
import numpy as np
import onnxruntime

image = onnxruntime.InferenceSession("image.onnx")
(features,) = image.run(["global_"], {{"image": np.zeros({shape}, np.float32)}})
print(features.shape)
text = onnxruntime.InferenceSession("text.onnx")
print([(one.name, one.shape) for one in text.get_inputs()])"""

STABLEHLO_IMAGE = """\
import pathlib

import numpy as np
from jax import export

model = export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
found = model.call(np.zeros({shape}, np.float32))
print({{name: found[name].shape for name in {outputs}}})"""

ONNX_IMAGE = """\
import numpy as np
import onnxruntime

model = onnxruntime.InferenceSession("model.onnx")
names = {outputs}
found = model.run(names, {{"image": np.zeros({shape}, np.float32)}})
print({{name: array.shape for name, array in zip(names, found)}})"""

IMAGE_MODEL = """\
import numpy as np
import prior_jax

model = prior_jax.{loader}(".")
found = model.predict(np.zeros((100, 80), np.uint8))  # or paths of images
print(model.classes, found[0])"""

WHOLE_MODEL = """\
import prior_jax

model = prior_jax.load(".")
reports = model.encode_text(["No pleural effusion.", "The heart is enlarged."])
print(reports.global_.shape)"""

ARRAYS = """\
from prior_jax.interop.weights_folder import load_weights

weights = load_weights(".")
for name, array in weights.arrays.items():
    print(name, array.shape)"""

RELEASE = """\
from safetensors.numpy import load_file

state_dict = load_file("model.safetensors")
print(len(state_dict), next(iter(state_dict)))"""
