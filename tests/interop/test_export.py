import dataclasses
import importlib
import json
import pkgutil

import numpy as np
import pytest
from flax import nnx

import data_prep
from prior_jax.data.tokenizer import TokenizerConfig, open_tokenizer
from prior_jax.errors import DataError, WeightsError
from prior_jax.interop.export.image_files import image_files
from prior_jax.interop.export.model_card import (
    LICENCES,
    PHANTOM,
    DataFacts,
    Facts,
    licence_of_run,
    model_card,
)
from prior_jax.interop.export.text_files import text_files
from prior_jax.interop.huggingface.tokenizer_files import check_same_ids, tokenizer_files
from prior_jax.interop.sources.imports import from_tensors, open_checkpoint
from prior_jax.objectives.clip import ClipConfig
from prior_jax.objectives.two_tower import TwoTowerModel
from tests import fixtures
from tests.interop import exports
from tests.interop.checkpoint_shapes import mgca
from tests.nn import small
from tests.objectives import baselines, tiny

FACTS = Facts(name="run", step=7, config=None, data=None, tokenizer=None, results=())


@pytest.fixture(scope="module")
def prior():
    return exports.prior_weights()


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    path = fixtures.write_vocabulary(tmp_path_factory.mktemp("words") / "vocab.txt")
    config = TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    return open_tokenizer(config), config


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    path = fixtures.train_sentencepiece(tmp_path_factory.mktemp("pieces") / "tokenizer.model")
    config = TokenizerConfig(kind="sentencepiece", path=str(path), lower_case=False)
    return open_tokenizer(config), config


def test_a_resnet_has_torchvisions_names():
    weights = exports.hollow_image_weights(depths=(3, 4, 6, 3))
    tensors = exports.tensors_of(image_files(weights))
    # torchvision's resnet50 has 320, two of them the classifier's
    assert len(tensors) == 318
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert len(counters) == 53
    assert all(tensors[name].dtype == np.int64 and tensors[name].shape == () for name in counters)
    assert {"conv1.weight", "layer3.5.conv2.weight", "layer4.0.downsample.1.running_var"} <= set(
        tensors
    )


@pytest.mark.parametrize("in_channels", [1, 3])
def test_an_exported_resnet_comes_back_as_it_was(in_channels):
    weights = exports.image_weights(in_channels=in_channels, block="basic")
    tensors = exports.tensors_of(image_files(weights))
    again = from_tensors("torchvision", tensors).weights
    assert again.arrays.keys() == weights.arrays.keys()
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name], err_msg=name)
    kernel = weights.arrays["resnet/stem_conv/kernel"]
    np.testing.assert_array_equal(tensors["conv1.weight"][1, 0, 2, 5], kernel[2, 5, 0, 1])


def test_the_settings_say_how_images_are_read():
    exported = image_files(exports.image_weights())
    settings = exports.settings_of(exported)
    assert settings["depths"] == [1, 1] and settings["block"] == "bottleneck"
    assert (settings["image_size"], settings["mean"], settings["std"]) == (32, [0.4], [0.25])
    assert "none" in settings["architecture"]
    shape = {"depths": (2, 2, 2, 2), "width": 64, "block": "basic"}
    standard = image_files(exports.hollow_image_weights(**shape))
    assert exports.settings_of(standard)["architecture"] == "resnet18"
    assert "torchvision.models.resnet18()" in standard.example
    assert "(image - 0.4) / 0.25" in standard.example
    loose = exports.hollow_image_weights(**shape, stem_pool=False)
    assert exports.settings_of(image_files(loose))["architecture"] != "resnet18"


def gloria_s(upsample):
    """Hollow weights of a whole GLoRIA as far as its image encoder goes."""
    shape = {"depths": (2, 2, 2, 2), "width": 64, "block": "basic", "in_channels": 3}
    encoder = exports.hollow_image_weights(**shape)
    return dataclasses.replace(
        encoder,
        part="model",
        objective="gloria",
        model={"image": {**encoder.model, "upsample": upsample}},
        data={"image": {**encoder.data["image"], "mean": [0.5] * 3, "std": [0.5] * 3}},
        arrays={f"image_encoder/{name}": array for name, array in encoder.arrays.items()},
    )


def classifier_s(upsample):
    """The same of a classifier, which has the setting at another place."""
    weights = gloria_s(upsample)
    image = {name: value for name, value in weights.model["image"].items() if name != "upsample"}
    model = {"image": image, "upsample": upsample}
    return dataclasses.replace(weights, objective="classification", model=model)


