import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.nn.word_aggregate import find_words, leading_words, sum_pieces
from prior_jax.vocabulary import Vocabulary

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "lung", "clear", "##ly", "##er")
VOCABULARY = Vocabulary(
    size=len(TOKENS),
    pad=0,
    cls=2,
    sep=3,
    starts_word=np.array([not token.startswith("##") for token in TOKENS]),
    bracketed=np.array([token.startswith("[") for token in TOKENS]),
)


def places_of(*texts, length=9, **options):
    ids = np.zeros((len(texts), length), np.int32)
    for row, text in enumerate(texts):
        found = [TOKENS.index(token) for token in text.split()]
        ids[row, : len(found)] = found
    tokens = jnp.asarray(ids)
    return find_words(tokens, tokens > 0, vocabulary=VOCABULARY, **options)


def test_pieces_belong_to_the_word_before_them():
    places = places_of("[CLS] lung clear ##ly ##er lung [SEP]")
    np.testing.assert_array_equal(places.index[0], [0, 1, 2, 2, 2, 3, 4, -1, -1])
    np.testing.assert_array_equal(np.flatnonzero(places.real[0]), [1, 2, 3])
    assert places.unbracketed[0] == 3


def test_an_unknown_word_is_real_but_not_counted():
    places = places_of("[CLS] lung [UNK] clear [SEP]")
    np.testing.assert_array_equal(np.flatnonzero(places.real[0]), [1, 2, 3])
    assert places.unbracketed[0] == 2


def test_text_ends_at_its_first_separator_or_with_its_mask():
    places = places_of("[CLS] lung [SEP] clear [SEP]", "[CLS] lung clear ##ly", "[CLS] [SEP]", "")
    assert places.unbracketed.tolist() == [1, 2, 0, 0]
    twice, cut, empty, nothing = places.real
    assert np.flatnonzero(twice).tolist() == [1]
    assert np.flatnonzero(cut).tolist() == [1, 2]
    assert not np.any(empty)
    assert not np.any(nothing)


def test_pieces_can_be_words_of_their_own():
    places = places_of("[CLS] clear ##ly [SEP]", pieces=True)
    np.testing.assert_array_equal(places.index[0, :5], [0, 1, 2, 3, -1])
    # "##ly" is written without a bracket.
    assert places.unbracketed[0] == 2


def test_sums_are_those_of_a_loop_and_padding_is_nothing():
    texts = ("[CLS] lung clear ##ly [SEP]", "[CLS] clear ##er ##ly lung clear [SEP]")
    places = places_of(*texts)
    pieces = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32)
    expected = np.zeros_like(pieces)
    for row in range(2):
        for token, word in enumerate(np.asarray(places.index)[row]):
            if word >= 0:
                expected[row, word] += pieces[row, token]
    np.testing.assert_allclose(sum_pieces(jnp.asarray(pieces), places), expected, rtol=1e-6)
    pieces[np.asarray(places.index) < 0] = 1e6
    np.testing.assert_allclose(sum_pieces(jnp.asarray(pieces), places), expected, rtol=1e-6)


def test_leading_words():
    count = jnp.array([2, 0], jnp.int32)
    np.testing.assert_array_equal(
        leading_words(count, length=4, first=1), [[False, True, True, False], [False] * 4]
    )


def test_shapes_that_do_not_fit_are_refused():
    tokens = jnp.zeros((2, 3), jnp.int32)
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        find_words(tokens, jnp.ones((2, 4), bool), vocabulary=VOCABULARY)
    with pytest.raises(ValueError, match=r"\(2, 5, 3\)"):
        sum_pieces(jnp.zeros((2, 5, 3), jnp.float32), places_of("[CLS]", "[CLS]"))
