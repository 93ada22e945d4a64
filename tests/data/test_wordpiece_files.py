"""The settings of a BERT tokenizer: each followed as AutoTokenizer does, or refused by its name."""

import json
import pickle
import random

import pytest
import tokenizers

from prior_jax.data.tokenizer import TokenizerConfig, open_tokenizer, portable_file
from prior_jax.data.wordpiece import lower_cases
from prior_jax.data.wordpiece_files import read_wordpiece
from prior_jax.errors import DataError, PriorJaxError
from tests.data import wordpiece_folders as folders

TEXT = "\u00c9panchement \u00d6dem \u80f8\u6c34 lungs LUNG ab-c"


def config_of(folder, lower_case=None):
    names = [name for name in ("vocab.txt", "tokenizer.json") if (folder / name).exists()]
    path = folder / names[0]
    if lower_case is None:
        lower_case = lower_cases(read_wordpiece(path).rules)
    return TokenizerConfig(kind="wordpiece", path=str(path), lower_case=lower_case)


def ids_of(folder, text=TEXT):
    return open_tokenizer(config_of(folder)).encode(text).ids.tolist()


def library_ids(content, text=TEXT):
    engine = tokenizers.Tokenizer.from_str(json.dumps(content))
    engine.no_truncation()
    engine.no_padding()
    return engine.encode(text, add_special_tokens=False).ids


def bert(**changes):
    return folders.document(normalizer={**folders.BERT_NORMALIZER, **changes})


# tokenizer_config.json, and the normaliser that both versions of transformers make of it.
SWITCHES = [
    ({}, {}),
    ({"do_lower_case": False}, {"lowercase": False}),
    ({"strip_accents": False}, {"strip_accents": False}),
    ({"do_lower_case": False, "strip_accents": True}, {"lowercase": False, "strip_accents": True}),
    ({"tokenize_chinese_chars": False}, {"handle_chinese_chars": False}),
    ({"tokenizer_class": "BertTokenizerFast", "strip_accents": None, "never_split": None}, {}),
    ({"model_max_length": 3, "do_basic_tokenize": True, "made_up": 1}, {}),
    ({"added_tokens_decoder": {"2": {"content": "[CLS]", "special": True}}}, {}),
    ({"cls_token": {"content": "[CLS]", "lstrip": True}, "unk_token": "[UNK]"}, {}),
]


@pytest.mark.parametrize(("config", "made"), SWITCHES)
@pytest.mark.parametrize("beside", [None, {"strip_accents": True, "lowercase": False}])
def test_switches_of_tokenizer_config_are_followed(tmp_path, config, made, beside):
    """They count more than what a tokenizer.json says of the same."""
    content = None if beside is None else bert(**beside)
    folders.write(tmp_path, config=config, json_content=content)
    assert ids_of(tmp_path) == library_ids(bert(**made))


