"""Every source on checkpoints of its own names, small enough to make by hand."""

import dataclasses
import math
import re

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interface import place as place_lib
from prior_jax.interop.sources.accounting import render
from prior_jax.interop.sources.imports import from_tensors, release_state_dict
from prior_jax.interop.sources.plans import Unseen
from prior_jax.interop.sources.table import SOURCES
from prior_jax.interop.weights_folder import load_weights, save_weights
from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.train.state import define_model
from tests.interop.checkpoint_shapes import (
    CHECKPOINTS,
    HEADS,
    HIDDEN,
    INNER,
    PLACES,
    PRIOR_HEADS,
    WIDTH,
    counts,
    filled,
    gloria,
    mgca,
    prior,
    resnet,
    same,
)
from tests.objectives.tiny import tiny_config


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_comes_in_goes_out_bit_for_bit(name):
    source, options, create = CHECKPOINTS[name]
    tensors = create()
    imported = from_tensors(source, tensors, **options)
    same(release_state_dict(imported.weights), tensors)
    total, taken, kept = counts(imported)
    assert total == len(tensors)
    unread = re.compile(r".*(num_batches_tracked|position_ids|fc\.(weight|bias)|crossattention.*)")
    assert kept == sum(unread.fullmatch(name) is not None for name in tensors)
    assert taken == total - kept


def test_arrays_lie_where_the_modules_look_for_them():
    tensors = gloria()
    arrays = from_tensors("gloria", tensors, unseen=HEADS).weights.arrays
    prefix = "gloria.img_encoder.model."
    np.testing.assert_array_equal(
        arrays["image_encoder/resnet/stages/stage2/block0/shortcut_conv/kernel"],
        tensors[f"{prefix}layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        arrays["text_encoder/layers/feed_forward/inner/kernel"][1],
        tensors["gloria.text_encoder.model.encoder.layer.1.intermediate.dense.weight"].T,
    )


def test_sizes_are_read_from_the_shapes():
    weights = from_tensors("gloria", gloria(), unseen=HEADS).weights
    assert (weights.part, weights.objective) == ("model", "gloria")
    assert weights.model["fidelity"] == "release"
    resnet_section = weights.model["image"]["resnet"]
    assert resnet_section["depths"] == (1, 2)
    assert resnet_section["width"] == WIDTH
    assert resnet_section["block"] == "basic"
    text = weights.model["text"]
    assert (text["layers"], text["hidden_size"], text["heads"]) == (2, HIDDEN, 2)
    assert (text["intermediate_size"], text["max_positions"]) == (INNER, PLACES)
    assert weights.data["image"]["mean"] == (0.5, 0.5, 0.5)
    assert weights.data["image"]["fit"] == "pad"
    assert weights.data["splitter"] == "gloria_inference"
    assert weights.data["max_tokens"] == PLACES
    pooled = CHECKPOINTS["prior_resnet50.pt, flat"][2]()
    image = from_tensors("prior", pooled).weights
    assert image.model["pool"] == "attention"
    assert image.data["image"] == {"size": 16, "channels": 1, "mean": (0.4755,), "std": (0.3011,)}


def test_the_whole_prior_gives_back_the_config_and_the_file_it_was_made_with():
    config, tensors = tiny_config(fidelity="release"), prior()
    imported = from_tensors("prior", tensors, unseen=PRIOR_HEADS)
    weights = imported.weights
    same(release_state_dict(weights), tensors)
    assert counts(imported)[::2] == [len(tensors), 4]
    assert (weights.part, weights.objective) == ("model", "prior")
    model, image = weights.model, weights.data["image"]
    assert model["image"]["resnet"]["depths"] == config.image.resnet.depths
    assert (image["size"], image["channels"]) == (config.image.image_size, 1)
    assert model["embed_dim"] == config.embed_dim
    assert model["num_queries"] == config.num_queries
    assert model["bank"]["num_prototypes"] == config.bank.num_prototypes
    decoder = dataclasses.asdict(config.sentence_decoder)
    assert {**model["sentence_decoder"], "dropout": decoder["dropout"]} == decoder
    tensors["global_text_projection.bias"] = np.zeros(3, np.float32)
    with pytest.raises(
        WeightsError, match=r"global_text_projection\.bias: \(3,\), the model needs"
    ):
        from_tensors("prior", tensors, unseen=PRIOR_HEADS)


def test_heads_that_no_shape_tells_are_asked_for_and_noted():
    with pytest.raises(ConfigError, match=r"--heads.*16 features are no multiple of 64"):
        from_tensors("gloria", gloria())
    with pytest.raises(ConfigError, match=r"heads: .*\b3\b"):
        from_tensors("gloria", gloria(), unseen=Unseen(heads=3))
    with pytest.raises(ConfigError, match="--decoder_heads: The value is '2'"):
        from_tensors("gloria", gloria(), unseen=Unseen(heads=2, decoder_heads=2))


def test_a_part_leaves_the_rest_for_a_reason():
    tensors = mgca()
    image = from_tensors("mgca", tensors)
    assert image.weights.part == "image"
    assert image.weights.data["image"]["fit"] == "pad"
    assert image.weights.model["upsample"] == 299
    total, taken, kept, left = counts(image)
    assert total == len(tensors)
    names = [name for name in tensors if name.startswith("img_encoder_q.model.")]
    assert taken + kept == len(names)
    same(release_state_dict(image.weights), {name: tensors[name] for name in names})
    assert left == total - len(names)
    table = render(image.rows)
    assert "left: the text tower: --part=text" in table
    assert "left: MGCA's projections" in table

    text = from_tensors("mgca", tensors, part="text", unseen=HEADS)
    names = [name for name in tensors if name.startswith("text_encoder_q.model.")]
    same(release_state_dict(text.weights), {name: tensors[name] for name in names})
    assert not any(path.startswith("pooler") for path in text.weights.arrays)
    assert any("no pooler" in note for note in text.weights.origin["notes"])


def test_mgca_s_bert_has_one_position_and_no_token_types(tmp_path):
    tensors = mgca()
    weights = from_tensors("mgca", tensors, part="text", unseen=HEADS).weights
    prefix = "text_encoder_q.model."
    file = tensors[f"{prefix}embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(weights.arrays["position_embedding"], file[:1].repeat(PLACES, 0))
    assert not weights.arrays["token_type_embedding"].any()
    assert any("the position 0" in note for note in weights.origin["notes"])
    save_weights(tmp_path / "weights", weights)
    same(
        release_state_dict(load_weights(tmp_path / "weights")),
        {name: x for name, x in tensors.items() if name.startswith(prefix)},
    )
    tensors[f"{prefix}embeddings.token_type_embeddings.weight"] = np.zeros((2, HIDDEN), np.float32)
    with pytest.raises(WeightsError, match=r"extra: .*token_type_embeddings"):
        from_tensors("mgca", tensors, part="text", unseen=HEADS)


def med_s_hidden_states(tensors, ids):
    """What med.py of MGCA's release computes of tokens, all of them real, at the position 0."""

    def linear(name, x):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]

    def heads(x):
        return x.reshape(*x.shape[:2], 2, -1).transpose(0, 2, 1, 3)

    words = tensors["embeddings.word_embeddings.weight"][ids]
    hidden = norm("embeddings", words + tensors["embeddings.position_embeddings.weight"][0])
    for layer in range(2):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            heads(linear(f"{name}.attention.self.{part}", hidden))
            for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1]))
        found = scores / scores.sum(-1, keepdims=True) @ value
        found = found.transpose(0, 2, 1, 3).reshape(hidden.shape)
        hidden = norm(
            f"{name}.attention.output",
            linear(f"{name}.attention.output.dense", found) + hidden,
        )
        inner = linear(f"{name}.intermediate.dense", hidden)
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        hidden = norm(f"{name}.output", linear(f"{name}.output.dense", inner) + hidden)
    return hidden


