"""A WordPiece tokenizer's vocabulary and rules, and the library's object that follows them.

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
"""BERT's; a longer word becomes one [UNK]."""

BERT_PRE_TOKENIZER: Mapping[str, Any] = {"type": "BertPreTokenizer"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What happens to a text before and while it is looked up.

    Attributes:
      normalizer: normaliser as a tokenizer.json describes it; None leaves the text as it is.
      pre_tokenizer: the one that a tokenizer.json describes; None takes the text as one word.
      max_characters: a longer word becomes one [UNK].
    """

    normalizer: Mapping[str, Any] | None
    pre_tokenizer: Mapping[str, Any] | None
    max_characters: int

    @property
    def is_bert(self) -> bool:
        """Whether `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` tell all of it."""
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
      vocabulary: word or word piece -> id.
      rules: rules by which texts are cut.
    """

    vocabulary: Mapping[str, int]
    rules: Rules

    def document(self) -> dict[str, Any]:
        """All of it as the content of a tokenizer.json."""
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
        """A `tokenizers.Tokenizer`."""
        import tokenizers

        return tokenizers.Tokenizer.from_str(json.dumps(self.document()))


def bert_rules(
    *, lower_case: bool, strip_accents: bool | None = None, chinese: bool = True
) -> Rules:
    """BERT's own rules.

    Args:
      lower_case: whether the text is lower-cased.
      strip_accents: whether accents are taken off; None does so where text is lower-cased.
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
    """Whether rules lower-case a text, found by trying.

    Raises:
      DataError: if they lower-case some letters alone.
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
            field, received="a normalizer that lower-cases some letters", accepted="all or none"
        )
    return all(changed)
