"""What a model knows of a tokenizer; workers read it, so that no model library is imported here."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """What a model needs to know of a tokenizer.

    Attributes:
      size: V; ids are 0 .. V - 1.
      pad: id of [PAD].
      cls: id of [CLS].
      sep: id of [SEP].
      starts_word: bool[V], the token begins a word (WordPiece: without "##"; sentencepiece: with
        its blank); special tokens do.
      bracketed: bool[V], the token is written with a "[" first: the special tokens.
    """

    size: int
    pad: int
    cls: int
    sep: int
    starts_word: np.ndarray
    bracketed: np.ndarray
