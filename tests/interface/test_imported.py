"""A folder of weights opens as the model that was put in, or says what it lacks."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax import nnx

import prior_jax
from prior_jax.errors import CheckpointError, ConfigError, DataError, WeightsError
from prior_jax.interop.weights_folder import Weights, save_weights
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import RELEASE_WEIGHTS
from prior_jax.train.state import define_model
from tests import fixtures
from tests.interface.conftest import IMAGE, TEXT, small_text
from tests.objectives import tiny

DATA = {
    "image": dataclasses.asdict(IMAGE),
    "tokenizer": {"kind": "wordpiece", "lower_case": True},
    "caption": "report",
    "text_mode": TEXT.mode,
    "max_tokens": TEXT.max_tokens,
    "max_sentences": TEXT.max_sentences,
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return fixtures.write_vocabulary(tmp_path_factory.mktemp("words") / "vocab.txt")


@pytest.fixture(scope="module")
def config(tokenizer):
    plain = {stage: dict(terms) for stage, terms in RELEASE_WEIGHTS.items()}
    return tiny.tiny_config(text=small_text(tokenizer), weights=plain)


@pytest.fixture(scope="module")
def weights(config):
    """Random arrays of the model, and the section that it is built from."""
    section = dataclasses.asdict(config)
    del section["image"]["image_size"], section["image"]["resnet"]["in_channels"]
    del section["text"]["vocab_size"], section["text"]["pad_token"]
    del section["bank"]["start_step"], section["bank"]["steps"]
    model, rng = define_model(PriorObjective(config).init), np.random.default_rng(0)
    return Weights(
        part="model",
        objective="prior",
        model=section,
        data=DATA,
        origin={"source": "drawn"},
        arrays={
            name: rng.normal(size=leaf.shape).astype(leaf.dtype)
            for name, leaf in {**model.params, **model.rest}.items()
        },
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory, weights, vocabulary):
    path = tmp_path_factory.mktemp("saved") / "weights"
    save_weights(path, weights, vocabulary)
    return path


@pytest.fixture
def folder(tmp_path, saved):
    return shutil.copytree(saved, tmp_path / "weights")


def edit(folder, *path, value=None):
    """Sets a value of weights.json, or removes it if None."""
    content = json.loads((folder / "weights.json").read_text())
    part = content
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    (folder / "weights.json").write_text(json.dumps(content))


def test_the_model_comes_back(saved, weights, config):
    found = prior_jax.load(saved)
    state = nnx.to_flat_state(nnx.as_pure(nnx.split(found.module)[1]))
    arrays = {"/".join(map(str, path)): value for path, value in state}
    assert arrays.keys() == weights.arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, weights.arrays[name])
        assert len(array.devices()) == 1
    for part in ("image", "text", "sentence_decoder"):
        assert getattr(found.objective.config, part) == getattr(config, part)
    assert found.text == TEXT and found.image == IMAGE
    with pytest.raises(CheckpointError, match="no steps, but step 3"):
        prior_jax.load(saved, step=3)


def test_limits_that_weights_do_not_know_have_defaults(folder):
    edit(folder, "data", "max_sentences")
    assert prior_jax.load(folder).text.max_sentences == 32


@pytest.mark.parametrize(
    ("path", "value", "error", "message"),
    [
        (("tokenizer",), {}, WeightsError, r"no tokenizer.*--tokenizer=FILE.*Bio_ClinicalBERT"),
        (("objective",), "prier", WeightsError, r"part 'model' of the objective 'prier'"),
        (
            ("data", "text_mode"),
            None,
            ConfigError,
            r"weights\.json: data\.text_mode: The setting is missing",
        ),
        (("data", "image", "size"), None, ConfigError, r"weights\.json: data\.image\.size"),
        (("data", "tokenizer", "lower_case"), None, ConfigError, r"data\.tokenizer\.lower_case"),
        (("data", "splitter"), "spacy", DataError, r"data\.splitter: The value is 'spacy'"),
        (("model", "embed_dim"), None, ConfigError, r"config\.model\.embed_dim"),
        (("model", "embed_dim"), 8, WeightsError, r"\(16, 16\) in the weights"),
        (("model", "text", "vocab_size"), 9, ConfigError, r"config\.model\.text\.vocab_size"),
    ],
)
def test_what_is_missing_is_named(folder, path, value, error, message):
    edit(folder, *path, value=value)
    with pytest.raises(error, match=message) as found:
        prior_jax.load(folder)
    assert "\n" not in str(found.value)


def test_images_without_statistics_are_refused(tmp_path, weights, vocabulary):
    image = {**DATA["image"], "mean": None, "std": None}
    found = dataclasses.replace(weights, data={**DATA, "image": image})
    save_weights(tmp_path / "w", found, vocabulary)
    with pytest.raises(WeightsError, match=r"data\.image\.mean: The mean .*is missing"):
        prior_jax.load(tmp_path / "w")


def test_a_tokenizer_of_another_size_is_refused(tmp_path, weights, vocabulary):
    longer = tmp_path / "vocab.txt"
    longer.write_text(vocabulary.read_text() + "lung\n")
    save_weights(tmp_path / "w", weights, longer)
    with pytest.raises(
        WeightsError, match=r"vocab\.txt: The tokenizer has \d+ tokens.*word embeddings"
    ):
        prior_jax.load(tmp_path / "w")


def test_an_encoder_alone_is_no_model(tmp_path):
    arrays = {"resnet/stem_norm/scale": np.ones(4, np.float32)}
    save_weights(
        tmp_path / "w",
        Weights(part="image", objective=None, model={}, data={}, origin={}, arrays=arrays),
    )
    with pytest.raises(WeightsError, match=r"part 'image' of the objective None.*config\.init"):
        prior_jax.load(tmp_path / "w")
