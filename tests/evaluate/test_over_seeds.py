import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from prior_jax.evaluate import over_seeds


def test_mean_deviation_and_t_interval_equal_scipy():
    values = [0.71, 0.74, 0.69]
    found = over_seeds.seed_intervals([{"auroc": v} for v in values], confidence=0.9)["auroc"]
    low, high = stats.t.interval(0.9, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high)) and found.count == 3


def test_a_seed_without_a_value_is_left_out_and_one_value_has_no_spread():
    found = over_seeds.seed_intervals(
        [{"a": 0.5, "b": math.nan}, {"a": math.nan, "b": math.nan}, {"c": 1.0}], confidence=0.95
    )
    assert found["a"].to_json() == {"mean": 0.5, "sd": None, "low": None, "high": None, "count": 1}
    assert found["b"].count == 0 and math.isnan(found["b"].mean)
    assert list(found) == ["a", "b", "c"]
    assert over_seeds.seed_intervals([], confidence=0.95) == {}


def test_draws_hold_as_many_of_each_class_and_no_excluded_record():
    truth = np.random.default_rng(0).integers(-1, 5, 400)
    rows = over_seeds.draw_per_class(truth, each=20, seed=114514)
    assert np.bincount(truth[rows]).tolist() == [20] * 5 and len(np.unique(rows)) == 100
    np.testing.assert_array_equal(rows, over_seeds.draw_per_class(truth, each=20, seed=114514))
    assert (rows != over_seeds.draw_per_class(truth, each=20, seed=114515)).any()
    with pytest.raises(ValueError, match="class 0 has"):
        over_seeds.draw_per_class(truth, each=200, seed=0)


def test_metrics_over_five_draws_equal_scikit_learn():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, 600)
    scores = rng.normal(size=(600, 5)) + 1.2 * np.eye(5)[truth]
    draws = [over_seeds.draw_per_class(truth, each=50, seed=seed) for seed in range(5)]
    found = over_seeds.over_draws(scores, truth, draws=draws, classes="abcde", confidence=0.95)
    answers = scores.argmax(axis=1)
    for name, metric in {
        "accuracy": sk.accuracy_score,
        "kappa": sk.cohen_kappa_score,
        "macro_precision": lambda t, a: sk.precision_score(t, a, average="macro"),
        "macro_recall": lambda t, a: sk.recall_score(t, a, average="macro"),
        "macro_f1": lambda t, a: sk.f1_score(t, a, average="macro"),
    }.items():
        each = [metric(truth[rows], answers[rows]) for rows in draws]
        assert found[name].mean == pytest.approx(np.mean(each), abs=1e-9), name
        assert found[name].sd == pytest.approx(np.std(each, ddof=1), abs=1e-9), name
        assert found[name].count == 5
