import numpy as np
import pytest

from data_prep.kit import splits
from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError


def test_usual_names_are_understood_and_others_are_not():
    names = ("train", "Training", "val", "valid", "validate", " dev ", "test", "holdout", "")
    codes = [splits.split_code(name) for name in names]
    assert codes == [0, 0, 1, 1, 1, 1, 2, None, None]


def test_drawn_splits_keep_their_shares_and_repeat():
    fractions = splits.checked_fractions(("0.7", "0.1", "0.2"), flag="--x")
    codes = [splits.drawn_split(f"p{i}", fractions=fractions, seed=0) for i in range(4000)]
    assert codes == [splits.drawn_split(f"p{i}", fractions=fractions, seed=0) for i in range(4000)]
    shares = np.bincount(codes, minlength=len(SPLITS)) / 4000
    np.testing.assert_allclose(shares, fractions, atol=0.03)
    assert codes != [splits.drawn_split(f"p{i}", fractions=fractions, seed=1) for i in range(4000)]


@pytest.mark.parametrize(
    "values",
    [
        *[("0.5", "0.5"), ("1", "1", "-1"), ("a", "b", "c"), ("1", "1", "1")],
        *[("nan", "0.1", "0.1"), ("0.1", "0.1", "nan"), ("inf", "0", "0")],
    ],
)
def test_shares_that_are_none_are_refused_by_name(values):
    with pytest.raises(ConfigError, match="--split_fractions"):
        splits.checked_fractions(values, flag="--split_fractions")


def test_leaking_patients_are_found():
    subjects = np.array([5, 7, 5, 9, 7])
    codes = np.array([0, 0, 2, 1, 0], np.int8)
    found = splits.subjects_in_two_splits(subjects, codes)
    assert found.tolist() == [True, False, True, False, False]
    assert splits.subjects_in_two_splits(subjects[:0], codes[:0]).tolist() == []
