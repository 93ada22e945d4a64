import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prior_jax.evaluate import metrics


def ones(count):
    return np.ones((1, count))


def confusion(truth, predicted, classes=3):
    return metrics.confusion(
        np.array(truth), np.array(predicted), classes=classes, weights=ones(len(truth))
    )


def test_auroc_of_a_worked_example():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    positive = np.array([False, False, True, True])
    assert metrics.auroc(scores, positive, weights=ones(4)) == pytest.approx(0.75)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
def test_auroc_equals_the_mann_whitney_statistic_with_ties(rows):
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    found = metrics.auroc(scores, positive, weights=ones(len(rows)))[0]
    if positive.all() or not positive.any():
        assert np.isnan(found)
        return
    wins = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert found == pytest.approx(wins / (positive.sum() * (~positive).sum()))


def test_constant_scores_have_an_auroc_of_one_half():
    positive = np.arange(10) < 3
    assert metrics.auroc(np.zeros(10), positive, weights=ones(10)) == pytest.approx(0.5)


def test_auroc_of_opposite_scores_adds_to_one():
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 9, 50), random.random(50) < 0.3
    there = metrics.auroc(scores, positive, weights=ones(50))
    back = metrics.auroc(-scores, positive, weights=ones(50))
    assert there + back == pytest.approx(1.0)


@pytest.mark.parametrize("positive", [np.zeros(5, bool), np.ones(5, bool), np.zeros(0, bool)])
def test_a_class_without_positives_or_negatives_gives_nan_and_no_warning(positive):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = np.arange(len(positive))
        assert np.isnan(metrics.auroc(scores, positive, weights=ones(len(positive)))[0])


def test_average_precision_of_a_worked_example():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    positive = np.array([True, False, True, False])
    # Precision 1 at the first positive, 2/3 at the second.
    assert metrics.average_precision(scores, positive, weights=ones(4)) == pytest.approx(5 / 6)


def test_average_precision_of_constant_scores_is_the_prevalence():
    positive = np.arange(10) < 3
    assert metrics.average_precision(np.ones(10), positive, weights=ones(10)) == pytest.approx(0.3)


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.average_precision])
def test_a_weight_of_n_is_n_copies_of_the_record(metric):
    random = np.random.default_rng(1)
    scores, positive = random.integers(0, 5, 40), random.random(40) < 0.4
    counts = random.integers(0, 4, (3, 40))
    weighted = metric(scores, positive, weights=counts)
    for row, found in zip(counts, weighted, strict=True):
        copied = metric(scores.repeat(row), positive.repeat(row), weights=ones(row.sum()))
        assert found == pytest.approx(copied[0])


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.average_precision])
def test_rows_of_weights_do_not_touch_each_other(metric):
    random = np.random.default_rng(2)
    scores, positive = random.random(20), random.random(20) < 0.5
    weights = random.integers(0, 3, (300, 20))
    together = metric(scores, positive, weights=weights)
    alone = [metric(scores, positive, weights=row[None])[0] for row in weights]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="1 scores are not finite"):
        metrics.auroc(np.array([0.0, np.nan]), np.array([True, False]), weights=ones(2))


def test_mismatched_lengths_are_refused():
    with pytest.raises(ValueError, match="lengths differ"):
        metrics.auroc(np.zeros(3), np.zeros(2, bool), weights=ones(3))


def test_accuracy_f1_and_kappa_of_a_worked_example():
    matrix = confusion([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0])
    np.testing.assert_array_equal(matrix[0], [[1, 1, 0], [0, 2, 0], [1, 0, 1]])
    assert metrics.accuracy(matrix) == pytest.approx(4 / 6)
    assert metrics.macro_f1(matrix) == pytest.approx(np.mean([1 / 2, 4 / 5, 2 / 3]))
    # Expected agreement (2*2 + 2*3 + 2*1) / 36 = 1/3.
    assert metrics.cohen_kappa(matrix) == pytest.approx((4 / 6 - 1 / 3) / (1 - 1 / 3))


def test_the_confusion_matrix_has_the_truth_in_its_rows():
    assert confusion([0], [2])[0, 0, 2] == 1


def test_a_class_that_never_occurs_does_not_lower_the_f1():
    assert metrics.macro_f1(confusion([0, 1], [0, 1])) == pytest.approx(1.0)


def test_kappa_is_zero_for_an_answer_that_ignores_the_image_and_nan_for_one_class():
    assert metrics.cohen_kappa(confusion([0, 1, 2], [1, 1, 1])) == pytest.approx(0.0)
    assert np.isnan(metrics.cohen_kappa(confusion([1, 1], [1, 1]))[0])


def test_no_record_gives_nan():
    empty = confusion(np.zeros(0, int), np.zeros(0, int))
    assert np.isnan(
        [metrics.accuracy(empty), metrics.macro_f1(empty), metrics.cohen_kappa(empty)]
    ).all()


def test_a_class_outside_the_range_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.2"):
        confusion([0], [3])


def test_precision_and_recall_at_k():
    relevant = np.array([[True, False, True, False], [False, False, False, True]])
    np.testing.assert_allclose(metrics.precision_at(relevant, 1), [1, 0])
    np.testing.assert_allclose(metrics.precision_at(relevant, 4), [0.5, 0.25])
    np.testing.assert_allclose(metrics.recall_at(relevant, 2), [1, 0])
    np.testing.assert_allclose(metrics.recall_at(relevant, 4), [1, 1])
    with pytest.raises(ValueError, match="k = 5"):
        metrics.recall_at(relevant, 5)


def test_weighted_mean_leaves_nan_out():
    found = metrics.weighted_mean(
        np.array([1.0, np.nan, 4.0]), weights=np.array([[1, 1, 1], [2, 5, 1], [0, 1, 0]])
    )
    np.testing.assert_allclose(found, [2.5, 2.0, np.nan])
