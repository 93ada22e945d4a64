"""A BERT directory's tokenizer settings through import, a folder of weights and export."""

import pytest

from prior_jax.data.tokenizer import TokenizerConfig, open_tokenizer
from prior_jax.errors import DataError
from prior_jax.interop.huggingface.bert_directory import read_bert_directory
from prior_jax.interop.huggingface.tokenizer_files import tokenizer_files
from prior_jax.interop.sources.imports import from_tensors
from prior_jax.interop.weights_folder import save_weights, tokenizer_file
from prior_jax.interop.weights_input import tokenizer_config
from tests.data import wordpiece_folders as folders
from tests.interop.checkpoint_shapes import filled, linear, norm

TEXT = "\u00c9panchement \u00d6dem \u80f8\u6c34 lungs LUNG ab-c"
SETTINGS = {
    "plain": {"config": {}},
    "cased": {"config": {"do_lower_case": False}},
    "accents": {"config": {"strip_accents": False}},
    "no accents, cased": {"config": {"do_lower_case": False, "strip_accents": True}},
    "Chinese words": {"config": {"tokenize_chinese_chars": False}},
    "sequence": {
        "config": folders.AS_IS,
        "json_content": folders.document(normalizer=folders.sequence("NFD", "Lowercase")),
        "lines": False,
    },
    "short words": {
        "config": folders.AS_IS,
        "json_content": folders.document(most=5, post_processor=folders.ends()),
    },
}


def opened(folder):
    found = read_bert_directory(folder)
    config = TokenizerConfig(
        kind="wordpiece", path=str(found.tokenizer), lower_case=found.lower_case
    )
    return config, open_tokenizer(config)


def imported(folder):
    def bert():
        yield "embeddings.word_embeddings.weight", (len(folders.WORDS), 16)
        yield "embeddings.position_embeddings.weight", (32, 16)
        yield "embeddings.token_type_embeddings.weight", (2, 16)
        yield from norm("embeddings.LayerNorm", 16, statistics=False)
        name = "encoder.layer.0"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from linear(f"{name}.attention.{part}", 16, 16)
        yield from norm(f"{name}.attention.output.LayerNorm", 16, statistics=False)
        yield from linear(f"{name}.intermediate.dense", 32, 16)
        yield from linear(f"{name}.output.dense", 16, 32)
        yield from norm(f"{name}.output.LayerNorm", 16, statistics=False)

    return from_tensors("hf_bert", filled(bert()), directory=read_bert_directory(folder))


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_come_through_a_folder_of_weights_and_back_out(tmp_path, name):
    source = folders.write(tmp_path / "source", **SETTINGS[name])
    _, tokenizer = opened(source)
    ids = tokenizer.encode(TEXT).ids.tolist()

    found = imported(source)
    save_weights(tmp_path / "weights", found.weights, found.tokenizer)
    inside = open_tokenizer(tokenizer_config(tmp_path / "weights"))
    assert inside.encode(TEXT).ids.tolist() == ids
    # What lies in a folder of weights needs nothing beside it.
    assert [path.name for path in tokenizer_file(tmp_path / "weights").parent.iterdir()] == [
        "vocab.txt" if name in ("plain", "cased") else "tokenizer.json"
    ]

    config = tokenizer_config(tmp_path / "weights")
    exported = folders.write(tmp_path / "exported", lines=False)
    for file, content in tokenizer_files(inside, config, max_length=32).items():
        (exported / file).write_bytes(content)
    _, again = opened(exported)
    assert again.encode(TEXT).ids.tolist() == ids
    save_weights(tmp_path / "again", imported(exported).weights, imported(exported).tokenizer)
    assert open_tokenizer(tokenizer_config(tmp_path / "again")).encode(TEXT).ids.tolist() == ids


def test_settings_that_cannot_be_followed_stop_the_import(tmp_path):
    source = folders.write(tmp_path / "source", config={"cls_token": "a"})
    with pytest.raises(DataError, match=r"tokenizer_config\.json: cls_token: The token is 'a'"):
        read_bert_directory(source)


@pytest.mark.parity
@pytest.mark.parametrize("name", SETTINGS)
def test_exported_settings_give_the_same_in_transformers(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    config, tokenizer = opened(folders.write(tmp_path / "source", **SETTINGS[name]))
    exported = folders.write(tmp_path / "exported", lines=False)
    for file, content in tokenizer_files(tokenizer, config, max_length=32).items():
        (exported / file).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(str(exported))(TEXT)["input_ids"]
    assert theirs == [2, *tokenizer.encode(TEXT).ids.tolist(), 3]
