"""Shares of positive neighbours, against scikit-learn's classifier of nearest neighbours."""

import numpy as np
import pytest

from prior_jax.evaluate.neighbours import neighbour_scores

TEMPERATURE = 0.07


def drawn(seed, *, queries=20, bank=60, classes=3):
    rng = np.random.default_rng(seed)
    positive = rng.random((bank, classes)) < 0.4
    known = rng.random((bank, classes)) < 0.8
    features = rng.normal(size=(queries, 5)), rng.normal(size=(bank, 5))
    return *(x.astype(np.float32) for x in features), positive, known


def scored(features, bank, positive, known, **changes):
    settings = dict(neighbours=7, temperature=TEMPERATURE) | changes
    return neighbour_scores(features, bank=bank, positive=positive, known=known, **settings)


@pytest.mark.parametrize("seed", range(20))
def test_the_shares_are_those_of_scikit_learn(seed):
    neighbors = pytest.importorskip("sklearn.neighbors")
    features, bank, positive, known = drawn(seed)
    found = scored(features, bank, positive, known)
    for index in range(positive.shape[1]):
        rows = known[:, index]
        model = neighbors.KNeighborsClassifier(
            7,
            metric="cosine",
            weights=lambda distance: np.exp((1.0 - distance) / TEMPERATURE),
        )
        model.fit(bank[rows].astype(np.float64), positive[rows, index])
        expected = model.predict_proba(features.astype(np.float64))[:, 1]
        np.testing.assert_allclose(found[:, index], expected, rtol=1e-9, atol=1e-12)


def test_many_queries_are_scored_as_each_by_itself():
    features, bank, positive, known = drawn(0, queries=600)
    found = scored(features, bank, positive, known)
    one = [scored(features[i : i + 1], bank, positive, known)[0] for i in (0, 255, 256, 599)]
    np.testing.assert_allclose(found[[0, 255, 256, 599]], one, rtol=1e-12)


def test_lengths_of_features_and_unknown_rows_do_not_matter():
    features, bank, positive, known = drawn(1)
    found = scored(features, bank, positive, known)
    np.testing.assert_allclose(scored(3 * features, 5 * bank, positive, known), found, rtol=1e-5)
    np.testing.assert_array_equal(scored(features, bank, positive | ~known, known), found)


def test_a_large_temperature_counts_neighbours_and_a_small_one_takes_the_nearest():
    features, bank, positive, known = drawn(2)
    even = scored(features, bank, positive, known, temperature=1e9)
    np.testing.assert_allclose(even * 7, np.round(even * 7), atol=1e-5)
    nearest = scored(features, bank, positive, known, neighbours=1)
    np.testing.assert_allclose(scored(features, bank, positive, known, temperature=1e-6), nearest)
    assert set(np.unique(nearest)) == {0.0, 1.0}


def test_all_rows_count_if_there_are_fewer_than_neighbours():
    features, bank, positive, known = drawn(3)
    known[:, 0], known[:5, 0], known[:, 1] = False, True, False
    found = scored(features, bank, positive, known, temperature=1e9)
    np.testing.assert_allclose(found[:, 0], positive[:5, 0].mean(), rtol=1e-6)
    assert np.isnan(found[:, 1]).all() and not np.isnan(found[:, 2]).any()


def test_equal_cosines_take_the_first_rows_and_zeros_are_like_nothing():
    bank = np.array([[0, 1], [2, 0], [1, 0], [0, 0]], np.float32)
    positive = np.array([[False], [True], [False], [True]])
    known = np.ones((4, 1), bool)
    queries = np.array([[1, 0], [0, 0]], np.float32)
    assert scored(queries, bank, positive, known, neighbours=1).tolist() == [[1.0], [0.0]]
