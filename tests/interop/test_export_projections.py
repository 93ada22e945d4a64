"""What follows PRIOR's encoders is exported whole, under the names of its release."""

import numpy as np
import pytest
from flax import traverse_util

from prior_jax.interface.place import filled, one_device
from prior_jax.interop.export.image_files import image_files
from prior_jax.interop.export.text_files import text_files
from prior_jax.interop.sources.prior_names import prior_table
from prior_jax.interop.torch.names import Table, to_nnx
from prior_jax.objectives.prior import PriorObjective
from prior_jax.train.state import define_model
from tests.interop import exports
from tests.objectives import tiny


@pytest.fixture(scope="module")
def prior():
    return exports.prior_weights()


def test_priors_projections_have_the_releases_names(prior):
    image = exports.tensors_of(image_files(prior), "projection.safetensors")
    assert image["image_encoder.atten_pool.positional_embedding"].ndim == 2
    kernel = prior.arrays["global_image_projection/kernel"]
    np.testing.assert_array_equal(image["global_image_projection.weight"], kernel.T)
    both = {"logit_scale", "local_logit_scale"}
    both |= {name for name in image if name.startswith("local_cross_attention.")}
    assert len(image) == 9 + 4 + len(both) == 9 + 4 + 14
    text = exports.tensors_of(text_files(prior, None, None), "projection.safetensors")
    assert both < text.keys()
    assert {name.split(".")[0] for name in text.keys() - both} == {
        "local_text_projection",
        "sentence_bank",
        "global_text_attention",
    }


def _text_of(batch):
    names = ("tokens", "token_mask", "sentence_index", "sentence_mask")
    return [getattr(batch, name) for name in names]


def test_a_report_is_encoded_from_the_exported_text_tower_alone(prior):
    exported, config = text_files(prior, None, None), exports.prior_config()
    tensors = exports.tensors_of(exported, "projection.safetensors")
    bert = exports.tensors_of(exported)
    tensors |= {f"text_encoder.encoder.{name}": x for name, x in bert.items()}
    entries = tuple(e for e in prior_table(config).entries if e.torch in tensors)
    assert len(entries) == len(tensors)
    ours = {"/".join(e.path): prior.arrays["/".join(e.path)] for e in entries}
    tree = to_nnx(tensors, Table(entries=entries), traverse_util.unflatten_dict(ours, sep="/"))
    ours = traverse_util.flatten_dict(tree, sep="/")
    objective = PriorObjective(config)
    definition, place = define_model(objective.init), one_device()
    text = _text_of(tiny.tiny_batch(rows=2))
    unknown = {name: np.full_like(array, np.nan) for name, array in prior.arrays.items()}
    found = []
    for arrays in (prior.arrays, {**unknown, **ours}):
        module = filled(definition, arrays, place=place, field="weights")
        found.append(objective.encode_report(module, *text))
    assert np.isfinite(found[1].global_).all()
    for name in ("local", "global_"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
