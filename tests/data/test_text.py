"""Reports to tokens: every token knows its sentence, truncation and padding are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_jax.data import text as text_lib
from prior_jax.data import tokenizer as tokenizer_lib
from prior_jax.errors import DataError
from tests import fixtures

SENTENCE = st.lists(st.sampled_from(fixtures.WORDS), max_size=7).map(
    lambda words: " ".join(words).capitalize()
)


def encode(sentences, tokenizer, *, mode="paper", max_tokens=64, max_sentences=8):
    return text_lib.encode_report(
        sentences,
        tokenizer=tokenizer,
        mode=mode,
        max_tokens=max_tokens,
        max_sentences=max_sentences,
        name="record 7",
    )


@settings(max_examples=60, deadline=None)
@given(sentences=st.lists(SENTENCE, min_size=1, max_size=6), max_tokens=st.integers(3, 60))
def test_every_token_is_owned_by_its_sentence(wordpiece, sentencepiece, sentences, max_tokens):
    for tokenizer in (wordpiece, sentencepiece):
        spoken = [s for s in sentences if len(tokenizer.encode(s).ids)]
        if not spoken:
            continue
        encoded = encode(sentences, tokenizer, max_tokens=max_tokens, max_sentences=4)
        count = int(encoded.token_mask.sum())
        assert encoded.token_mask[:count].all()
        assert encoded.tokens[0] == tokenizer.cls_id
        assert encoded.tokens[count - 1] == tokenizer.sep_id
        assert (encoded.tokens[count:] == tokenizer.pad_id).all()
        assert encoded.sentence_index[0] == encoded.sentence_index[count - 1] == -1
        assert (encoded.sentence_index[count:] == -1).all()
        assert (encoded.sentence_index[1 : count - 1] >= 0).all()
        kept = int(encoded.sentence_mask.sum())
        assert 1 <= kept <= 4 and encoded.sentence_mask[:kept].all()
        for number in range(kept):
            owned = encoded.tokens[encoded.sentence_index == number]
            whole = tokenizer.encode(spoken[number]).ids
            if kept > 1 or len(whole) <= max_tokens - 2:
                np.testing.assert_array_equal(owned, whole)
            else:
                np.testing.assert_array_equal(owned, whole[: max_tokens - 2])


@settings(max_examples=40, deadline=None)
@given(sentences=st.lists(SENTENCE, min_size=1, max_size=6), seed=st.integers(0, 9))
def test_the_counted_length_holds_for_every_order(wordpiece, sentences, seed):
    counted = text_lib.count_tokens(sentences, tokenizer=wordpiece).report
    order = text_lib.shuffled(sentences, rng=np.random.default_rng(seed))
    assert sorted(order) == sorted(sentences)
    assert text_lib.count_tokens(order, tokenizer=wordpiece).report == counted
    if counted:
        encoded = encode(order, wordpiece, max_tokens=counted, max_sentences=6)
        assert encoded.token_mask.all()


def test_the_longest_sentence_is_counted_apart(wordpiece):
    sentences = ["...", "Heart is normal.", "Lungs are clear without effusion."]
    apart = [text_lib.count_tokens([s], tokenizer=wordpiece).report for s in sentences]
    counts = text_lib.count_tokens(sentences, tokenizer=wordpiece)
    assert counts.sentence == max(apart) < counts.report
    assert text_lib.count_tokens([" ", ""], tokenizer=wordpiece) == text_lib.TokenCounts(
        report=0, sentence=0
    )


def test_every_sentence_with_a_token_is_drawn_equally_often(wordpiece):
    sentences = ["Heart is normal.", " ", "No effusion.", "", "New edema."]
    rng = np.random.default_rng(3)
    drawn = [text_lib.drawn_sentence(sentences, tokenizer=wordpiece, rng=rng) for _ in range(600)]
    for spoken in ("Heart is normal.", "No effusion.", "New edema."):
        assert abs(drawn.count([spoken]) - 200) < 50
    assert text_lib.drawn_sentence([" ", ""], tokenizer=wordpiece, rng=rng) == []


def test_owners_are_where_the_spans_say(wordpiece, sentencepiece):
    sentences = ["The heart is normal.", "No effusion", "Small left effusion."]
    joined = " ".join(sentences)
    borders = np.cumsum([len(s) + 1 for s in sentences])
    for tokenizer in (wordpiece, sentencepiece):
        spans = tokenizer.encode(joined).spans
        owners = np.searchsorted(borders, spans[:, 0], side="right")
        encoded = encode(sentences, tokenizer)
        index = encoded.sentence_index[encoded.sentence_index >= 0]
        np.testing.assert_array_equal(index, owners)


def test_a_long_report_loses_whole_sentences_and_keeps_sep(wordpiece):
    sentences = ["Heart is normal.", "Lungs are clear without effusion.", "New edema."]
    lengths = [len(ids) for ids in wordpiece.encode_ids(sentences)]
    encoded = encode(sentences, wordpiece, max_tokens=2 + lengths[0] + lengths[1] - 1)
    assert encoded.sentence_mask.tolist() == [True] + 7 * [False]
    assert encoded.token_mask.sum() == lengths[0] + 2
    assert encoded.tokens[lengths[0] + 1] == wordpiece.sep_id


def test_the_release_loses_sep_and_lets_the_index_drift(wordpiece):
    sentences = ["Heart is normal", "Lungs are clear"]
    alone = [len(ids) for ids in wordpiece.encode_ids(sentences)]
    encoded = encode(sentences, wordpiece, mode="release")
    assert (encoded.sentence_index >= 0).sum() == sum(alone)
    joined = wordpiece.encode("".join(sentences)).ids
    np.testing.assert_array_equal(encoded.tokens[1 : 1 + len(joined)], joined)
    short = encode(sentences, wordpiece, mode="release", max_tokens=5)
    assert wordpiece.sep_id not in short.tokens and short.token_mask.all()


def test_the_release_index_can_own_sep_and_padding(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*tokenizer_lib.SPECIAL_TOKENS, "no", "edema", "noedemano"]))
    tokenizer = tokenizer_lib.open_tokenizer(
        tokenizer_lib.TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    )
    encoded = encode(["no", "edema", "no"], tokenizer, mode="release", max_tokens=6)
    assert encoded.tokens.tolist() == [2, 7, 3, 0, 0, 0]
    assert encoded.sentence_index.tolist() == [-1, 0, 1, 2, -1, -1]


def test_the_release_keeps_tokens_of_sentences_beyond_the_cap(wordpiece):
    sentences = ["Heart is normal.", "New edema.", "Small effusion."]
    alone = [len(ids) for ids in wordpiece.encode_ids(sentences)]
    encoded = encode(sentences, wordpiece, mode="release", max_sentences=2)
    assert encoded.sentence_mask.tolist() == [True, True]
    assert encoded.token_mask.sum() == sum(alone) + 2
    assert (encoded.sentence_index >= 0).sum() == sum(alone[:2])
    assert encoded.sentence_index.max() == 1


@pytest.mark.parametrize("mode", text_lib.MODES)
@pytest.mark.parametrize("sentences", [[], ["", " \n"]])
def test_a_report_without_a_word_is_refused_by_name(wordpiece, mode, sentences):
    with pytest.raises(DataError, match="record 7: No sentence contains a word"):
        encode(sentences, wordpiece, mode=mode)


def test_prompts_are_reports_of_one_sentence(wordpiece):
    prompts = ["Edema is seen", "Large left pleural effusion is seen"]
    encoded = text_lib.encode_prompts(
        prompts, tokenizer=wordpiece, max_tokens=40, max_sentences=3, length=30
    )
    assert encoded.tokens.shape == encoded.token_mask.shape == (2, 30)
    assert encoded.sentence_mask.tolist() == [[True, False, False]] * 2
    for row, prompt in enumerate(prompts):
        alone = encode([prompt], wordpiece, max_tokens=30, max_sentences=3)
        np.testing.assert_array_equal(encoded.tokens[row], alone.tokens)
        np.testing.assert_array_equal(encoded.sentence_index[row], alone.sentence_index)
    fitted = text_lib.encode_prompts(prompts, tokenizer=wordpiece, max_tokens=40, max_sentences=3)
    assert fitted.token_mask.all(axis=1).any()
    with pytest.raises(DataError, match="at least one prompt"):
        text_lib.encode_prompts([], tokenizer=wordpiece, max_tokens=40, max_sentences=3)
    with pytest.raises(DataError, match="length: The value is 3"):
        text_lib.encode_prompts(
            prompts, tokenizer=wordpiece, max_tokens=40, max_sentences=3, length=3
        )


def test_no_report_has_specials_and_no_sentence(wordpiece):
    encoded = text_lib.empty_report(tokenizer=wordpiece, length=6, max_sentences=2)
    assert encoded.tokens.tolist() == [wordpiece.cls_id, wordpiece.sep_id, 0, 0, 0, 0]
    assert encoded.token_mask.sum() == 2
    assert (encoded.sentence_index == -1).all() and not encoded.sentence_mask.any()
