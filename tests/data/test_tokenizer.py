"""Both tokenizers behind their one interface."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_jax.data import tokenizer as tokenizer_lib
from prior_jax.errors import ConfigError, DataError

TEXT = st.text(alphabet="abcdeghilnrst ABZ.,'éÉ≥–ßİ\n\t_-0123", max_size=60)


def open_as(kind, path, *, lower_case=True):
    return tokenizer_lib.open_tokenizer(
        tokenizer_lib.TokenizerConfig(kind=kind, path=str(path), lower_case=lower_case)
    )


@pytest.fixture(params=["wordpiece", "sentencepiece"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def test_special_tokens_have_their_ids(tokenizer):
    ids = [getattr(tokenizer, f"{n}_id") for n in ("pad", "unk", "cls", "sep", "mask")]
    assert ids == [0, 1, 2, 3, 4]
    assert [tokenizer.token(i) for i in ids] == list(tokenizer_lib.SPECIAL_TOKENS)


def test_spans_point_at_the_words(tokenizer):
    text = "  The heart\tis  normal."
    encoded = tokenizer.encode(text)
    covered = [text[b:e] for b, e in encoded.spans]
    assert "".join(covered) == "Theheartisnormal."
    assert all(piece == piece.strip() for piece in covered)


def test_spans_count_characters_not_bytes(tokenizer):
    text = "é heart ≥ lungs"
    encoded = tokenizer.encode(text)
    covered = "".join(text[b:e] for b, e in encoded.spans)
    assert covered.endswith("lungs")
    assert "heart" in covered


@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_ids_are_in_range_and_spans_in_order(wordpiece, sentencepiece, text):
    for tokenizer in (wordpiece, sentencepiece):
        encoded = tokenizer.encode(text)
        np.testing.assert_array_equal(encoded.ids, tokenizer.encode_ids([text])[0])
        assert encoded.ids.dtype == encoded.spans.dtype == np.int32
        assert encoded.spans.shape == (len(encoded.ids), 2)
        assert ((encoded.ids >= 0) & (encoded.ids < tokenizer.vocab_size)).all()
        begins, ends = encoded.spans.T
        assert (begins <= ends).all() and (begins >= 0).all() and (ends <= len(text)).all()
        assert (np.diff(begins) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(sentences=st.lists(TEXT, max_size=4))
def test_joining_with_a_blank_tokenises_sentences_apart(wordpiece, sentencepiece, sentences):
    for tokenizer in (wordpiece, sentencepiece):
        together = tokenizer.encode(" ".join(sentences)).ids
        apart = tokenizer.encode_ids(sentences)
        np.testing.assert_array_equal(together, np.concatenate([np.zeros(0, np.int32), *apart]))


def test_special_tokens_written_in_a_report_are_only_text(tokenizer):
    specials = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    assert not specials & set(tokenizer.encode("[SEP] heart [CLS][MASK]").ids.tolist())


def test_lower_casing_is_what_the_flag_says(vocabulary):
    lower = open_as("wordpiece", vocabulary)
    cased = open_as("wordpiece", vocabulary, lower_case=False)
    assert lower.encode("Heart").ids.tolist() == lower.encode("heart").ids.tolist()
    assert cased.encode("Heart").ids.tolist() == [cased.unk_id]
    assert lower.fingerprint != cased.fingerprint


def test_lower_casing_before_sentencepiece_keeps_spans(sentencepiece_model, sentencepiece):
    text = "İ HEART"  # the first letter's lower case is two characters
    cased = open_as("sentencepiece", sentencepiece_model, lower_case=False)
    encoded = sentencepiece.encode(text)
    lowered = cased.encode("İ heart")
    np.testing.assert_array_equal(encoded.ids, lowered.ids)
    np.testing.assert_array_equal(encoded.spans, lowered.spans)
    assert len(cased.encode(text).ids) > len(encoded.ids)


def test_accents_go_with_lower_casing_as_in_bert(wordpiece):
    assert wordpiece.encode("Éédema").ids.tolist() == wordpiece.encode("eedema").ids.tolist()


def test_a_tokenizer_json_equals_its_vocab_txt(vocabulary, wordpiece, tmp_path):
    words = vocabulary.read_text().splitlines()
    model = {
        "type": "WordPiece",
        "continuing_subword_prefix": "##",
        "vocab": {word: index for index, word in enumerate(words)},
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": model}))
    text = "The heart is enlarged, no effusion."
    np.testing.assert_array_equal(
        open_as("wordpiece", path).encode(text).ids, wordpiece.encode(text).ids
    )
    path.write_text(json.dumps({"model": model | {"type": "BPE"}}))
    with pytest.raises(DataError, match=r"tokenizer.json: model.type: The value is 'BPE'"):
        open_as("wordpiece", path)


def test_of_a_word_written_twice_the_last_counts(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nheart\nlung\nheart\n")
    tokenizer = open_as("wordpiece", path)
    assert tokenizer.encode("heart lung").ids.tolist() == [7, 6]
    assert tokenizer.vocab_size == 8


def test_a_tokenizer_travels_to_another_process(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    text = "No pleural effusion."
    np.testing.assert_array_equal(copy.encode(text).ids, tokenizer.encode(text).ids)
    assert copy.fingerprint == tokenizer.fingerprint


def test_files_that_are_no_tokenizer_are_named(tmp_path, vocabulary):
    lost = tmp_path / "vocab.txt"
    with pytest.raises(DataError, match=r"vocab\.txt"):
        open_as("wordpiece", lost)
    lost.write_text("[PAD]\n[UNK]\n[CLS]\nheart\n")
    with pytest.raises(DataError, match=r"vocab.txt: The vocabulary lacks .*\[SEP\]"):
        open_as("wordpiece", lost)
    with pytest.raises(DataError, match=r"vocab\.txt: .*a sentencepiece model"):
        open_as("sentencepiece", vocabulary)
    with pytest.raises(ConfigError, match=r"^kind: The value is 'bpe'"):
        open_as("bpe", vocabulary)


def test_a_model_with_other_special_tokens_is_refused(tmp_path):
    import sentencepiece

    prefix = tmp_path / "other"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["heart lungs clear"] * 50),
        model_prefix=str(prefix),
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(DataError, match=r"other\.model: The ids 0 to 4"):
        open_as("sentencepiece", f"{prefix}.model")
