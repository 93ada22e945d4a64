"""Left and right, exchanged in the text of a mirrored image."""

import re

import pytest

from data_prep.phantom import phrases
from prior_jax.data.laterality import exchange_sides


@pytest.mark.parametrize(
    ("text", "exchanged"),
    [
        ("Small left pleural effusion.", "Small right pleural effusion."),
        ("Right-sided chest tube, LEFT base clear.", "Left-sided chest tube, RIGHT base clear."),
        ("RUL nodule; LLL atelectasis.", "LUL nodule; RLL atelectasis."),
        ("Mild dextroscoliosis.", "Mild levoscoliosis."),
        ("Rt. PICC, larger on the right than on the left.",
         "Lt. PICC, larger on the left than on the right."),
        ("RML opacity. Bilateral effusions. Bright, upright, leftover.",
         "RML opacity. Bilateral effusions. Bright, upright, leftover."),
        ("", ""),
    ],
)  # fmt: skip
def test_whole_words_are_exchanged_and_nothing_else(text, exchanged):
    assert exchange_sides(text) == exchanged
    assert exchange_sides(exchanged) == text


def mdetr_flip(caption):
    """The rule of MDETR's horizontal flip, of lower-case captions."""
    return caption.replace("left", "[TMP]").replace("right", "left").replace("[TMP]", "right")


def test_sentences_of_the_phantom_change_as_the_captions_of_mdetr():
    templates = [phrase.text for table in phrases.POSITIVE.values() for phrase in table]
    said = [re.sub("[{}]", "", text.replace("{side}", "left")).lower() for text in templates]
    assert sum("left" in text for text in said) > 20
    for text in said:
        assert exchange_sides(text) == mdetr_flip(text)
