"""What the sheets of examples say in words."""

import numpy as np

from prior_jax.report import sheets
from prior_jax.report.examples import AttentionExample, BankUsage
from tests.report.pages import image


def test_shared_words_are_marked_and_the_text_is_kept():
    text = "There is a Small left effusion, no edema."
    pieces = sheets.shared_words(text, "small LEFT nodule. There is no mass.")
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, shared in pieces if shared] == ["Small left"]


def test_the_strongest_patch_is_named_by_row_and_column():
    attention = np.zeros((1, 6))
    attention[0, 4] = 1.0
    example = AttentionExample(
        title="a", image=image(), attention=attention, grid=(2, 3), spacing=8.0, texts=("x",)
    )
    assert "row 2 of 2, column 2 of 3" in sheets.attention_row(example).pictures[1].alt


def test_even_use_has_the_perplexity_of_all_prototypes():
    summary = sheets.bank_sheet(BankUsage(counts=np.ones(16), prototypes=())).summary
    assert "16 of 16" in summary and "perplexity of the choice is 16.0" in summary
    one = sheets.bank_sheet(BankUsage(counts=np.eye(1, 16)[0], prototypes=())).summary
    assert "1 of 16" in one and "perplexity of the choice is 1.0" in one
