"""What the sheets of examples say in words."""

import base64
import io

import numpy as np
from PIL import Image

from prior_jax.report import sheets
from prior_jax.report.attention import named
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


def test_a_finding_that_the_text_names_is_outlined():
    masks = {"Pleural_Effusion": np.zeros((16, 16), bool), "odd": np.ones((16, 16), bool)}
    masks["Pleural_Effusion"][8:, :8] = True
    texts = ("Small left effusion.", "An odd heart.")
    truth = tuple(named(text, masks) for text in texts)
    assert truth[1] is None and np.array_equal(truth[0], masks["Pleural_Effusion"])
    given = {"title": "a", "image": 0 * image(), "attention": np.eye(2, 4), "texts": texts}
    drawn = sheets.attention_row(
        AttentionExample(**given, grid=(2, 2), spacing=8.0, truth=truth)
    ).pictures
    assert ["outlined" in one.alt for one in drawn] == [False, True, False]
    body = drawn[1].uri.partition(",")[2]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("L"))
    assert pixels.shape == (256, 256) and pixels[128, 64] > 200 and pixels[192, 64] < 100


def test_even_use_has_the_perplexity_of_all_prototypes():
    summary = sheets.bank_sheet(BankUsage(counts=np.ones(16), prototypes=())).summary
    assert "16 of 16" in summary and "perplexity of the choice is 16.0" in summary
    one = sheets.bank_sheet(BankUsage(counts=np.eye(1, 16)[0], prototypes=())).summary
    assert "1 of 16" in one and "perplexity of the choice is 1.0" in one
