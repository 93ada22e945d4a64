"""Exports our tokenizers as files of Hugging Face's libraries, with the same ids.

The files are tested before they are returned: both tokenizers tokenise every piece of the
vocabulary and `ODD_TEXTS`, and a tokenizer that differs on one of them is refused.
"""

import json
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import Any

import tokenizers

from prior_jax.data.sentencepiece_model import read_sentencepiece
from prior_jax.data.tokenizer import (
    SPECIAL_TOKENS,
    Tokenizer,
    TokenizerConfig,
    WordPieceTokenizer,
)
from prior_jax.data.wordpiece import WordPiece
from prior_jax.errors import WeightsError

_BLANK = "\u2581"  # sentencepiece's character for the blank before a word
# A character that separates a letter from its mark until the normalisation deletes it.
_GUARD = "\u0001"
_PIECES_PER_TEXT = 40
_ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")

ODD_TEXTS = (
    "",
    " ",
    "\u0001",
    "  Two  blanks\tand a\r\nline.  ",
    "[CLS] [SEP] [MASK] [UNK] [PAD]",
    "___ y/o M s/p CABG, ETT 4.5cm above carina; T8-9.",
    "CHEST (PA & LAT): 12/31/2099 -- ?pneumonia vs. atelectasis!!!",
    "caf\u00e9 cafe\u0301 CAFE\u0301 X\u0301 \u2460\u0301 A\u0302\u0301",
    "\u00bd \ufb01 \u00b2 \u2126 \u212b \u2160 \u00a8 \ufdfa",
    "\u4e2d\u6587 \u304b\u3099 \uac00 \u1100\u1161 \uff76\uff9e",
    "\u0130stanbul stra\u00dfe \u1e9e \u03a3\u0391\u03a3 \u13a0\uab70",
    "\U0001f469\u200d\u2695\ufe0f no\u00adbreak \u200bzero\ufeff \u200f",
    "a\u2581b \u3000wide\u00a0 \u0001 nul\u0000l \u0301mark first",
    "a" * 60 + " " + "b" * 120,
    "1000000 .......... ________ ----------",
)
"""Texts that are rare in reports, and on which normalisations differ."""


