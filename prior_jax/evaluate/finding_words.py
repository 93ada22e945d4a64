"""Finds the row of a sentence's local features that belongs to the word naming a finding."""

import re
from collections.abc import Sequence

import numpy as np

from prior_jax.data.tokenizer import Tokenizer


def mentions(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Finds every place where a text contains one of the words as a whole word, in any case.

    Args:
      text: sentence to search.
      words: words to find, e.g. ("effusion",).

    Returns:
      Spans (first character, one past the last) of the mentions, in order; empty if there is none.
    """
    if not words:
        return []
    pattern = "|".join(re.escape(word) for word in words)
    found = re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE)
    return [match.span() for match in found]


def rows_of_words(text: str, words: Sequence[str], *, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Returns the words of a tokenised text that are mentions, where [CLS] is word 0.

    Args:
      text: sentence, tokenised alone.
      words: words to find, see `mentions`.
      tokenizer: tokenizer of the model; a word begins at every token that starts one, as in
        `nn.word_aggregate`.

    Returns:
      Numbers of the words, ascending and unique; punctuation attached to a word belongs to it.
    """
    encoding = tokenizer.encode(text)
    starts = np.array([tokenizer.starts_word(int(token)) for token in encoding.ids], bool)
    number = np.cumsum(starts, dtype=np.int64)
    first, last = encoding.spans[:, 0], encoding.spans[:, 1]
    found = {
        int(word)
        for start, stop in mentions(text, words)
        for word in number[(first < stop) & (last > start)]
    }
    return tuple(sorted(found))
