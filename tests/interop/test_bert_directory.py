"""A folder of transformers with a BERT: weights, config.json and tokenizer."""

import json

import numpy as np
import pytest

from prior_jax.data.wordpiece import WordPiece, bert_rules
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.huggingface.bert_directory import read_bert_directory
from prior_jax.interop.sources.imports import from_tensors, import_weights, release_state_dict
from prior_jax.interop.weights_folder import load_weights, save_weights
from tests.interop.checkpoint_shapes import (
    HEADS,
    HIDDEN,
    INNER,
    PLACES,
    WORDS,
    bert,
    filled,
    gloria,
    same,
)

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]
CONFIG = {
    "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": INNER, "max_position_embeddings": PLACES, "type_vocab_size": 2,
    "vocab_size": WORDS, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.2,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A Hugging Face directory, without weights."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    return tmp_path


OLD = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("pooler", [False, True])
def test_bert_of_any_age(folder, prefix, old, pooler):
    tensors = filled(bert(pooler=pooler), prefix)
    if prefix:
        tensors["cls.predictions.bias"] = np.zeros(WORDS, np.float32)
    if old:
        for ours, theirs in OLD.items():
            tensors = {name.replace(ours, theirs): array for name, array in tensors.items()}
    imported = from_tensors("hf_bert", tensors, directory=read_bert_directory(folder))
    weights = imported.weights
    same(release_state_dict(weights), tensors)
    assert weights.model["heads"] == 4
    assert weights.model["vocab_size"] == WORDS
    assert weights.model["dropout"] == 0.2
    assert weights.data["tokenizer"] == {"kind": "wordpiece", "lower_case": False}
    assert imported.tokenizer == folder / "vocab.txt"
    assert ("pooler/kernel" in weights.arrays) == pooler


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "gelu_new"),
        ("layer_norm_eps", 1e-5),
        ("position_embedding_type", "relative_key"),
        ("model_type", "roberta"),
        ("is_decoder", True),
        ("num_attention_heads", "four"),
    ],
)
def test_another_kind_of_bert_is_refused_by_field(folder, field, value):
    (folder / "config.json").write_text(json.dumps({**CONFIG, field: value}))
    with pytest.raises(WeightsError, match=rf"config\.json: {field}: The value is {value!r}"):
        read_bert_directory(folder)


def test_a_directory_that_lacks_something_is_refused(folder):
    with pytest.raises(WeightsError, match="This is no directory"):
        read_bert_directory(folder / "vocab.txt")
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, "g"]) + "\n")
    with pytest.raises(WeightsError, match=r"vocab\.txt: .* 12 entries, .* 11 rows"):
        from_tensors("hf_bert", filled(bert()), directory=read_bert_directory(folder))
    (folder / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match="has no tokenizer"):
        read_bert_directory(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="a JSON object"):
        read_bert_directory(folder)


def test_rows_of_the_embedding_without_an_id_are_left_to_the_release(folder, tmp_path):
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY[:-2]) + "\n")
    tensors = filled(bert())
    found = from_tensors("hf_bert", tensors, directory=read_bert_directory(folder))
    words = tensors["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(found.weights.arrays["word_embedding"], words[:-2])
    assert found.weights.model["vocab_size"] == WORDS - 2
    assert any(
        "has 9 ids, and the word embedding 11 rows" in n for n in found.weights.origin["notes"]
    )
    save_weights(tmp_path / "weights", found.weights, found.tokenizer)
    same(release_state_dict(load_weights(tmp_path / "weights")), tensors)
    # A tokenizer that is given beside a checkpoint is that of another model where ids are missing.
    with pytest.raises(WeightsError, match=r"vocab\.txt: .* 9 entries, .* 11 rows"):
        from_tensors("gloria", gloria(), unseen=HEADS, tokenizer=folder / "vocab.txt")


def test_config_json_is_compared_with_the_shapes(folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 3}))
    with pytest.raises(WeightsError, match=r"\(missing: encoder\.layer\.2\."):
        from_tensors("hf_bert", filled(bert()), directory=read_bert_directory(folder))
    with pytest.raises(ConfigError, match="--heads: The value is '2'"):
        from_tensors("hf_bert", filled(bert()), directory=read_bert_directory(folder), unseen=HEADS)


@pytest.mark.parametrize(
    ("said", "lowercase", "expected"),
    [(None, None, True), (None, False, True), (True, False, True), (False, True, False)],
)
def test_tokenizer_config_says_whether_text_is_lower_cased(folder, said, lowercase, expected):
    told = {} if said is None else {"do_lower_case": said}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    if lowercase is not None:
        vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
        found = WordPiece(vocabulary=vocabulary, rules=bert_rules(lower_case=lowercase))
        (folder / "tokenizer.json").write_text(json.dumps(found.document()))
    assert read_bert_directory(folder).lower_case == expected


def test_a_file_is_imported_with_what_is_known_of_it(folder):
    from safetensors.numpy import save_file

    tensors = filled(bert())
    save_file(tensors, folder / "model.safetensors")
    weights = import_weights("hf_bert", folder)
    same(release_state_dict(weights), tensors)
    assert weights.origin["file"] == "model.safetensors"
    assert weights.origin["format"] == "safetensors"
    assert len(weights.origin["sha256"]) == 64
    del tensors["pooler.dense.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors: .*\(missing: pooler"):
        import_weights("hf_bert", folder)
