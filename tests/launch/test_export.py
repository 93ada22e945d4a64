import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from jax import export as jax_export

import prior_jax
from launch import export as export_lib
from launch import export_source
from launch.export import FORMATS, Format, export
from launch.export_source import open_source
from prior_jax.errors import ConfigError, DataError, WeightsError
from prior_jax.interop.sources.imports import from_tensors
from prior_jax.interop.weights_folder import load_weights, save_weights
from tests import fixtures
from tests.interface import image_models
from tests.interop import exports
from tests.objectives.test_segmentation import config_of

QUICK = ("image_safetensors", "hf_bert", "nnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of a whole model, with their tokenizer."""
    parent = tmp_path_factory.mktemp("weights")
    words = fixtures.write_vocabulary(parent / "vocab.txt")
    size = len(words.read_text().splitlines())
    save_weights(parent / "prior", exports.prior_weights(vocab_size=size), words)
    return parent / "prior"


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "exported"
    assert export(folder, out, formats=QUICK) == QUICK
    return out


def test_each_format_has_a_folder_with_a_card(exported):
    assert {path.name for path in exported.iterdir()} == set(QUICK)
    for name in QUICK:
        card = (exported / name / "README.md").read_text()
        assert f": {name}" in card
        assert len(exports.example_of(card).strip().splitlines()) <= 15
        for path in (exported / name).rglob("*"):
            told = str(path.relative_to(exported / name))
            assert path.is_dir() or told == "README.md" or f"| {told} |" in card


def test_nnx_comes_back_as_it_was(folder, exported):
    one, other = load_weights(folder), load_weights(exported / "nnx")
    assert one.arrays.keys() == other.arrays.keys()
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    assert (one.model, one.data, one.objective) == (other.model, other.data, other.objective)


def test_the_example_of_a_whole_model_loads_it(exported, monkeypatch):
    monkeypatch.chdir(exported / "nnx")
    code = exports.example_of((exported / "nnx" / "README.md").read_text())
    model = prior_jax.load(".")
    assert 'prior_jax.load(".")' in code and model.text.max_tokens == 24


def test_one_format_fills_the_folder_itself(folder, tmp_path):
    assert export(folder, tmp_path / "bert", formats=("hf_bert",)) == ("hf_bert",)
    assert (tmp_path / "bert" / "config.json").is_file()
    assert (tmp_path / "bert" / "vocab.txt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["bert"]


def test_release_names_leave_bit_for_bit(tmp_path):
    weights = exports.image_weights(in_channels=3, block="basic")
    tensors = exports.tensors_of(export_lib.image_files(weights))
    tensors["fc.weight"] = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors["conv1.weight"] = tensors["conv1.weight"].astype(np.float16)
    imported = from_tensors("torchvision", tensors).weights
    save_weights(tmp_path / "weights", imported)
    found = export(tmp_path / "weights", tmp_path / "out")
    assert found == ("image_safetensors", "nnx", "release")
    again = safetensors.numpy.load_file(tmp_path / "out" / "release" / "model.safetensors")
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)
    card = (tmp_path / "out" / "release" / "README.md").read_text()
    assert "BSD-3-Clause" in card


@pytest.mark.parametrize(
    ("formats", "error", "message"),
    [
        (("torchscript",), ConfigError, "--format: .*'torchscript'.* from all, image"),
        ((), ConfigError, "--format: No format is given"),
        (("release",), WeightsError, "--format=release: .*launch.import_weights"),
    ],
)
def test_formats_that_cannot_be_are_refused(folder, tmp_path, formats, error, message):
    with pytest.raises(error, match=message):
        export(folder, tmp_path / "out", formats=formats)
    assert not any(tmp_path.iterdir())


def test_parts_that_a_format_does_not_write_are_refused(tmp_path):
    save_weights(tmp_path / "image", exports.image_weights())
    with pytest.raises(WeightsError, match=r"--format=hf_bert: .*part 'image'.*'text' or 'model'"):
        export(tmp_path / "image", tmp_path / "out", formats=("hf_bert",))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"--workdir.*launch\.train"):
        open_source(tmp_path, step=None)
    with pytest.raises(DataError, match="--workdir"):
        open_source(tmp_path / "absent", step=None)
    (tmp_path / "config.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ConfigError, match=r"config\.seed"):
        open_source(tmp_path, step=None)


def test_weights_have_no_steps(folder):
    with pytest.raises(ConfigError, match="--step: Step 3 "):
        open_source(folder, step=3)


def test_a_folder_that_is_there_stays_as_it_is(folder, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="--out"):
        export(folder, tmp_path, formats=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_halfway_leaves_nothing(folder, tmp_path, monkeypatch):
    def fail(source, folder):
        raise OSError("disk full")

    broken = Format(write=fail, parts=("model",))
    monkeypatch.setattr(export_lib, "FORMATS", {**FORMATS, "nnx": broken})
    with pytest.raises(ConfigError, match="disk full"):
        export(folder, tmp_path / "out", formats=("image_safetensors", "nnx"))
    assert not any(tmp_path.iterdir())


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", [name for name, one in FORMATS.items() if name != "release" and one.models != "images"]
)
def test_the_example_in_the_card_runs(folder, tmp_path, monkeypatch, name):
    from tests.interop import torch_resnet

    torch_resnet.import_torchvision()
    export(folder, tmp_path / name, formats=(name,))
    monkeypatch.chdir(tmp_path / name)
    exec(exports.example_of((tmp_path / name / "README.md").read_text()), {})


FINETUNED = {
    "segmentation": (config_of(), "load_segmenter"),
    "detection": (image_models.detection_config(), "load_detector"),
    "classification": (image_models.classification_config(), "load_classifier"),
}


@pytest.mark.parametrize("kind", FINETUNED)
def test_a_fine_tuned_model_leaves_whole_and_comes_back(kind, tmp_path, monkeypatch):
    config, loader = FINETUNED[kind]
    folder = image_models.saved(tmp_path / "weights", kind, config, fit="pad")
    names = ("image_safetensors", "model_safetensors", "nnx")
    assert export(folder, tmp_path / "out", formats=names) == names
    cards = {name: (tmp_path / "out" / name / "README.md").read_text() for name in names}
    for card in cards.values():
        assert f"objective `{kind}`" in card and "tokenizer" not in card
        assert "black margins on both sides" in card
    image = safetensors.numpy.load_file(tmp_path / "out/image_safetensors/model.safetensors")
    assert "layer3.0.conv1.weight" in image or "layer2.0.conv1.weight" in image
    assert not (tmp_path / "out/image_safetensors/projection.safetensors").exists()
    before, after = load_weights(folder), load_weights(tmp_path / "out" / "nnx")
    assert all(np.array_equal(before.arrays[n], after.arrays[n]) for n in before.arrays)
    monkeypatch.chdir(tmp_path / "out" / "nnx")
    code = exports.example_of(cards["nnx"])
    assert f'prior_jax.{loader}(".")' in code
    exec(code, {})


@pytest.mark.parametrize("kind", FINETUNED)
def test_a_program_of_a_fine_tuned_model_gives_what_the_model_gives(kind, tmp_path):
    config, loader = FINETUNED[kind]
    folder = image_models.saved(tmp_path / "weights", kind, config)
    export(folder, tmp_path / "out", formats=("stablehlo",))
    content = (tmp_path / "out" / "model.stablehlo").read_bytes()
    program = jax_export.deserialize(bytearray(content))
    side = config.image.image_size
    image = jnp.asarray(np.random.default_rng(0).normal(size=(3, side, side, 1)), jnp.float32)
    found = jax.tree.map(np.asarray, program.call(image))
    model = getattr(prior_jax, loader)(folder)
    objective = image_models.OBJECTIVES[kind](config)
    card = (tmp_path / "out" / "README.md").read_text()
    if kind == "detection":
        assert "before non-maximum suppression" in card and "at least 0.2" in card
        decoded = nnx.jit(objective.decoded)(model.module, image)
        np.testing.assert_allclose(found["scores"], decoded[..., 4], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["classes"], decoded[..., 5:], rtol=1e-4, atol=1e-6)
        centre = (found["boxes"][..., :2] + found["boxes"][..., 2:]) / 2
        np.testing.assert_allclose(centre, decoded[..., :2], rtol=1e-3, atol=1e-2)
    else:
        odds = objective.segment if kind == "segmentation" else objective.classify
        wanted = np.asarray(nnx.jit(odds)(model.module, image))
        np.testing.assert_allclose(found["log_odds"], wanted, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(
            found["probabilities"], 1 / (1 + np.exp(-found["log_odds"])), rtol=1e-4, atol=1e-6
        )
        assert ", ".join(config.classes) in card


def test_formats_of_text_and_of_images_alone_are_kept_apart(folder, tmp_path):
    finetuned = image_models.saved(tmp_path / "weights", "segmentation", config_of())
    with pytest.raises(WeightsError, match=r"hf_bert: .*objective 'segmentation'.*reads reports"):
        export(finetuned, tmp_path / "out", formats=("hf_bert",))
    with pytest.raises(WeightsError, match=r"model_safetensors: .*'prior'.*reads images alone"):
        export(folder, tmp_path / "out", formats=("model_safetensors",))


def test_the_results_of_a_fine_tuning_are_on_its_card(tmp_path):
    results = tmp_path / "eval"
    results.mkdir()
    content = {"metrics": {}, "untrained": {}, "settings": {}}
    for task in ("segmentation_any_set", "probe"):
        (results / f"{task}.json").write_text(json.dumps({"task": task, **content}))
    for name, wanted in (("model", ["segmentation_any_set"]), ("random", [])):
        run = tmp_path / "finetune" / "segmentation_any_set" / name
        run.mkdir(parents=True)
        (run / "training.json").write_text("{}")
        assert [one["task"] for one in export_source.results_of(run)] == wanted


@pytest.mark.parity
@pytest.mark.parametrize("kind", FINETUNED)
def test_the_examples_of_a_fine_tuned_model_run(kind, tmp_path, monkeypatch):
    folder = image_models.saved(tmp_path / "weights", kind, FINETUNED[kind][0])
    for name in export(folder, tmp_path / "out"):
        monkeypatch.chdir(tmp_path / "out" / name)
        exec(exports.example_of((tmp_path / "out" / name / "README.md").read_text()), {})
