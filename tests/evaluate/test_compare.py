import math

import numpy as np
import pytest
from scipy import stats

from prior_jax.evaluate import compare
from prior_jax.evaluate.bootstrap import Interval


def test_the_interval_over_seeds_is_student_s():
    found = compare.mean_over_seeds([1.0, 2.0, 3.0], confidence=0.95)
    # t(0.975; 2) = 4.30265, s = 1.
    assert found.value == pytest.approx(2) and found.high - 2 == pytest.approx(4.30265 / 3**0.5)
    assert 2 - found.low == pytest.approx(found.high - 2)
    narrow = compare.mean_over_seeds([1.0, 2.0, 3.0], confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_one_seed_has_a_mean_and_no_interval():
    found = compare.mean_over_seeds([0.7], confidence=0.95)
    assert found.value == 0.7 and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(compare.mean_over_seeds([], confidence=0.95).value)
    assert math.isnan(compare.paired_p([0.1]))


def test_the_paired_test_is_scipy_s():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(2, 6))
    expected = stats.ttest_rel(ours, theirs).pvalue
    assert compare.paired_p(ours - theirs) == pytest.approx(expected)
    assert compare.paired_p([0.0, 0.0]) == 1 and compare.paired_p([0.5, 0.5]) == 0


def test_holm_s_adjustment_is_that_of_its_definition():
    assert compare.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert compare.holm([0.9, math.nan, 0.8])[0::2] == [1.0, 1.0]
    assert math.isnan(compare.holm([0.9, math.nan])[1])
    assert compare.holm([0.02]) == [0.02]


def draws(*rows):
    return [np.asarray(row, np.float64) for row in rows]


def test_patients_are_compared_in_pairs():
    random = np.random.default_rng(0)
    luck = random.normal(size=(2, 500))  # of the patients drawn, the same for both
    found = compare.difference(
        [0.6, 0.7], [0.5, 0.6],
        our_draws=draws(*(luck + 0.1)), their_draws=draws(*luck), confidence=0.95,
    )  # fmt: skip
    assert found.seeds.value == pytest.approx(0.1)
    assert (found.patients.low, found.patients.high) == pytest.approx((0.1, 0.1))
    apart = compare.difference(
        [0.6, 0.7], [0.5, 0.6],
        our_draws=draws(*(luck + 0.1)), their_draws=draws(*luck[::-1, ::-1]), confidence=0.95,
    )  # fmt: skip
    assert apart.patients.low < 0 < apart.patients.high
    with pytest.raises(ValueError, match="seeds"):
        compare.difference([1.0], [1.0, 2.0], our_draws=None, their_draws=None, confidence=0.95)


@pytest.mark.parametrize(
    ("value", "p", "patients", "said"),
    [
        (0.1, 0.01, (0.05, 0.15), "higher"),
        (-0.1, 0.01, (-0.15, -0.05), "lower"),
        (0.1, 0.2, (0.05, 0.15), "leans higher"),
        (-0.1, 0.01, (-0.2, 0.1), "leans lower"),
        (0.1, math.nan, (0.05, 0.15), "leans higher"),
        (0.1, 0.01, None, "leans higher"),
        (0.1, 0.2, (-0.05, 0.15), "not told apart"),
        (0.1, math.nan, None, "not told apart"),
        (0.1, 0.01, (-0.2, -0.1), "not told apart"),
        (-0.1, 0.2, (0.1, 0.2), "not told apart"),
    ],
)
def test_only_what_seeds_and_patients_both_say_is_said(value, p, patients, said):
    interval = patients and Interval(value=value, low=patients[0], high=patients[1])
    found = compare.Difference(
        seeds=Interval(value=value, low=math.nan, high=math.nan), p=p, patients=interval
    )
    assert compare.verdict(found, adjusted_p=p, confidence=0.95) == said
