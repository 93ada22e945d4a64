"""Checkpoints that do not fit their source are refused, and say which names do not."""

import numpy as np
import pytest

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.imports import from_tensors, release_state_dict
from prior_jax.interop.sources.table import SOURCES
from tests.interop.checkpoint_shapes import HEADS, HIDDEN, filled, gloria, linear, resnet, same


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "gloria"])
def test_another_sources_file_is_refused_by_its_names(source):
    with pytest.raises(WeightsError, match=r"names such as gloria\.img_encoder") as caught:
        from_tensors(source, gloria())
    assert source in str(caught.value)


def test_everything_wrong_is_listed_at_once():
    tensors = gloria()
    del tensors["gloria.text_encoder.model.encoder.layer.1.output.dense.bias"]
    tensors["gloria.img_encoder.model.layer2.1.bn2.weight"] = np.zeros(9, np.float32)
    tensors["gloria.img_encoder.model.bn1.num_batches_tracked"] = np.zeros(2, np.int64)
    tensors["gloria.img_encoder.model.layer3.0.conv1.weight"] = np.zeros(3, np.float32)
    tensors["gloria.img_encoder.model.bn9.num_batches_tracked"] = np.array(1)
    tensors["gloria.img_encoder.global_embedder.bias"] = np.zeros(HIDDEN, np.float64)
    with pytest.raises(WeightsError) as caught:
        from_tensors("gloria", tensors, unseen=HEADS)
    found = caught.value.problems
    assert found["missing"] == ["gloria.text_encoder.model.encoder.layer.1.output.dense.bias"]
    assert sorted(found["extra"]) == [
        "gloria.img_encoder.model.bn9.num_batches_tracked",
        "gloria.img_encoder.model.layer3.0.conv1.weight",
    ]
    assert [line.split(":")[0] for line in found["misshaped"]] == [
        "gloria.img_encoder.model.layer2.1.bn2.weight",
        "gloria.img_encoder.model.bn1.num_batches_tracked",
    ]
    assert found["mistyped"][0].startswith("gloria.img_encoder.global_embedder.bias: float64")


@pytest.mark.parametrize(
    ("head", "prefix"),
    [
        ("classifier.0.convs.0.0", "backbone."),
        ("aux_classifier.4", "backbone"),
        ("model.classifier.4", "model.backbone."),
    ],
)
def test_the_dilated_resnet_of_a_segmentation_is_refused(head, prefix):
    before = prefix.removesuffix(".").removesuffix("backbone")
    tensors = filled(resnet(), f"{before}backbone.")
    linear_probe = {**tensors, **filled(linear(f"{before}classifier", 5, 8))}
    from_tensors("torchvision", linear_probe, prefix=prefix)
    tensors[f"{head}.weight"] = np.zeros((21, 8, 1, 1), np.float32)
    with pytest.raises(WeightsError, match=rf"{head}\.weight: .* is dilated"):
        from_tensors("torchvision", tensors, prefix=prefix)


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight"])
@pytest.mark.parametrize("axis", [0, -1])
def test_a_misshaped_tensor_is_not_believed(name, axis):
    tensors = filled(resnet())
    shape = list(tensors[name].shape)
    shape[axis] += 1
    tensors[name] = np.zeros(shape, np.float32)
    with pytest.raises(WeightsError) as caught:
        from_tensors("torchvision", tensors)
    assert list(caught.value.problems) == ["misshaped"]
    assert len(caught.value.problems["misshaped"]) == 1


@pytest.mark.parametrize("name", list(filled(resnet()))[::4])
def test_a_missing_tensor_is_named(name):
    tensors = filled(resnet())
    del tensors[name]
    if name.endswith("num_batches_tracked"):
        same(release_state_dict(from_tensors("torchvision", tensors).weights), tensors)
        return
    with pytest.raises(WeightsError) as caught:
        from_tensors("torchvision", tensors)
    assert caught.value.problems == {"missing": [name]}


@pytest.mark.parametrize(
    ("source", "prefix", "head"),
    [
        ("torchvision", "", "fc"),
        ("gloria", "gloria.img_encoder.model.", "gloria.img_encoder.global_embedder"),
        ("prior", "image_encoder.encoder.", "local_image_projection"),
    ],
)
def test_a_last_stage_that_is_missing_is_named_where_a_classifier_tells_of_it(source, prefix, head):
    stages = ("layer1", "layer2", "layer3")
    whole = resnet(depths=(1, 1, 1), stages=stages)
    tensors = {**filled(whole, prefix), **filled(linear(head, 10, 16))}
    from_tensors(source, tensors, part="image")
    for name in [name for name in tensors if ".layer3." in f".{name}"]:
        del tensors[name]
    stages = rf"the 8 features of .*layer2, the last stage in the file: {prefix}layer3, .*missing"
    with pytest.raises(WeightsError, match=rf"{head}\.weight: .*16 features.*{stages}"):
        from_tensors(source, tensors, part="image")
    # Without a classifier a shorter ResNet is a ResNet.
    del tensors[f"{head}.weight"], tensors[f"{head}.bias"]
    assert from_tensors(source, tensors, part="image").weights.model["resnet"]["depths"] == (1, 1)
