"""Small BERT tokenizers with settings of every kind, as Hugging Face directories hold them."""

import json
import random

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHÉéÖöß\u0131\ufb01"
WORDS = (
    *SPECIAL,
    *("the", "lung", "lungs", "clear", "epanchement", "\u00e9panchement", "Odem", "\u00f6dem"),
    *("\u80f8\u6c34", "\u80f8", "\u6c34", "##\u6c34", ".", ",", "-", "'", "##s"),
    *LETTERS,
    *("##" + letter for letter in LETTERS),
)
MODEL = {
    "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32,
    "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
ALPHABET = (
    "aAbE\u00e9\u00c9e\u0301 \u00f6\u00d6 \u00df\u1e9e \u0130\u0131 \ufb01 \u80f8\u6c34 \u3000"
    "\u00a0\u200b\t\n.,'-\u201412\u00bd\u03a3\u03c2\ud55c\U0001f469\ufeff\u0000\u0001"
)
BERT_NORMALIZER = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
    "strip_accents": None, "lowercase": True,
}  # fmt: skip
TRUNCATION = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
AS_IS = {"tokenizer_class": "PreTrainedTokenizerFast"}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": [{"type": step} for step in steps]}


def ends(first="[CLS]", last="[SEP]", ids=(2, 3)):
    """A post-processor that puts two tokens around a text."""
    pieces = {
        token: {"id": token, "ids": [index], "tokens": [token]}
        for token, index in zip((first, last), ids, strict=True)
    }
    single = [
        {"SpecialToken": {"id": first, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": last, "type_id": 0}},
    ]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single,
        "special_tokens": pieces,
    }


def document(*, most=100, model=None, **parts):
    """The content of a tokenizer.json, with other parts where they are given."""
    added = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, token in enumerate(SPECIAL)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": BERT_NORMALIZER,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": most, "vocab": {w: i for i, w in enumerate(WORDS)},
            **(model or {}),
        },
        **parts,
    }  # fmt: skip


def write(folder, *, config=None, json_content=None, lines=True, **others):
    """Writes a directory; other files are given by their stem."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"config": MODEL, "tokenizer_config": config, "tokenizer": json_content, **others}
    for stem, content in files.items():
        if content is not None:
            (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    if lines:
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder


def random_text(rng):
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 30)))


def write_random(folder, seed):
    """A directory whose settings are drawn; most are accepted or differ in one place."""
    rng = random.Random(seed)
    pick = rng.choice
    steps = ("Lowercase", "NFD", "NFC", "NFKC", "StripAccents", "Nmt")
    bert = {
        **BERT_NORMALIZER, "clean_text": rng.random() < 0.8,
        "handle_chinese_chars": rng.random() < 0.7, "strip_accents": pick([None, True, False]),
        "lowercase": pick([True, False]),
    }  # fmt: skip
    options = {
        "tokenizer_class": ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast"],
        "do_lower_case": [True, False],
        "strip_accents": [None, True, False],
        "tokenize_chinese_chars": [True, False],
        "model_max_length": [5, 512],
    }
    config = {key: pick(values) for key, values in options.items() if rng.random() < 0.4}
    config |= pick([{}, {}, AS_IS])
    rare = [{"never_split": ["lung"]}, {"do_basic_tokenize": False}, {"cls_token": "a"}]
    config |= pick([{}] * 12 + rare)
    split = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"},
        ],
    }  # fmt: skip
    bert_split = {"type": "BertPreTokenizer"}
    content = document(
        most=pick([100, 100, 5, 200]),
        normalizer=pick([bert, bert, None, sequence(*rng.sample(steps, rng.randint(1, 3)))]),
        pre_tokenizer=pick([bert_split] * 3 + [split, {"type": "Whitespace"}, None]),
        post_processor=pick([None, ends()]),
        truncation=pick([None, TRUNCATION]),
    )  # fmt: skip
    with_json = rng.random() < 0.7
    return write(
        folder,
        config=config if rng.random() < 0.9 else None,
        json_content=content if with_json else None,
        lines=not with_json or rng.random() < 0.3,
    )
