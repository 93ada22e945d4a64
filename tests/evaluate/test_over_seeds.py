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


def test_two_seeds_have_their_mean_and_deviation_and_no_interval():
    found = over_seeds.seed_intervals([{"auroc": 0.43}, {"auroc": 0.61}], confidence=0.95)["auroc"]
    assert found.mean == pytest.approx(0.52) and found.sd == pytest.approx(0.18 / 2**0.5)
    assert math.isnan(found.low) and math.isnan(found.high) and found.count == 2
    draws = [np.full(9, 0.43), np.full(9, 0.61)]
    both = over_seeds.over_patients_and_seeds(
        [0.43, 0.61], draws, metric="macro_auroc", confidence=0.95
    )
    assert both.value == pytest.approx(0.52) and math.isnan(both.low) and math.isnan(both.high)


@pytest.mark.parametrize(
    ("metric", "least", "most"),
    [
        *((name, 0, 1) for name in ("macro_auroc", "f1_edema", "accuracy", "macro_brier")),
        ("brier", 0, 2),
        ("kappa", -1, 1),
        *((name, 0, 1) for name in ("macro_pointing", "random_edema", "hit_at_5", "macro_miou")),
        *((name, -1, 1) for name in ("macro_gain", "gain_edema")),
        *((name, -math.inf, math.inf) for name in ("cnr_edema", "macro_attention_ratio")),
        ("mean_rank", -math.inf, math.inf),
    ],
)
def test_intervals_are_student_s_cut_at_the_metric_s_range(metric, least, most):
    values = [least + 0.01, most - 0.01, most] if most < 3 else [0.0, 1.0, 5.0]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    draws = [np.full(10, value) for value in values]
    found = over_seeds.seed_intervals([{metric: v} for v in values], confidence=0.95)[metric]
    both = over_seeds.over_patients_and_seeds(values, draws, metric=metric, confidence=0.95)
    wanted = max(low, least), min(high, most)
    assert (found.low, found.high) == pytest.approx(wanted)
    assert (both.low, both.high) == pytest.approx(wanted)
    assert least <= found.low < both.value < found.high <= most
    assert (wanted == (least, most)) == (most < 3)  # the case is one that needs the cut


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


def test_scores_are_changed_within_each_draw_before_they_are_read():
    scores, truth = np.array([[5.0, 3.0], [6.0, 4.5], [9.0, 1.0]]), np.array([0, 1, 0])
    draws = [np.array([0, 1])]
    plain, centred = (
        over_seeds.over_draws(
            scores, truth, draws=draws, classes="ab", confidence=0.95, within=within
        )["accuracy"].mean
        for within in (None, lambda drawn: drawn - drawn.mean(axis=0))
    )
    assert (plain, centred) == (0.5, 1.0)


def test_of_equal_seeds_the_interval_over_patients_is_left():
    draws = np.random.default_rng(0).beta(9, 2, 4000)  # skewed, as areas near 1 are
    mean = float(np.mean(draws))
    found = over_seeds.over_patients_and_seeds(
        [mean] * 3, [draws] * 3, metric="auroc", confidence=0.95
    )
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])))


def test_of_certain_patients_the_t_interval_over_seeds_is_left():
    values = [0.6, 0.7, 0.75]
    found = over_seeds.over_patients_and_seeds(
        values, [np.full(10, value) for value in values], metric="level", confidence=0.9
    )
    wanted = stats.t.interval(0.9, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(wanted)


def test_seeds_and_resamples_without_a_value_are_left_out():
    draws = [np.array([0.5, 0.6, np.nan]), *[np.array([0.7, 0.8, 0.9])] * 2, np.zeros(3)]

    def over(values, drawn):
        return over_seeds.over_patients_and_seeds(values, drawn, metric="auroc", confidence=0.95)

    found = over([0.6, 0.7, 0.65, math.nan], draws)
    less = over([0.6, 0.7, 0.65], [one[:2] for one in draws[:3]])
    assert found == less and found.value == pytest.approx(0.65) and found.low < found.high
    for values in ([], [0.6]):
        alone = over(values, draws[: len(values)])
        assert math.isnan(alone.low) and math.isnan(alone.high)
    with pytest.raises(ValueError):
        over([0.6, 0.7], draws)


@pytest.mark.parametrize(("of_seeds", "of_patients"), [(1.0, 0.2), (1.0, 1.0), (0.2, 1.0)])
def test_the_interval_covers_the_truth_where_the_usual_ones_do_not(of_seeds, of_patients):
    """Three seeds on the same patients, 1,000 times; the truth is 0."""
    rng, count, times = np.random.default_rng(1), 3, 1000
    shared = rng.normal(0, of_patients, times)  # what the patients of the test set add
    values = rng.normal(0, of_seeds, (times, count)) + shared[:, None]
    unit = stats.norm.ppf((np.arange(400) + 0.5) / 400)  # the bootstrap's draws, without noise
    draws, quantile = of_patients * unit, stats.t.ppf(0.975, count - 1)
    covered = {"both": 0, "seeds": 0, "resampled": 0}
    for row in values:
        both = over_seeds.over_patients_and_seeds(
            row, row[:, None] + draws, metric="level", confidence=0.95
        )
        covered["both"] += both.low < 0 < both.high
        covered["seeds"] += abs(row.mean()) < quantile * stats.sem(row)
        means = row[rng.integers(count, size=(400, count))].mean(axis=1) + rng.permutation(draws)
        low, high = np.percentile(means, [2.5, 97.5])
        covered["resampled"] += low < 0 < high
    share = {name: number / times for name, number in covered.items()}
    assert 0.94 <= share["both"] <= 0.99, share
    assert share["seeds"] < 0.9 or share["resampled"] < 0.9, share