def test_mgca_s_bert_computes_what_the_release_does():
    prefix = "text_encoder_q.model."
    tensors = {name: 0.3 * x if x.dtype == np.float32 else x for name, x in mgca().items()}
    weights = from_tensors("mgca", tensors, part="text", unseen=HEADS).weights
    ids = np.array([[2, 7, 9, 3, 5], [2, 9, 7, 4, 3]], np.int32)
    plain = {name.removeprefix(prefix): x for name, x in tensors.items()}
    config = BertConfig(**{**weights.model, "pad_token": 0})
    definition = define_model(lambda rngs: Bert(config, dtype="float32", rngs=rngs))
    pooler = {"pooler/kernel": np.zeros((HIDDEN, HIDDEN)), "pooler/bias": np.zeros(HIDDEN)}
    arrays = {**weights.arrays, **{n: x.astype(np.float32) for n, x in pooler.items()}}
    model = place_lib.filled(definition, arrays, place=place_lib.one_device(), field="weights")
    found = model(jnp.asarray(ids), jnp.ones(ids.shape, bool), train=False).last_hidden_state
    np.testing.assert_allclose(found, med_s_hidden_states(plain, ids), rtol=1e-4, atol=1e-5)


def test_each_of_prior_gloria_and_convirt_gives_its_towers_alone():
    tensors = gloria()
    text = from_tensors("gloria", tensors, part="text", unseen=HEADS)
    assert "word_embedding" in text.weights.arrays
    image = from_tensors("gloria", tensors, part="image")
    assert "resnet/stem_conv/kernel" in image.weights.arrays
    assert (image.weights.model["upsample"], image.weights.data["image"]["fit"]) == (299, "pad")
    with pytest.raises(ConfigError, match=r"--part: .*'model'.* one of image, text"):
        from_tensors("mgca", mgca(), part="model")
    with pytest.raises(ConfigError, match="--source: The value is 'clip'"):
        from_tensors("clip", tensors)


def test_half_precision_becomes_float32_and_goes_back(tmp_path):
    tensors = filled(resnet())
    for name in list(tensors)[::3]:
        tensors[name] = tensors[name].astype(np.float16)
    tensors["conv1.weight"] = tensors["conv1.weight"].astype(ml_dtypes.bfloat16)
    weights = from_tensors("torchvision", tensors).weights
    assert {str(array.dtype) for array in weights.arrays.values()} == {"float32"}
    save_weights(tmp_path / "weights", weights)
    same(release_state_dict(load_weights(tmp_path / "weights")), tensors)


def test_weights_of_another_origin_have_no_release_names():
    weights = from_tensors("torchvision", filled(resnet())).weights
    with pytest.raises(WeightsError, match=r"weights\.origin"):
        release_state_dict(dataclasses.replace(weights, origin={"run": "x"}))


def test_patterns_of_the_tables_are_regular_expressions_and_reasons_are_given():
    for source in SOURCES.values():
        assert source.licence
        for recipe in source.recipes.values():
            assert set(recipe.reads) <= {
                *(field.name for field in dataclasses.fields(Unseen)), "tokenizer"
            }  # fmt: skip
            for rule in recipe.unused:
                re.compile(rule.pattern)
                assert rule.reason
