"""Fine-tuned models under the names of the libraries that run them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import prior_jax
from prior_jax.errors import WeightsError
from prior_jax.interop.export.finetuned_files import finetuned_files
from prior_jax.interop.sources.imports import from_tensors, release_state_dict
from prior_jax.interop.weights_folder import save_weights
from prior_jax.nn.classification_head import HeadConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.nn.upernet import POOLS
from prior_jax.objectives.segmentation_config import DecoderConfig
from tests.golden import reader
from tests.interface import image_models
from tests.objectives.test_segmentation import config_of

IMAGE = {"size": 32, "channels": 1, "mean": [0.4], "std": [0.25]}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def exported(kind, config):
    weights = image_models.weights_of(kind, config)
    found = finetuned_files(weights.arrays, config, image=IMAGE)
    return found, safetensors.numpy.load(found.files["model.safetensors"]), weights.arrays


def deep(side=64):
    """An encoder of four stages, as the releases have."""
    return image_models.encoder_config(side=side, depths=(1, 1, 1, 1))


def conv_norm(name, *, conv="conv", norm="bn"):
    return {f"{name}.{conv}.weight", *(f"{name}.{norm}.{each}" for each in NORM)}


@pytest.mark.golden
def test_the_unet_has_the_names_that_were_recorded(golden_dir):
    """Those of segmentation_models_pytorch 0.2.0, with the recorded numbers in them."""
    golden = reader.load(golden_dir, "gloria", "smp_unet").prefix("param/")
    names = {name for name in golden if not name.endswith("num_batches_tracked")}
    counts = [
        len({name.split(".")[2] for name in names if name.startswith(f"encoder.layer{i}.")})
        for i in range(1, 5)
    ]
    stem = golden["encoder.conv1.weight"].shape
    resnet = ResNetConfig(
        depths=tuple(counts), width=stem[0], in_channels=stem[1], block="bottleneck",
        stem_pool=True, remat="none",
    )  # fmt: skip
    blocks = len({name.split(".")[2] for name in names if name.startswith("decoder.blocks.")})
    channels = tuple(golden[f"decoder.blocks.{i}.conv1.0.weight"].shape[0] for i in range(blocks))
    config = config_of(
        DecoderConfig(kind="unet", channels=channels, auxiliary_weight=0.0, dropout=0.0),
        image=ImageEncoderConfig(resnet=resnet, pool="mean", pool_heads=1, image_size=64),
        classes=tuple(map(str, range(golden["segmentation_head.0.weight"].shape[0]))),
    )
    _, tensors, _ = exported("segmentation", config)
    assert {name for name in tensors if not name.endswith("num_batches_tracked")} == names
    for name in names:
        assert tensors[name].shape == golden[name].shape, name


def test_the_detector_has_the_names_of_mgca():
    _, tensors, arrays = exported("detection", image_models.detection_config())
    wanted = set()
    for scale in range(3):
        for block in range(6):
            wanted |= conv_norm(f"embedding{scale}.{block}")
        wanted |= {f"embedding{scale}.conv_out.weight", f"embedding{scale}.conv_out.bias"}
        wanted |= conv_norm(f"embedding{scale}_cbl") if scale else set()
    assert {name for name in tensors if not name.startswith("backbone.model.")} == wanted
    np.testing.assert_array_equal(
        tensors["embedding1_cbl.conv.weight"].transpose(2, 3, 1, 0),
        arrays["head/branches/branch1/conv/kernel"],
    )
    assert tensors["backbone.model.conv1.weight"].shape == (4, 1, 7, 7)
    assert "backbone.model.layer3.0.downsample.0.weight" in tensors


def test_upernet_has_the_names_of_mmsegmentation():
    decoder = DecoderConfig(kind="upernet", channels=(4, 3), auxiliary_weight=0.4, dropout=0.1)
    _, tensors, arrays = exported("segmentation", config_of(decoder, image=deep()))
    head, wanted = "decode_head", set()
    modules = [f"psp_modules.{number}.1" for number in range(len(POOLS))]
    modules += [f"{kind}.{n}" for kind in ("lateral_convs", "fpn_convs") for n in range(3)]
    for name in (*modules, "bottleneck", "fpn_bottleneck"):
        wanted |= conv_norm(f"{head}.{name}")
    wanted |= conv_norm("auxiliary_head.convs.0")
    for name in (head, "auxiliary_head"):
        wanted |= {f"{name}.conv_seg.weight", f"{name}.conv_seg.bias"}
    assert {name for name in tensors if not name.startswith("backbone.")} == wanted
    np.testing.assert_array_equal(
        tensors[f"{head}.psp_modules.2.1.conv.weight"].transpose(2, 3, 1, 0),
        arrays["decoder/pools/pool3/conv/kernel"],
    )
    np.testing.assert_array_equal(
        tensors[f"{head}.lateral_convs.1.bn.running_var"],
        arrays["decoder/laterals/stage2/norm/var"],
    )


@pytest.mark.parametrize("kind", ["linear", "unet_transposed"])
def test_lovt_s_decoders_have_names_of_their_own(kind):
    config = config_of(kind)
    _, tensors, arrays = exported("segmentation", config)
    if kind == "linear":
        array, name = arrays["decoder/output/kernel"], "segmentation_head.classifier.weight"
        assert "encoder.layer1.0.conv1.weight" in tensors
    else:
        array, name = arrays["decoder/bridge/conv2/kernel"], "bridge.bridge.1.conv.weight"
        assert "up_blocks.1.upsample.weight" in tensors and "input_block.0.weight" in tensors
    np.testing.assert_array_equal(tensors[name].transpose(2, 3, 1, 0), array)


@pytest.mark.parametrize("kind", ["linear", "mlp", "layer_norm"])
def test_a_classifier_has_the_names_of_torchvision(kind):
    hidden = 6 if kind == "mlp" else None
    head = HeadConfig(kind=kind, hidden=hidden, dropout=0.0)
    found, tensors, arrays = exported(
        "classification", image_models.classification_config(head=head, upsample=48)
    )
    name = "fc" if kind == "linear" else "head.classifier"
    np.testing.assert_array_equal(
        tensors[f"{name}.weight"].T, arrays["head/classifier/kernel"], err_msg=name
    )
    assert {"conv1.weight", "bn1.num_batches_tracked", f"{name}.bias"} <= tensors.keys()
    assert ("head.norm.running_mean" in tensors) == (kind == "mlp")
    assert "resized to 48 pixels" in found.notes[0]
    assert json.loads(found.files["config.json"])["upsample"] == 48


def small_classifier(upsample):
    resnet = ResNetConfig(
        depths=(2, 2, 2, 2), width=64, in_channels=1, block="basic", stem_pool=True, remat="none"
    )
    image = ImageEncoderConfig(resnet=resnet, pool="mean", pool_heads=1, image_size=32)
    return image_models.classification_config(image=image, upsample=upsample)


@pytest.mark.parametrize("upsample", [None, 48])
def test_the_example_resizes_as_the_classifier_does(upsample):
    found, _, _ = exported("classification", small_classifier(upsample))
    lines = found.example.splitlines()
    line = "image = torch.nn.functional.interpolate(image, size=(48, 48), "
    line += 'mode="bilinear", align_corners=True)'
    assert (line in lines) == (upsample is not None) and len(lines) <= 15
    if upsample is not None:
        assert lines.index(line) + 1 == lines.index("logits = model((image - 0.4) / 0.25)")


@pytest.mark.parity
def test_the_example_of_an_enlarging_classifier_gives_its_logits(tmp_path, monkeypatch):
    import torch
    from flax import nnx

    from tests.interop import torch_resnet

    torch_resnet.import_torchvision()
    config = small_classifier(48)
    weights = image_models.weights_of("classification", config)
    found = finetuned_files(weights.arrays, config, image=weights.data["image"])
    for name, content in found.files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).random((1, 1, 32, 32), np.float32)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.from_numpy(image).reshape(shape))
    with torch.no_grad():
        exec(found.example, given := {})
    objective = image_models.OBJECTIVES["classification"](config)
    save_weights(tmp_path / "weights", weights)
    module = prior_jax.load_classifier(tmp_path / "weights").module
    normalised = (image.transpose(0, 2, 3, 1) - image_models.MEAN) / image_models.STD
    ours = nnx.jit(objective.classify)(module, jnp.asarray(normalised))
    theirs = given["logits"].numpy()
    assert np.abs(theirs).max() > 0.01
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("kind", "config", "prefix"),
    [
        ("segmentation", config_of("unet"), "encoder."),
        ("segmentation", config_of("unet_transposed"), None),
        ("segmentation", config_of("upernet"), "backbone."),
        ("segmentation", config_of("linear"), "encoder."),
        ("detection", image_models.detection_config(), "backbone.model."),
        *(
            (
                "classification",
                image_models.classification_config(
                    image=image_models.encoder_config(pool=pool), head=head
                ),
                None,
            )
            for pool in ("mean", "attention")
            for head in (
                HeadConfig(kind="linear", hidden=None, dropout=0.0),
                HeadConfig(kind="mlp", hidden=6, dropout=0.0),
                HeadConfig(kind="layer_norm", hidden=None, dropout=0.0),
            )
        ),
    ],
)
def test_the_resnet_of_every_model_comes_back_bit_for_bit(kind, config, prefix):
    _, tensors, arrays = exported(kind, config)
    again = from_tensors("resnet", tensors, prefix=prefix).weights
    start = "image_encoder/"
    wanted = {name.removeprefix(start): x for name, x in arrays.items() if name.startswith(start)}
    wanted = {name: x for name, x in wanted.items() if name.startswith("resnet/")}
    assert again.arrays.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(again.arrays[name], array, err_msg=name)
    for name, array in release_state_dict(again).items():
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)


def test_every_array_is_exported_once_and_nothing_else():
    for kind, config in (
        ("segmentation", config_of()),
        ("segmentation", config_of("upernet")),
        ("detection", image_models.detection_config()),
        ("classification", image_models.classification_config()),
    ):
        _, tensors, arrays = exported(kind, config)
        counted = {name for name in tensors if not name.endswith("num_batches_tracked")}
        assert len(counted) == len(arrays)
        total = sum(tensors[name].size for name in counted)
        assert total == sum(array.size for array in arrays.values())


def test_the_classes_and_the_images_are_written_beside():
    for loss, words in (("mixed", "the sigmoid of each"), ("cross_entropy", "none of them")):
        found, _, _ = exported("segmentation", config_of(loss=loss))
        settings = json.loads(found.files["config.json"])
        assert settings["classes"] == ["Effusion", "Edema"]
        assert settings["mean"] == [0.4] and settings["model"]["decoder"]["kind"] == "unet"
        assert words in found.notes[-1]


def test_arrays_of_another_model_are_refused():
    arrays = image_models.weights_of("segmentation", config_of("linear")).arrays
    with pytest.raises(WeightsError, match="missing"):
        finetuned_files(arrays, config_of(), image=IMAGE)


def full_size(channels, *, kind="segmentation"):
    resnet = ResNetConfig(
        depths=(3, 4, 6, 3), width=64, in_channels=channels, block="bottleneck", stem_pool=True,
        remat="none",
    )  # fmt: skip
    image = ImageEncoderConfig(resnet=resnet, pool="mean", pool_heads=1, image_size=64)
    if kind == "classification":
        return image_models.classification_config(image=image)
    decoder = DecoderConfig(
        kind="unet", channels=(256, 128, 64, 32, 16), auxiliary_weight=0.0, dropout=0.0
    )
    return config_of(decoder, image=image)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segmentation", "classification"])
def test_the_example_builds_the_model_of_the_library(kind):
    for channels in (1, 3):
        found, _, _ = exported(kind, full_size(channels, kind=kind))
        library = "smp.Unet(" if kind == "segmentation" else "torchvision.models."
        assert f'{library}"resnet50"' in found.example or f"{library}resnet50(" in found.example
        assert len(found.example.splitlines()) <= 15


@pytest.mark.parity
@pytest.mark.parametrize("channels", [1, 3])
def test_the_unet_computes_the_same_in_its_library(channels, tmp_path, monkeypatch):
    pytest.importorskip("segmentation_models_pytorch")
    import torch
    from flax import nnx

    config = full_size(channels)
    weights = image_models.weights_of("segmentation", config)
    save_weights(tmp_path / "weights", weights)
    found = finetuned_files(weights.arrays, config, image={**IMAGE, "channels": channels})
    for name, content in found.files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    given = {}
    exec(found.example, given)
    image = np.random.default_rng(0).normal(size=(2, 64, 64, channels)).astype(np.float32)
    with torch.no_grad():
        theirs = given["model"](torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
    module = prior_jax.load_segmenter(tmp_path / "weights").module
    ours, _ = nnx.jit(lambda m, x: m(x, train=False))(module, jnp.asarray(image))
    assert 0.1 < np.abs(theirs).mean() < 100
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), rtol=0, atol=1e-3)
