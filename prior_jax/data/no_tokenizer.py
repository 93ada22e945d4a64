"""The tokenizer of runs that read no reports, in the form that the pipeline expects of one."""

import pathlib
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from prior_jax.data.wordpiece_settings import SPECIAL_TOKENS
from prior_jax.errors import DataError


class NoTokenizer:
    """Knows the special tokens alone; a text in front of it is an error."""

    name = "none"
    fingerprint = "none: no report is read"
    vocab_size = len(SPECIAL_TOKENS)
    pad_id = SPECIAL_TOKENS.index("[PAD]")
    unk_id = SPECIAL_TOKENS.index("[UNK]")
    cls_id = SPECIAL_TOKENS.index("[CLS]")
    sep_id = SPECIAL_TOKENS.index("[SEP]")
    mask_id = SPECIAL_TOKENS.index("[MASK]")

    def __init__(self, path: pathlib.Path, *, lower_case: bool):
        """Ignores the arguments, which are those of every tokenizer."""
        del path, lower_case

    def encode(self, text: str) -> Any:
        """Refuses the text."""
        self._refuse(text)

    def encode_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Refuses the texts."""
        self._refuse(texts)

    def token(self, token_id: int) -> str:
        """Returns the name of a special token."""
        return SPECIAL_TOKENS[int(token_id)]

    def starts_word(self, token_id: int) -> bool:
        """Returns True: every special token is a word."""
        del token_id
        return True

    def _refuse(self, text: Any) -> NoReturn:
        raise DataError(
            f"The model reads no reports, and was given {str(text)[:60]!r}.",
            "Ask a model that was trained with reports.",
            where="text",
        )
