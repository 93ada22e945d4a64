"""GLoRIA's sentences: what the release loses, and that the corrected mode keeps it."""

import hypothesis
import pytest
from hypothesis import strategies as st

from prior_jax.data.gloria_text import split_report
from prior_jax.data.sentences import SPLITTERS
from prior_jax.errors import ConfigError
from prior_jax.evaluate import gloria_prompts


@pytest.mark.parametrize(
    ("text", "paper", "release"),
    [
        ("", [], []),
        ("Normal.", ["normal"], []),
        ("Tip 3.5 cm above.", ["tip 3.5 cm above"], ["5 cm above"]),
        ("1. Mild edema.\n2. No change.", ["mild edema", "no change"], ["mild edema", "no change"]),
        ("Is new. 12. No change.", ["is new", "no change"], ["is new", "no change"]),
        ("New opacity 13.Old edema", ["new opacity", "old edema"], ["new opacity", "old edema"]),
        ("Nodule of 3. It grows.", ["nodule of 3", "it grows"], ["nodule of", "it grows"]),
        ("Café-au-lait seen.", ["cafe au lait seen"], ["caf au lait seen"]),
        ("Seen by ___ today.", ["seen by today"], ["seen by ___ today"]),
        ("Is it new? Yes, it is.", ["is it new", "yes it is"], ["is it new yes it is"]),
        ("Ribs 8 and\n 9. Stable.", ["ribs 8 and 9", "stable"], ["ribs 8 and"]),
        ("1. No\n2. Old\n\n4. New", ["no", "old", "new"], []),
        ("Heart\n is normal.", ["heart is normal"], ["heart is normal"]),
        ("中 文.", [], [""]),
        ("a\ufffd\ufffdb", ["a b"], ["a b"]),
    ],
)  # fmt: skip
def test_known_reports(text, paper, release):
    assert split_report(text, mode="paper") == paper
    assert split_report(text, mode="release") == release


def test_the_limit_is_reached_or_must_be_met():
    text = "One two three. Four five six. Seven eight."
    for limit, paper, release in ((5, 2, 3), (6, 2, 2), (3, 1, 1), (99, 3, 3)):
        assert len(split_report(text, mode="paper", max_words=limit)) == paper
        assert len(split_report(text, mode="release", max_words=limit)) == release


@hypothesis.given(st.text(alphabet="aB3. _é?\n\ufffd中-", max_size=60))
@hypothesis.settings(max_examples=200, deadline=None)
def test_the_corrected_mode_keeps_every_letter_and_nothing_else(text):
    got = split_report(text, mode="paper")
    assert all(got)
    joined = " ".join(got)
    assert set(joined) <= set("abe3. ")
    for letter in "abé":
        assert joined.count("e" if letter == "é" else letter) == text.lower().count(letter)
    assert split_report(joined, mode="paper") == ([joined] if joined else [])


def test_a_trained_model_reads_all_words_as_the_release_prepares_them():
    read = SPLITTERS["gloria_inference"]
    text = "Heart SIZE is normal, lungs clear. " * 50
    assert read(text) == ["heart size is normal lungs clear"] * 50
    # Its own prompts are bare words already, but for one, so that they need no splitter.
    prompts = [text for texts in gloria_prompts.released().values() for text in texts]
    (other,) = [text for text in prompts if read(text) != [" ".join(text.split())]]
    assert len(prompts) == 489 and "silhouette, likely left ventricular" in other


def test_another_mode_is_refused():
    with pytest.raises(ConfigError, match=r"mode: The value is 'fast'"):
        split_report("x", mode="fast")  # pyright: ignore[reportArgumentType]