AS_IS = {
    "bert": bert(),
    "cased, accents off": bert(lowercase=False, strip_accents=True),
    "no Chinese characters": bert(handle_chinese_chars=False),
    "uncleaned": bert(clean_text=False),
    "sequence": folders.document(normalizer=folders.sequence("NFD", "Lowercase", "StripAccents")),
    "cased sequence": folders.document(normalizer=folders.sequence("NFC")),
    "lower case alone": folders.document(normalizer={"type": "Lowercase"}),
    "replacing": folders.document(
        normalizer={"type": "Replace", "pattern": {"String": "-"}, "content": " "}
    ),
    "nothing": folders.document(normalizer=None),
    "short words": folders.document(most=5),
    "blanks alone": folders.document(pre_tokenizer={"type": "WhitespaceSplit"}),
    "one word": folders.document(pre_tokenizer=None),
    "truncating": folders.document(truncation=folders.TRUNCATION),
    "padding": folders.document(
        padding={
            "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        }
    ),
    "with ends": folders.document(post_processor=folders.ends()),
    "BERT's ends": folders.document(
        post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_IS)
@pytest.mark.parametrize("beside", [True, False])
def test_a_tokenizer_json_is_followed_as_it_is_where_its_class_does_so(tmp_path, name, beside):
    config = folders.AS_IS if beside else None
    content = AS_IS[name]
    folders.write(tmp_path, config=config, json_content=content, lines=False)
    if not beside:
        (tmp_path / "config.json").unlink()
    assert ids_of(tmp_path) == library_ids(content)


REFUSED = {
    "never_split": ({"never_split": ["lung"]}, r"tokenizer_config\.json: never_split"),
    "basic": ({"do_basic_tokenize": False}, r"tokenizer_config\.json: do_basic_tokenize"),
    "cls": ({"cls_token": "a"}, r"tokenizer_config\.json: cls_token: The token is 'a'"),
    "sep": ({"sep_token": {"content": "b"}}, r"tokenizer_config\.json: sep_token"),
    "no pad": ({"pad_token": None}, r"tokenizer_config\.json: pad_token"),
    "a word switch": ({"strip_accents": "false"}, r"tokenizer_config\.json: strip_accents"),
    "a number switch": ({"do_lower_case": 1}, r"tokenizer_config\.json: do_lower_case"),
    "class": ({"tokenizer_class": "BertJapaneseTokenizer"}, r"config\.json: tokenizer_class"),
    "as is without json": (folders.AS_IS, r"tokenizer_config\.json: tokenizer_class"),
    "left": ({"padding_side": "left"}, r"tokenizer_config\.json: padding_side"),
    "own code": ({"auto_map": {"AutoTokenizer": ["x.Y", None]}}, "auto_map"),
    "more specials": ({"additional_special_tokens": ["[NEW]"]}, "additional_special_tokens"),
    "end of text": ({"eos_token": "</s>"}, r"tokenizer_config\.json: eos_token"),
    "added by id": ({"added_tokens_decoder": {"6": {"content": "lung"}}}, "added_tokens_decoder"),
    "moved": ({"added_tokens_decoder": {"9": {"content": "[CLS]"}}}, r"\[CLS\]: The id is 9"),
    "prefix": ({"wordpieces_prefix": "@@"}, r"tokenizer_config\.json: wordpieces_prefix"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_without_a_place_are_refused_by_file_and_key(tmp_path, name):
    config, match = REFUSED[name]
    folders.write(tmp_path, config=config)
    with pytest.raises(DataError, match=match):
        ids_of(tmp_path)


JSON_REFUSED = {
    "sequence": ({}, folders.document(normalizer=folders.sequence("NFC")), "normalizer"),
    "no normalizer": ({}, folders.document(normalizer=None), "normalizer"),
    "uncleaned": ({}, bert(clean_text=False), r"normalizer\.clean_text"),
    "pre-tokenizer": ({}, folders.document(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer"),
    "short words": ({}, folders.document(most=5), r"model\.max_input_chars_per_word"),
    "contradicted": (
        {**folders.AS_IS, "do_lower_case": False}, bert(), "do_lower_case: The value is false"
    ),
    "bytes": (
        folders.AS_IS, folders.document(pre_tokenizer={"type": "ByteLevel"}), "'ByteLevel'"
    ),
    "metaspace": (
        folders.AS_IS, folders.document(pre_tokenizer={"type": "Metaspace"}), "'Metaspace'"
    ),
    "unknown step": (folders.AS_IS, folders.document(normalizer={"type": "New"}), "normalizer"),
    "other ends": (
        {}, folders.document(post_processor=folders.ends("the", "lung", (5, 6))), "post_processor"
    ),
    "swapped ends": (
        {}, folders.document(post_processor=folders.ends("[SEP]", "[CLS]", (3, 2))),
        "post_processor",
    ),
    "undefined ends": (
        {}, folders.document(post_processor={**folders.ends(), "special_tokens": {}}),
        "post_processor: .*undefined",
    ),
    "prefix": (
        {}, folders.document(model={"continuing_subword_prefix": "@@"}),
        r"model\.continuing_subword_prefix",
    ),
    "unknown word": ({}, folders.document(model={"unk_token": "the"}), r"model\.unk_token"),
    "BPE": ({}, folders.document(model={"type": "BPE"}), r"model\.type"),
    "half a pair": (
        {}, folders.document(model={"vocab": {"\ud800": 0}}), r"model\.vocab"
    ),
    "added": (
        {}, folders.document(added_tokens=[{"id": 6, "content": "lung"}]), "added_tokens.*'lung'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JSON_REFUSED)
def test_what_a_tokenizer_json_says_otherwise_is_refused_by_its_name(tmp_path, name):
    config, content, match = JSON_REFUSED[name]
    folders.write(tmp_path, config=config, json_content=content, lines=False)
    with pytest.raises(DataError, match=match) as caught:
        ids_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_companions_are_read(tmp_path):
    folders.write(tmp_path, special_tokens_map={"mask_token": "<mask>"})
    with pytest.raises(DataError, match=r"special_tokens_map\.json: mask_token"):
        ids_of(tmp_path)
    (tmp_path / "special_tokens_map.json").unlink()
    folders.write(tmp_path, added_tokens={"pneumothorax": 99})
    with pytest.raises(DataError, match=r"added_tokens\.json: The token 'pneumothorax'"):
        ids_of(tmp_path)
    folders.write(tmp_path, added_tokens={"[CLS]": 2})
    other = folders.document(model={"vocab": {**folders.document()["model"]["vocab"], "more": 99}})
    folders.write(tmp_path, json_content=other)
    with pytest.raises(DataError, match=r"model\.vocab: .*vocab\.txt.*'more'"):
        ids_of(tmp_path)


def test_a_setting_for_lower_case_is_followed_or_contradicts_the_normaliser(tmp_path):
    folders.write(tmp_path, json_content=AS_IS["cased sequence"], lines=False)
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match=r"keeps case.*lower_case=False"):
        open_tokenizer(config_of(tmp_path, lower_case=True))
    folders.write(tmp_path / "bert", config={"do_lower_case": False, "strip_accents": False})
    found = open_tokenizer(config_of(tmp_path / "bert", lower_case=True)).encode(TEXT).ids.tolist()
    assert found == library_ids(bert(strip_accents=False))


def test_a_fingerprint_tells_settings_apart_and_workers_keep_them(tmp_path):
    configs = [{}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
    opened = [
        open_tokenizer(config_of(folders.write(tmp_path / str(i), config=config)))
        for i, config in enumerate(configs)
    ]
    assert len({tokenizer.fingerprint for tokenizer in opened}) == len(configs)
    for tokenizer in opened:
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert copy.encode(TEXT).ids.tolist() == tokenizer.encode(TEXT).ids.tolist()


def test_any_settings_are_refused_or_come_through_one_file(tmp_path):
    """What is accepted gives the library's ids where its file is followed, and is portable."""
    rng, accepted = random.Random(0), 0
    texts = [TEXT, *(folders.random_text(rng) for _ in range(10))]
    for seed in range(60):
        folder = folders.write_random(tmp_path / str(seed), seed)
        try:
            config = config_of(folder)
            tokenizer = open_tokenizer(config)
        except PriorJaxError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            continue
        accepted += 1
        ids = [found.tolist() for found in tokenizer.encode_ids(texts)]
        assert [tokenizer.encode(text).ids.tolist() for text in texts] == ids
        name, content = portable_file(config)
        (tmp_path / f"{seed}-alone").mkdir()
        alone = tmp_path / f"{seed}-alone" / name
        alone.write_bytes(content)
        again = open_tokenizer(
            TokenizerConfig(kind="wordpiece", path=str(alone), lower_case=config.lower_case)
        )
        assert [found.tolist() for found in again.encode_ids(texts)] == ids
        path = folder / "tokenizer_config.json"
        if (
            path.exists()
            and json.loads(path.read_text()).get("tokenizer_class")
            == (folders.AS_IS["tokenizer_class"])
        ):
            content = json.loads((folder / "tokenizer.json").read_text())
            assert [library_ids(content, text) for text in texts] == ids
    assert accepted > 15


@pytest.mark.parity
def test_three_hundred_settings_give_what_autotokenizer_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    rng, accepted = random.Random(1), 0
    texts = [TEXT, *(folders.random_text(rng) for _ in range(25))]
    for seed in range(300):
        folder = folders.write_random(tmp_path / str(seed), seed)
        try:
            ours = open_tokenizer(config_of(folder)).encode_ids(texts)
        except PriorJaxError:
            continue
        accepted += 1
        theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
        for text, found in zip(texts, ours, strict=True):
            assert found.tolist() == theirs(text, add_special_tokens=False)["input_ids"], (
                seed,
                text,
            )
    assert accepted > 75
