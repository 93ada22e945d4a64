"""Words are put together from their pieces, and those that name findings are shown."""

import numpy as np

from prior_jax.data.tokenizer import words_of
from prior_jax.report.attention import telling


class Pieces:
    """A WordPiece-like vocabulary."""

    TOKENS = ("[CLS]", "small", "pneumo", "##thorax", ".", "seen", "[SEP]")

    def token(self, token_id):
        return self.TOKENS[token_id]

    def starts_word(self, token_id):
        return not self.token(token_id).startswith("##")


def test_pieces_become_words_counted_from_cls():
    words = words_of(np.arange(7, dtype=np.int32), tokenizer=Pieces())
    assert words == ["[CLS]", "small", "pneumothorax", ".", "seen", "[SEP]"]


def test_words_that_name_findings_come_before_long_ones_and_brackets_never():
    words = ["[CLS]", "enormous", "effusion.", "edema", "cardiac", "is", "[SEP]"]
    assert telling(words, count=2) == {2: "effusion", 3: "edema"}
    assert telling(words, count=3) == {1: "enormous", 2: "effusion", 3: "edema"}
