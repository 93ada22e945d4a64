"""What `launch.export` writes beside a ResNet comes back when the ResNet is imported again."""

import dataclasses
import json

import pytest

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.export.finetuned_files import finetuned_files
from prior_jax.interop.export.image_files import image_files
from prior_jax.interop.sources.imports import (
    from_tensors,
    import_weights,
    open_checkpoint,
    release_state_dict,
)
from prior_jax.interop.sources.plans import Unseen
from prior_jax.interop.weights_folder import load_weights
from tests.interface import image_models
from tests.interop import exports
from tests.interop.checkpoint_shapes import filled, resnet, same
from tests.launch import forks

IMAGE = {
    "size": 48, "channels": 3, "mean": (0.3,) * 3, "std": (0.2,) * 3, "fit": "pad",
    "equalize": True, "to_white": False, "draft_margin": None,
}  # fmt: skip
ORIGIN = {
    "source": "launch.train", "run": "mine", "step": 7, "licence": "Trained on MIMIC-CXR: ...",
}  # fmt: skip
SOURCES = ("resnet", "torchvision", "timm")


@pytest.fixture(scope="module")
def weights():
    made = exports.image_weights(in_channels=3, block="basic", stem_pool=False)
    return dataclasses.replace(made, data={"image": IMAGE}, origin=ORIGIN)


@pytest.fixture
def folder(weights, tmp_path):
    for name, content in image_files(weights).files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_images_and_licence_are_those_of_the_run(folder, source, file):
    again = import_weights(source, folder / file)
    assert again.data == {"image": IMAGE}
    assert again.model["resnet"]["stem_pool"] is False
    assert again.origin["licence"] == ORIGIN["licence"]
    assert any("source launch.train, run mine, step 7" in n for n in again.origin["notes"])
    assert len(again.origin["notes"]) == 1
    tensors = exports.tensors_of(image_files(again))
    same(release_state_dict(again), tensors)


def test_what_the_resnet_alone_leaves_out_is_noted(folder):
    rewrite(folder, upsample=61)
    weights = import_weights("resnet", folder)
    assert weights.model["upsample"] == 61
    notes = weights.origin["notes"]
    assert any("resizes its images to 61 pixels" in note for note in notes)


def test_a_folder_of_an_earlier_version_has_no_licence(folder):
    content = json.loads((folder / "config.json").read_text())
    del content["origin"], content["upsample"], content["draft_margin"]
    (folder / "config.json").write_text(json.dumps(content))
    again = import_weights("torchvision", folder)
    assert again.origin["licence"] == "that of whoever trained it"
    assert again.data["image"]["mean"] == IMAGE["mean"]


def test_statistics_that_the_export_did_not_know_stay_unknown(folder):
    rewrite(folder, mean=None, std=None, image_size=None)
    again = import_weights("torchvision", folder)
    assert again.data["image"]["mean"] is None and again.data["image"]["size"] == 224
    assert any("--mean and --std" in note for note in again.origin["notes"])


