"""Properties of the sentence splitter."""

import hypothesis
import pytest
from hypothesis import strategies as st

from prior_jax.data import sentences
from prior_jax.data.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("Clear", ["Clear"]),
        ("Lungs are clear.  No effusion.", ["Lungs are clear.", "No effusion."]),
        ("Ends 4 cm. above the carina. Stable.", ["Ends 4 cm. above the carina.", "Stable."]),
        ("Nodule of 3 cm. Stable.", ["Nodule of 3 cm.", "Stable."]),
        ("Measures approx. 3 mm. now.", ["Measures approx. 3 mm. now."]),
        ("See in 6 wks. with CT. Done.", ["See in 6 wks. with CT.", "Done."]),
        ("A 1.5 cm nodule. New.", ["A 1.5 cm nodule.", "New."]),
        ("A nodule of 1. 5 cm. New.", ["A nodule of 1. 5 cm.", "New."]),
        ("Told to Dr. ___ at 5 p.m. on ___.", ["Told to Dr. ___ at 5 p.m. on ___."]),
        ("Dr. Smith was told. Ok.", ["Dr. Smith was told.", "Ok."]),
        ("Seen on ___. ___ is removed.", ["Seen on ___.", "___ is removed."]),
        ("XXXX opacity. XXXX is clear.", ["XXXX opacity.", "XXXX is clear."]),
        ("1. No change.\n 2. Follow up.", ["1. No change.", "2. Follow up."]),
        ("1. No change. 2. Follow up.", ["1. No change.", "2. Follow up."]),
        ("Heart is\n normal.\n \n Lungs clear", ["Heart is normal.", "Lungs clear"]),
        ("Heart is normal.No effusion is seen.", ["Heart is normal.", "No effusion is seen."]),
        ("Is it new? Yes!", ["Is it new?", "Yes!"]),
        ("No change vs. prior. Ok.", ["No change vs. prior.", "Ok."]),
        ("Between ribs 8 and\n 9. No effusion.", ["Between ribs 8 and 9.", "No effusion."]),
        (
            "1. Old fracture of rib\n 9. Stable\n2. Ok",
            ["1. Old fracture of rib 9.", "Stable", "2. Ok"],
        ),
        ("1. No change 2. Edema\n3. Effusion", ["1. No change", "2. Edema", "3. Effusion"]),
        ("As before:\n3) Edema\n4) Effusion", ["As before:", "3) Edema", "4) Effusion"]),
        ("1.NO ACUTE DISEASE\n2.SMALL EFFUSION", ["1.NO ACUTE DISEASE", "2.SMALL EFFUSION"]),
        ("A nodule of\n1.5 cm is new", ["A nodule of 1.5 cm is new"]),
        ("ET TUBE 3 CM. ABOVE CARINA. OK.", ["ET TUBE 3 CM. ABOVE CARINA.", "OK."]),
        ("NODULE OF 3 CM. IN SIZE. NEW.", ["NODULE OF 3 CM. IN SIZE.", "NEW."]),
        ("NODULE OF 3 CM. NO EFFUSION.", ["NODULE OF 3 CM.", "NO EFFUSION."]),
        (
            "Pneumothorax: No.\nEffusion: No.\nCardiomegaly: Yes.",
            ["Pneumothorax: No.", "Effusion: No.", "Cardiomegaly: Yes."],
        ),
        ("Is there PNA? No. Lungs are clear.", ["Is there PNA?", "No.", "Lungs are clear."]),
        ("Fracture of rib no. 5. Ok.", ["Fracture of rib no. 5.", "Ok."]),
        ("See fig. 2. Ok.", ["See fig. 2.", "Ok."]),
        ("Told to the pt. Follow up.", ["Told to the pt.", "Follow up."]),
        ("The pt. is rotated. Ok.", ["The pt. is rotated.", "Ok."]),
        ("PT. IS ROTATED. OK.", ["PT. IS ROTATED.", "OK."]),
        (
            "1. ET tube ends at 4 cm. 2. Lungs are clear. 3. No effusion.",
            ["1. ET tube ends at 4 cm.", "2. Lungs are clear.", "3. No effusion."],
        ),
        ("HEART IS NORMAL.LUNGS ARE CLEAR.", ["HEART IS NORMAL.", "LUNGS ARE CLEAR."]),
        (
            "1.NO EFFUSION.2.STABLE EDEMA.3.SMALL LEFT EFFUSION.",
            ["1.NO EFFUSION.", "2.STABLE EDEMA.", "3.SMALL LEFT EFFUSION."],
        ),
    ],
)
def test_known_splits(text, expected):
    assert split_sentences(text) == expected


@pytest.mark.parametrize("bullet", "-*\u2022\u2013\u2014\u00b7\u25aa\u25cf\u2023")
def test_bullets_separate_sentences_without_full_stops(bullet):
    items = [f"{bullet} Stable", f"{bullet} No effusion"]
    assert split_sentences("\n ".join(items)) == items


WORDS = st.sampled_from(
    "The lungs are clear. Heart No effusion 3 cm. 1.5 mm. approx. Dr. ___ XXXX . ; : ( ) [ ] \" ' "
    "e.g. p.m. U.S. 1. 2. 3) - • ? ! ... normal.No \n \n\n \r\n \t & ȸ ∯ &ᓴ& é 5% 10:30 St.".split(
        " "
    )
)
TEXTS = st.one_of(st.lists(WORDS, max_size=40).map(" ".join), st.text(max_size=80))


@hypothesis.given(TEXTS)
@hypothesis.settings(max_examples=300, deadline=None)
def test_no_character_is_lost(text):
    got = split_sentences(text)
    assert "".join("".join(got).split()) == "".join(text.split())
    assert all(sentence == " ".join(sentence.split()) and sentence for sentence in got)


PLAIN = st.sampled_from(
    [
        "The lungs are clear.",
        "Heart size is normal.",
        "No pleural effusion or pneumothorax.",
        "Measures 3 cm.",
        "Small approx. sized nodule.",
        "Seen on ___.",
        "Dr. Who was told (by phone).",
        'He said "fine."',
        "Compared to Nov. 3, unchanged.",
        "Is it new?",
        "Follow up 1. now 2. later.",
        "Stable, i.e. unchanged; ok.",
    ]
)


@hypothesis.given(st.lists(PLAIN, min_size=1, max_size=8).map("  ".join))
@hypothesis.settings(max_examples=200, deadline=None)
def test_cutting_before_pysbd_changes_nothing(text):
    fast = split_sentences(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentences, "_safe_ends", lambda part: [])
        patch.setattr(sentences, "_needs_pysbd", lambda part: True)
        sentences._segment.cache_clear()
        slow = split_sentences(text)
        sentences._segment.cache_clear()
    assert fast == slow


@pytest.mark.parametrize("pieces", [["Clear. Norm"], ["Clear.", "Clear.", "Normal."], []])
def test_what_the_splitter_loses_or_repeats_is_not_lost(monkeypatch, pieces):
    class Careless:
        def processor(self, text):
            return self

        def process(self):
            return pieces

    monkeypatch.setattr(sentences, "_segmenter", Careless)
    monkeypatch.setattr(sentences, "_safe_ends", lambda part: [])
    sentences._segment.cache_clear()
    assert split_sentences("Clear. Normal.") == ["Clear. Normal."]
    sentences._segment.cache_clear()


@pytest.mark.parametrize("text", ["The lungs are clear. No effusion.", "Seen on ___. ___ is out."])
def test_splitting_a_sentence_again_gives_it_back(text):
    for sentence in split_sentences(text):
        assert split_sentences(sentence) == [sentence]