def tokenizer_files(
    tokenizer: Tokenizer, config: TokenizerConfig, *, max_length: int
) -> dict[str, bytes]:
    """Returns files with which `transformers.AutoTokenizer` gives our ids between [CLS] and [SEP].

    Special tokens written out in a text are tokenised as text, as in our tokenizers.

    Args:
      tokenizer: opened tokenizer.
      config: config that the tokenizer was opened with.
      max_length: longest input of the model, in tokens.

    Returns:
      File name -> content. WordPiece with BERT's own rules also has `vocab.txt`, for older
      versions. For a sentencepiece tokenizer the model itself is included: where two ways to split
      a text are exactly as likely (a run of one letter), the model decides by the rounding of
      float32 sums, which no other implementation repeats.

    Raises:
      WeightsError: naming the text, if the files would give other ids.
      DataError: naming the field, if a sentencepiece model is of a kind that cannot be written.
    """
    engine = _ENGINES[config.kind](tokenizer, config)
    engine.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.cls_id), ("[SEP]", tokenizer.sep_id)],
    )
    engine.add_special_tokens(list(SPECIAL_TOKENS))
    content = engine.to_str(pretty=True)
    check_same_ids(tokenizer, content, [*ODD_TEXTS, *_vocabulary_texts(tokenizer)])
    special = dict(zip(_ROLES, SPECIAL_TOKENS, strict=True))
    settings = {
        **special,
        "model_max_length": max_length,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    if isinstance(tokenizer, WordPieceTokenizer):
        settings |= _word_piece_settings(tokenizer)
        extra = {"vocab.txt": _vocabulary_lines(tokenizer)} if "strip_accents" in settings else {}
    else:
        settings |= _SENTENCEPIECE_SETTINGS
        extra = {"tokenizer.model": _read(config)}
    return {
        "tokenizer.json": content.encode(),
        "tokenizer_config.json": _json(settings),
        "special_tokens_map.json": _json(special),
        **extra,
    }


def check_same_ids(tokenizer: Tokenizer, content: str, texts: Sequence[str]) -> None:
    """Refuses a `tokenizer.json` that gives other ids than our tokenizer.

    Args:
      tokenizer: our tokenizer.
      content: content of the `tokenizer.json`.
      texts: texts to tokenise with both.

    Raises:
      WeightsError: naming the first text that differs.
    """
    engine = tokenizers.Tokenizer.from_str(content)
    engine.encode_special_tokens = True  # transformers' "split_special_tokens"
    theirs = engine.encode_batch(list(texts), add_special_tokens=False)
    for text, ours, encoded in zip(texts, tokenizer.encode_ids(texts), theirs, strict=True):
        if ours.tolist() != encoded.ids:
            raise WeightsError(
                f"The text {text!a} has the ids {encoded.ids} from a tokenizer.json, and "
                f"{ours.tolist()} from the tokenizer itself.",
                "Export another format (--format), or train with another tokenizer; this one has "
                "no equivalent tokenizer.json.",
                where=tokenizer.name,
            )


def _vocabulary_texts(tokenizer: Tokenizer) -> list[str]:
    """Returns texts that contain every piece of the vocabulary, several in each text."""
    pieces = [tokenizer.token(index).replace(_BLANK, " ") for index in range(tokenizer.vocab_size)]
    starts = range(0, len(pieces), _PIECES_PER_TEXT)
    return ["".join(pieces[start : start + _PIECES_PER_TEXT]) for start in starts] + [
        " ".join(pieces[start : start + _PIECES_PER_TEXT]) for start in starts
    ]


def _words(tokenizer: Tokenizer) -> dict[str, int]:
    """Returns words and their ids. In a vocabulary with repetitions some ids have no word."""
    words = {tokenizer.token(index): index for index in range(tokenizer.vocab_size)}
    return {**words, "[UNK]": tokenizer.unk_id}


def _vocabulary_lines(tokenizer: Tokenizer) -> bytes:
    """Returns `vocab.txt`. The last line of a repeated word counts: ids without a word repeat one.

    Raises:
      WeightsError: for a word with a line break.
    """
    words = _words(tokenizer)
    by_id = {index: word for word, index in words.items()}
    last = by_id[tokenizer.vocab_size - 1]
    lines = [by_id.get(index, last) for index in range(tokenizer.vocab_size)]
    broken = [line for line in lines if any(mark in line for mark in "\r\n")]
    if broken:
        raise WeightsError(
            f"The words {broken} have a line break in them, which vocab.txt cannot hold.",
            "Export another format (--format), or train with a tokenizer without such words.",
            where=tokenizer.name,
        )
    return "".join(f"{line}\n" for line in lines).encode()


def _word_piece(tokenizer: WordPieceTokenizer, config: TokenizerConfig) -> tokenizers.Tokenizer:
    rules = tokenizer.wordpiece.rules
    return WordPiece(vocabulary=_words(tokenizer), rules=rules).engine()


def _word_piece_settings(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    """Returns the fields of tokenizer_config.json besides the special tokens."""
    rules = tokenizer.wordpiece.rules
    if not rules.is_bert or rules.normalizer is None:
        # Every version of transformers reads the tokenizer.json of this class without changes.
        return {"tokenizer_class": "PreTrainedTokenizerFast"}
    # Every version of transformers rebuilds a tokenizer of this class from the vocabulary.
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": rules.normalizer["lowercase"],
        "tokenize_chinese_chars": rules.normalizer["handle_chinese_chars"],
        "strip_accents": rules.normalizer["strip_accents"],
    }


def _sentence_piece(tokenizer: Tokenizer, config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Builds Unigram or BPE over whole texts, with blanks written as in sentencepiece.

    `Precompiled` looks up a letter together with its marks, and drops the marks if it finds only
    the letter. So letters and marks are composed first, which is what the sentencepiece rule does
    with them, and those without a composed form are separated by a character that the rule deletes.
    The rule cannot delete the first character of a text, but a blank always precedes it. No step
    lower-cases: a rule that folds case does what `config.lower_case` does, and more.
    """
    model = read_sentencepiece(_read(config), name=config.path)
    if config.lower_case and not model.folds:
        raise WeightsError(
            "The setting lower_case is True for a sentencepiece model of cased text, and libraries "
            "differ on what is lower case.",
            "Export another format (--format), or train with lower_case=False or with a model that "
            "folds case itself.",
            where=tokenizer.name,
        )
    normalizers, regex = tokenizers.normalizers, tokenizers.Regex
    steps = [
        normalizers.NFKC(),
        normalizers.Prepend(" "),
        normalizers.Replace(regex(r"(?<=[\s\S])(?=\p{M}|\p{Cf}|[\u1160-\u11ff])"), _GUARD),
        normalizers.Precompiled(model.charsmap),
        normalizers.Replace(regex(r"^ +| +$"), ""),
        normalizers.Replace(regex(" +"), _BLANK),
        normalizers.Prepend(_BLANK),
    ]
    pieces = list(zip(model.pieces, model.scores, strict=True))
    if model.algorithm == "unigram":
        engine = tokenizers.Tokenizer(
            tokenizers.models.Unigram(pieces, SPECIAL_TOKENS.index("[UNK]"), byte_fallback=False)
        )
    else:
        engine = tokenizers.Tokenizer(
            tokenizers.models.BPE(
                vocab={piece: index for index, (piece, _) in enumerate(pieces)},
                merges=_merges(pieces[len(SPECIAL_TOKENS) :]),
                unk_token="[UNK]",
                fuse_unk=True,
            )
        )
    engine.normalizer = normalizers.Sequence(steps)
    if not model.folds:
        engine.pre_tokenizer = _special_tokens_apart(model.pieces)
    engine.decoder = tokenizers.decoders.Metaspace(replacement=_BLANK)
    return engine


def _special_tokens_apart(pieces: Collection[str]) -> Any:
    """Splits special tokens that are written out in a text: no text may match a control piece.

    A token is split where this does not separate two unknown characters, which count as one.
    """
    cuts = []
    for token in SPECIAL_TOKENS:
        known = [letter in pieces for letter in token]
        places = [i for i in range(1, len(token)) if known[i - 1] or known[i]]
        cuts += [rf"{re.escape(token[:i])}(?={re.escape(token[i:])})" for i in places[:1]]
    return tokenizers.pre_tokenizers.Split(  # pyright: ignore[reportAttributeAccessIssue]
        tokenizers.Regex("|".join(cuts) or r"(?!)"), behavior="merged_with_previous"
    )


def _merges(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """Returns all ways to join two pieces into a third, ordered by score, best first."""
    scores = dict(pieces)
    found = [
        (-score, cut, piece[:cut], piece[cut:])
        for piece, score in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def _read(config: TokenizerConfig) -> bytes:
    return pathlib.Path(config.path).read_bytes()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


_ENGINES: dict[str, Any] = {"wordpiece": _word_piece, "sentencepiece": _sentence_piece}
_SENTENCEPIECE_SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
}
