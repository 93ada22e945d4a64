"""Exported detectors have the names that were recorded of the releases' head."""

import pytest
import safetensors.numpy

from prior_jax.interop.export.finetuned_files import finetuned_files
from tests.golden import reader
from tests.interface import image_models

pytestmark = pytest.mark.golden


@pytest.mark.golden_full
def test_a_detector_has_the_names_of_the_recorded_head(golden_dir):
    golden = reader.load(golden_dir, "downstream", "yolo_head")
    config = image_models.detection_config()
    arrays = image_models.weights_of("detection", config).arrays
    found = finetuned_files(arrays, config, image={"size": 32, "channels": 1})
    tensors = safetensors.numpy.load(found.files["model.safetensors"])
    counter = "num_batches_tracked"  # without information, and not recorded everywhere
    names = {name for name in tensors if not name.startswith("backbone.model.")}
    recorded = {str(name) for name in golden["in/param_names"]}
    assert {name for name in names if not name.endswith(counter)} == {
        name for name in recorded if not name.endswith(counter)
    }