def test_what_the_user_gives_counts_more(folder):
    unseen = Unseen(image_size=96, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    image = import_weights("resnet", folder, unseen=unseen).data["image"]
    assert (image["size"], image["mean"], image["std"]) == (96, unseen.mean, unseen.std)
    assert image["fit"] == "pad"


def test_files_of_another_origin_are_the_source_s(folder):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    weights = import_weights("torchvision", folder / "other.safetensors")
    assert weights.data["image"]["mean"] == (0.485, 0.456, 0.406)
    (folder / "other.safetensors").rename(folder / "model.safetensors")
    for foreign in ({"architecture": "resnet18", "num_classes": 10}, [1]):
        (folder / "config.json").write_text(json.dumps(foreign))
        weights = import_weights("torchvision", folder)
        assert weights.data["image"]["mean"] == (0.485, 0.456, 0.406)
        assert "BSD-3-Clause" in weights.origin["licence"]


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_of_timm_that_is_no_plain_resnet_is_refused_by_its_name(folder, tmp_path, file):
    (folder / "model.safetensors").rename(folder / file)
    for plain in ("resnet50", "resnet18.a1_in1k", "tv_resnet34", "gluon_resnet50_v1b"):
        (folder / "config.json").write_text(json.dumps({"architecture": plain}))
        assert import_weights("timm", folder).arrays
    for other in ("resnetblur50", "resnetaa50.d_in12k", "resnet50d", "seresnet50"):
        (folder / "config.json").write_text(json.dumps({"architecture": other}))
        with pytest.raises(WeightsError, match=rf"config\.json: architecture: .*'{other}'"):
            import_weights("timm", folder)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"depths": [1, 2]}, WeightsError, r"depths \(1, 2\) in place of \(1, 1\).*move config"),
        ({"in_channels": 1}, WeightsError, "in_channels 1 in place of 3"),
        ({"mean": [0.3]}, ConfigError, r"config\.json: image\.mean: .*3 finite numbers"),
        ({"fit": "crop"}, ConfigError, r"config\.json: image\.fit: .*'crop'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, changes, error, message):
    rewrite(folder, **changes)
    with pytest.raises(error, match=message):
        import_weights("resnet", folder)


def test_a_damaged_description_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json: .*cannot be read.*without it"):
        import_weights("resnet", folder)


def test_a_fine_tuned_classifier_s_encoder_has_its_images_too(tmp_path):
    config = image_models.classification_config(upsample=48)
    weights = image_models.weights_of("classification", config, fit="pad")
    image = weights.data["image"]
    found = finetuned_files(weights.arrays, config, image=image, origin=ORIGIN)
    for name, content in found.files.items():
        (tmp_path / name).write_bytes(content)
    again = import_weights("resnet", tmp_path)
    assert {**again.data["image"], "mean": [0.4], "std": [0.25]} == image
    assert again.data["image"]["mean"] == (0.4,)
    assert again.origin["licence"] == ORIGIN["licence"]
    assert any("resizes its images to 48 pixels" in note for note in again.origin["notes"])
    assert set(again.kept) >= {"fc.weight", "fc.bias"}


def test_a_resnet_of_unknown_training_has_no_statistics():
    weights = from_tensors("resnet", filled(resnet())).weights
    assert weights.data["image"] == {"size": 224, "channels": 3, "mean": None, "std": None}
    assert weights.origin["licence"] == "that of whoever trained it"
    (note,) = weights.origin["notes"]
    assert "--mean and --std" in note
    unseen = Unseen(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    given = from_tensors("resnet", filled(resnet()), unseen=unseen).weights
    assert (given.data["image"]["mean"], given.data["image"]["std"]) == (unseen.mean, unseen.std)
    assert not given.origin["notes"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": (0.5,) * 3}, "--std: The value is None.*given together"),
        ({"std": (0.5,) * 3}, "--mean: The value is None"),
        ({"mean": (0.5,), "std": (0.5,)}, "--mean: .*3 finite numbers, one for each channel"),
        ({"mean": (0.5, 0.5, float("nan")), "std": (0.5,) * 3}, "--mean: .*finite"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0.5, 0.0)}, "--std: .*finite numbers above 0"),
    ],
)
def test_statistics_that_normalise_nothing_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        from_tensors("resnet", filled(resnet()), unseen=Unseen(**given))


def test_the_program_takes_the_statistics_as_flags(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "foreign.safetensors")
    given = ["--source=resnet", f"--checkpoint={tmp_path / 'foreign.safetensors'}"]
    cases = {"known": ["--mean=0.1,0.2,0.3", "--std=1,2,3"], "none": [], "wrong": ["--mean=a,b"]}
    found = dict(zip(cases, forks.run_all([
        ("launch.import_weights", [*given, f"--out={tmp_path / name}", *flags])
        for name, flags in cases.items()
    ]), strict=True))  # fmt: skip
    assert [one["code"] for one in found.values()] == [0, 0, 2]
    image = load_weights(tmp_path / "known").data["image"]
    assert (image["mean"], image["std"]) == ([0.1, 0.2, 0.3], [1, 2, 3])
    assert "note: nothing tells the mean" in found["none"]["out"]
    assert "licence: that of whoever trained it" in found["none"]["out"]
    assert "--mean: The value is ['a', 'b']" in found["wrong"]["err"]
    assert open_checkpoint("resnet", tmp_path / "foreign.safetensors").weights.arrays