@pytest.mark.parametrize("made", [gloria_s, classifier_s])
def test_a_model_that_resizes_its_images_first_says_so_everywhere(made):
    weights = made(299)
    exported = image_files(weights)
    assert exports.settings_of(exported)["upsample"] == 299
    lines = exported.example.splitlines()
    line = "image = torch.nn.functional.interpolate(image, size=(299, 299), "
    line += 'mode="bilinear", align_corners=True)'
    assert lines.index(line) + 1 == lines.index(
        "features = model((image - 0.5) / 0.5)  # float32[1, 512]"
    )
    assert len(lines) <= 15
    assert any("299 x 299 pixels" in note for note in exported.notes)
    config = {"name": "run", "model": weights.model, "stages": {}}
    card = model_card(
        kind="image_safetensors", about=weights, exported=exported, files={},
        facts=dataclasses.replace(FACTS, config=config),
    )  # fmt: skip
    assert "| resized within the model | to 299 x 299 pixels, bilinearly" in card
    assert f"| model.{'image.' * (made is gloria_s)}upsample | 299 |" in card
    exported = image_files(made(None))
    assert exports.settings_of(exported)["upsample"] is None
    assert "interpolate" not in exported.example and "resized" not in " ".join(exported.notes)
    card = model_card(
        kind="image_safetensors", about=made(None), exported=exported, facts=FACTS, files={}
    )
    assert "resized within the model" not in card


def test_the_notes_of_an_import_are_on_the_card():
    weights = from_tensors("mgca", mgca()).weights
    card = model_card(
        kind="image_safetensors", about=weights, exported=image_files(weights), facts=FACTS,
        files={},
    )  # fmt: skip
    assert "| note | the authors enlarge images to 299 pixels" in card


def test_a_baselines_heads_leave_under_our_names(prior):
    config = ClipConfig(
        dtype="float32",
        image=dataclasses.replace(tiny.tiny_config().image, pool="mean"),
        text=small.bert_config(),
        hidden_dim=None,
        embed_dim=8,
        text_pool="first",
        temperature=0.07,
    )
    module = small.filled(lambda: TwoTowerModel(config, rngs=nnx.Rngs(0)))
    weights = dataclasses.replace(prior, objective="clip", arrays=exports.arrays_of(module))
    tensors = exports.tensors_of(image_files(weights), "projection.safetensors")
    assert set(tensors) == {"image_head.output.weight", "image_head.output.bias"}


@pytest.mark.parametrize("kind", baselines.KINDS)
def test_no_array_of_a_baseline_is_lost(prior, kind):
    _, (_, params, rest) = baselines.made(kind)
    arrays = {"/".join(names): value for names, value in baselines.paths({**params})}
    arrays |= {"/".join(names): value for names, value in baselines.paths({**rest})}
    arrays["image_statistics/mean"] = np.ones(8, np.float32)
    arrays["prototypes_of_both"] = np.ones((3, 8), np.float32)
    weights = dataclasses.replace(prior, objective=kind, arrays=arrays)
    image = exports.tensors_of(image_files(weights), "projection.safetensors")
    text = exports.tensors_of(text_files(weights, None, None), "projection.safetensors")
    outside = {
        name for name in arrays if not name.startswith(("image_encoder/resnet/", "text_encoder/"))
    }
    assert len({*image, *text}) == len(outside)
    assert "image_statistics.mean" in image and "image_statistics.mean" not in text
    assert "prototypes_of_both" in image and "prototypes_of_both" in text


def test_the_attention_pool_of_a_baseline_leaves_with_its_encoder(prior):
    config = tiny.tiny_config().image
    pool = {
        name: value for name, value in prior.arrays.items() if name.startswith("image_encoder/")
    }
    assert config.pool == "attention"
    exported = image_files(dataclasses.replace(prior, objective="clip", arrays=pool))
    tensors = exports.tensors_of(exported, "projection.safetensors")
    assert len(tensors) == 9 and "attention pool" in exported.notes[-1]


def test_bert_says_what_transformers_need_to_know():
    exported = text_files(exports.text_weights(), None, None)
    settings = exports.settings_of(exported)
    assert settings["model_type"] == "bert" and settings["architectures"] == ["BertModel"]
    assert settings["layer_norm_eps"] == 1e-12 and settings["hidden_act"] == "gelu"
    sizes = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    assert [settings[name] for name in sizes] == [2, 4, 16, 24]
    assert "none is here" in exported.notes[-1]


