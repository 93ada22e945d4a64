"""Vocabulary and rules of a WordPiece tokenizer, and the library's object built from them.

rules = bert_rules(lower_case=True, strip_accents=False)
WordPiece(vocabulary={"[UNK]": 0, "lung": 1}, rules=rules).engine().encode("Lung").ids
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from prior_jax.errors import DataError

PREFIX = "##"
MAX_CHARACTERS = 100
"""BERT's limit of characters; a longer word becomes one [UNK]."""

BERT_PRE_TOKENIZER: Mapping[str, Any] = {"type": "BertPreTokenizer"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """The processing of a text before and during the lookup.

    Attributes:
      normalizer: normaliser as a tokenizer.json describes it; None leaves the text unchanged.
      pre_tokenizer: pre-tokenizer as a tokenizer.json describes it; None takes the text as one
        word.
      max_characters: largest number of characters; a longer word becomes one [UNK].
    """

    normalizer: Mapping[str, Any] | None
    pre_tokenizer: Mapping[str, Any] | None
    max_characters: int

    @property
    def is_bert(self) -> bool:
        """Returns whether the rules are BERT's.

        BERT's rules are fully given by `do_lower_case`, `strip_accents` and
        `tokenize_chinese_chars`.
        """
        normalizer = self.normalizer or {}
        return (
            normalizer.get("type") == "BertNormalizer"
            and normalizer.get("clean_text") is True
            and self.pre_tokenizer == BERT_PRE_TOKENIZER
            and self.max_characters == MAX_CHARACTERS
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordPiece:
    """A vocabulary and its rules.

    Attributes:
      vocabulary: id of each word or word piece.
      rules: rules by which texts are split.
    """

    vocabulary: Mapping[str, int]
    rules: Rules

    def document(self) -> dict[str, Any]:
        """Returns vocabulary and rules as the content of a tokenizer.json."""
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": self.rules.normalizer,
            "pre_tokenizer": self.rules.pre_tokenizer,
            "post_processor": None,
            "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": PREFIX,
                "max_input_chars_per_word": self.rules.max_characters,
                "vocab": dict(self.vocabulary),
            },
        }

    def engine(self) -> Any:
        """Builds a `tokenizers.Tokenizer`."""
        import tokenizers

        return tokenizers.Tokenizer.from_str(json.dumps(self.document()))


def bert_rules(
    *, lower_case: bool, strip_accents: bool | None = None, chinese: bool = True
) -> Rules:
    """Returns BERT's own rules.

    Args:
      lower_case: whether the text is lower-cased.
      strip_accents: whether accents are removed; None removes them if text is lower-cased.
      chinese: whether each Chinese character is a word.
    """
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": chinese,
        "strip_accents": strip_accents,
        "lowercase": lower_case,
    }
    return Rules(
        normalizer=normalizer, pre_tokenizer=BERT_PRE_TOKENIZER, max_characters=MAX_CHARACTERS
    )


def lower_cases(rules: Rules, *, field: str = "normalizer") -> bool:
    """Returns whether rules lower-case a text, determined by a trial.

    Raises:
      DataError: if the rules lower-case only some letters.
    """
    if rules.normalizer is None:
        return False
    import tokenizers

    document = WordPiece(vocabulary={"[UNK]": 0}, rules=rules).document()
    normalizer = tokenizers.Tokenizer.from_str(json.dumps(document)).normalizer
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    changed = [normalizer.normalize_str(letter) == letter.lower() for letter in letters]  # pyright: ignore[reportOptionalMemberAccess]
    if any(changed) and not all(changed):
        raise DataError(
            "The normalizer lower-cases some letters and keeps the others.",
            "Give a normalizer that lower-cases all letters or none.",
            where=field,
        )
    return all(changed)
