"""The part of the patients that keeps each finding's share."""

import numpy as np
import pytest

from prior_jax.data import stratified


def drawn(patients=600, shares=(0.3, 0.12, 0.05, 0.01, 0.2), seed=0):
    return np.random.default_rng(seed).uniform(size=(patients, len(shares))) < shares


@pytest.mark.parametrize("count", [6, 30, 60, 300, 599, 600])
@pytest.mark.parametrize("seed", range(5))
def test_each_finding_keeps_its_share(count, seed):
    positive = drawn(seed=seed)
    rows = stratified.choose(positive, count=count, seed=seed)
    assert len(rows) == len(set(rows.tolist())) == count and rows.tolist() == sorted(rows)
    wanted = positive.sum(axis=0) * count / len(positive)
    # One for the rounding, and one for patients with several findings.
    np.testing.assert_allclose(positive[rows].sum(axis=0), wanted, atol=2)


def test_it_varies_less_than_a_plain_draw_and_each_patient_can_be_chosen():
    positive = drawn(patients=100)
    rows = [stratified.choose(positive, count=20, seed=seed) for seed in range(200)]
    plain = [np.random.RandomState(seed).permutation(100)[:20] for seed in range(200)]
    ours, theirs = (
        np.std([positive[one].sum(axis=0) for one in draws], axis=0) for draws in (rows, plain)
    )
    common = positive.sum(axis=0) > 3
    assert (ours[common] < 0.6 * theirs[common]).all()
    counts = np.bincount(np.concatenate(rows), minlength=100)
    undecided = positive[:, positive.sum(axis=0) * 0.2 < 0.5].any(axis=1)
    assert (counts[~undecided] > 0).all()
    # Among those without a finding all are equally likely.
    healthy = counts[~positive.any(axis=1)]
    assert healthy.std() < 2 * np.sqrt(healthy.mean())


def test_a_draw_is_of_its_seed():
    positive = drawn()
    one, same, other = (stratified.choose(positive, count=60, seed=s).tolist() for s in (1, 1, 2))
    assert one == same != other


def test_patients_without_any_finding_are_drawn_plainly():
    rows = stratified.choose(np.zeros((50, 0), bool), count=5, seed=0)
    assert len(set(rows.tolist())) == 5


def test_more_patients_than_the_findings_ask_for_are_filled_up():
    positive = np.ones((10, 1), bool)
    assert len(stratified.choose(positive, count=7, seed=0)) == 7
