"""Which row of a sentence's local features is the word that names a finding."""

import re
from collections.abc import Sequence

import numpy as np

from prior_jax.data.tokenizer import Tokenizer


def mentions(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Where a text holds one of the words as a whole word, whatever its case.

    Args:
      text: a sentence.
      words: e.g. ("effusion",).

    Returns:
      (first character, one past the last) of each mention, in order; empty if there is none.
    """
    pattern = "|".join(re.escape(word) for word in words)
    found = re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE)
    return [match.span() for match in found]


def rows_of_words(text: str, words: Sequence[str], *, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The words of a tokenised text that are mentions, [CLS] being word 0.

    Args:
      text: a sentence, tokenised alone.
      words: what is looked for, as `mentions` takes it.
      tokenizer: of the model; a word begins at every token that starts one, as in
        `nn.word_aggregate`.

    Returns:
      The numbers of the words, ascending, each once; punctuation that clings to a word is part
      of it.
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