def test_an_exported_bert_comes_back_as_it_was(tmp_path, wordpiece):
    weights = exports.text_weights(vocab_size=wordpiece[0].vocab_size)
    for name, content in text_files(weights, *wordpiece).files.items():
        (tmp_path / name).write_bytes(content)
    again = open_checkpoint("hf_bert", tmp_path)
    assert again.weights.data["tokenizer"]["lower_case"] is True
    assert again.weights.model["heads"] == weights.model["heads"]
    assert again.weights.arrays.keys() == weights.arrays.keys()
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(array, again.weights.arrays[name], err_msg=name)
    config = TokenizerConfig(kind="wordpiece", path=str(again.tokenizer), lower_case=True)
    texts = ["The HEART is normal.", "small_effusion"]
    for one, other in zip(
        wordpiece[0].encode_ids(texts), open_tokenizer(config).encode_ids(texts), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_bert_pads_with_the_tokenizer_s_id(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[MASK]\n[PAD]\n[UNK]\n[CLS]\n[SEP]\nheart\nlung\n")
    config = TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    exported = text_files(exports.text_weights(vocab_size=7), open_tokenizer(config), config)
    assert exports.settings_of(exported)["pad_token_id"] == 1
    exported = text_files(exports.text_weights(vocab_size=7), None, None)
    assert exports.settings_of(exported)["pad_token_id"] == 0


def test_bert_without_a_pooler_says_so():
    weights = exports.text_weights()
    arrays = {name: x for name, x in weights.arrays.items() if not name.startswith("pooler/")}
    exported = text_files(dataclasses.replace(weights, arrays=arrays), None, None)
    assert "pooler.dense.weight" not in exports.tensors_of(exported)
    assert "add_pooling_layer=False" in exported.example


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_tokenizers_give_our_ids(kind, request):
    tokenizer, config = request.getfixturevalue(kind)
    files = tokenizer_files(tokenizer, config, max_length=64)
    content = files["tokenizer.json"].decode()
    records = [fixtures.draw_record(index) for index in range(20)]
    check_same_ids(tokenizer, content, [text for r in records for text in r.sentences])
    settings = json.loads(files["tokenizer_config.json"])
    assert settings["model_max_length"] == 64 and settings["cls_token"] == "[CLS]"


def test_a_tokenizer_of_other_ids_is_refused(wordpiece):
    tokenizer, config = wordpiece
    content = tokenizer_files(tokenizer, config, max_length=64)["tokenizer.json"].decode()
    cased = content.replace('"lowercase": true', '"lowercase": false')
    assert cased != content
    with pytest.raises(WeightsError, match=r"'The heart'.*from a tokenizer\.json"):
        check_same_ids(tokenizer, cased, ["the heart", "The heart"])


def test_what_no_other_library_repeats_is_refused_by_name(sentencepiece, tmp_path):
    config = dataclasses.replace(sentencepiece[1], lower_case=True)
    with pytest.raises(WeightsError, match="lower_case"):
        tokenizer_files(open_tokenizer(config), config, max_length=64)
    import sentencepiece as library

    path = tmp_path / "bytes.model"
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(fixtures.WORDS), model_prefix=str(path.with_suffix("")),
        vocab_size=300, hard_vocab_limit=False, byte_fallback=True, pad_id=0, unk_id=1, bos_id=2,
        eos_id=3, pad_piece="[PAD]", unk_piece="[UNK]", bos_piece="[CLS]", eos_piece="[SEP]",
        control_symbols=["[MASK]"], minloglevel=2,
    )  # fmt: skip
    config = TokenizerConfig(kind="sentencepiece", path=str(path), lower_case=False)
    with pytest.raises(DataError, match=r"bytes\.model: byte_fallback: .* the value True"):
        tokenizer_files(open_tokenizer(config), config, max_length=64)


def test_a_vocabulary_with_repetitions_keeps_its_ids(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nheart\nlung\nheart\nclear\n")
    config = TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    files = tokenizer_files(open_tokenizer(config), config, max_length=8)
    again = tmp_path / "again.txt"
    again.write_bytes(files["vocab.txt"])
    found = open_tokenizer(dataclasses.replace(config, path=str(again)))
    assert found.encode("heart lung clear").ids.tolist() == [7, 6, 8]
    assert found.vocab_size == 9


def test_weights_without_the_encoder_are_refused():
    with pytest.raises(WeightsError, match="no image encoder"):
        image_files(exports.text_weights())
    with pytest.raises(WeightsError, match="no text encoder"):
        text_files(exports.image_weights(), None, None)


def test_a_tokenizer_larger_than_the_embedding_is_refused(wordpiece):
    with pytest.raises(WeightsError, match="30 rows of the word embedding"):
        text_files(exports.text_weights(vocab_size=30), *wordpiece)


def test_a_card_tells_what_it_must(prior):
    exported = image_files(prior)
    metric = {"value": 0.75, "low": 0.7, "high": 0.8}
    result = {
        "task": "zero_shot",
        "metrics": {"macro_auroc": metric, "kappa": {"value": None, "low": None, "high": None}},
        "untrained": {"macro_auroc": {**metric, "value": 0.5}},
        "settings": {"split": "test", "step": 6},
    }
    data = DataFacts(
        path="/sets/mimic",
        program="data_prep.mimic_cxr",
        sha256="f" * 64,
        splits={"train": {"studies": 11, "images": 13, "subjects": 5, "sentences": 17}},
        phantom=False,
    )
    stage = {"length": 2, "warmup": 1, "schedule": "cosine", "learning_rate": 1e-4}
    config = {"name": "run", "seed": 3, "model": {"embed_dim": 16}, "stages": {"stage1": stage}}
    facts = dataclasses.replace(FACTS, config=config, data=data, results=[result], tokenizer="ab12")
    weights = dataclasses.replace(prior, origin={"licence": licence_of_run(config, data)})
    card = model_card(
        kind="image_safetensors", about=weights, exported=exported, facts=facts, files={"x": "00"}
    )
    for told in (
        "checkpoint of step 7", "| seed | 3 |", "| model.embed_dim | 16 |", "learning_rate 0.0001",
        "| train | 11 | 13 | 5 | 17 |", "f" * 64, "32 x 32 pixels", "| standard deviation | 0.25 |",
        "| tokenizer: sha256 | ab12 |", "0.750 [0.700, 0.800]", "step 6, which is not this",
        "Credentialed", "| x | 00 |",
    ):  # fmt: skip
        assert told in card
    assert exported.example in exports.example_of(card)
    assert len(exported.example.splitlines()) <= 15


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (
            {"fit": "stretch", "equalize": False, "to_white": False},
            ["the aspect ratio is not kept"],
        ),
        ({"fit": "pad", "equalize": True}, ["black margins on both sides", "| histogram | equal"]),
        ({"fit": "pad_evenly", "to_white": True}, ["equal black margins", "brightest is 255"]),
        ({}, []),
    ],
)
def test_a_card_tells_how_an_image_becomes_the_model_s(prior, image, told):
    data = {**prior.data, "image": {**prior.data["image"], **image}}
    weights = dataclasses.replace(prior, data=data)
    exported = image_files(weights)
    card = model_card(
        kind="image_safetensors", about=weights, exported=exported, facts=FACTS, files={}
    )
    every = ("made square", "| histogram |", "| levels |")
    assert [row in card for row in every] == [
        "fit" in image, bool(image.get("equalize")), bool(image.get("to_white"))
    ]  # fmt: skip
    assert all(words in card for words in told)
    settings = json.loads(exported.files["config.json"])
    assert {name: settings[name] for name in image} == image


def test_licences_follow_the_data():
    data = DataFacts(path="", program="data_prep.mimic_cxr", sha256="", splits={}, phantom=True)
    assert licence_of_run({}, data) == PHANTOM
    real = dataclasses.replace(data, phantom=False)
    assert "MIMIC-CXR" in licence_of_run({}, real)
    started = licence_of_run({"init": {"image": {"path": "/w", "adapt": ()}, "text": None}}, data)
    assert "started from `/w`" in started
    other = dataclasses.replace(real, program="my_prep")
    assert "Find them out" in licence_of_run({}, other)


def test_every_program_that_prepares_a_set_has_its_terms():
    modules = [
        importlib.import_module(f"data_prep.{found.name}")
        for found in pkgutil.iter_modules(data_prep.__path__)
    ]
    programs = {module.PROGRAM for module in modules if hasattr(module, "PROGRAM")}
    # The rows of a manifest name terms of their own.
    assert set(LICENCES) == programs - {"data_prep.manifest"}
