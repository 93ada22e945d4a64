import json

import numpy as np
import pytest
from sklearn import metrics as sk

from prior_jax.evaluate import bootstrap, metrics, subgroups

CONFIG = bootstrap.BootstrapConfig(resamples=300, confidence=0.95, seed=0)


def made(seed=0, count=400, easy=2.0, hard=0.3):
    """Scores that are better for women than for men; two images of each patient."""
    rng = np.random.default_rng(seed)
    patients = np.arange(count) // 2
    sex = np.where(patients % 2, "F", "M")
    positive = rng.random(count) < 0.5
    scores = rng.normal(size=count) + positive * np.where(sex == "F", easy, hard)

    def statistics(weights):
        return {"auroc": metrics.auroc(scores, positive, weights=weights)}

    return statistics, scores, positive, sex, patients


def rows_of(statistics, members, patients, least=20):
    return subgroups.subgroup_rows(
        statistics, members=members, patients=patients, least_patients=least, config=CONFIG
    )


def test_each_row_is_the_metric_of_the_subgroup_alone():
    statistics, scores, positive, sex, patients = made()
    found = rows_of(statistics, sex, patients)
    for name in "FM":
        part = sex == name
        value = found.rows[name]["auroc"].value
        assert value == pytest.approx(sk.roc_auc_score(positive[part], scores[part]), abs=1e-9)
        assert found.rows[name]["auroc"].low < value < found.rows[name]["auroc"].high
        assert found.patients[name] == 100 and found.records[name] == 200


def test_the_gap_is_paired_and_has_an_interval():
    statistics, *_, sex, patients = made()
    gap = rows_of(statistics, sex, patients).gaps["auroc"]
    assert (gap.highest, gap.lowest) == ("F", "M")
    assert 0 < gap.difference.low < gap.difference.value < gap.difference.high
    statistics, *_, sex, patients = made(seed=1, easy=1.0, hard=1.0)
    gap = rows_of(statistics, sex, patients).gaps["auroc"]
    assert gap.difference.low < 0 < gap.difference.high


def test_small_subgroups_are_named_and_left_out_and_records_without_one_are_counted():
    statistics, *_, sex, patients = made()
    sex = sex.astype(object)
    sex[:6], sex[-10:] = "X", ""
    found = rows_of(statistics, sex, patients)
    assert found.left_out == ("X",) and found.patients["X"] == 3 and found.unnamed == 10
    assert list(found.rows) == ["F", "M"]
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["left_out"] == {"X": 3}


def test_a_metric_that_a_subgroup_does_not_have_gives_no_gap():
    patients = np.arange(40)
    members = np.where(patients < 20, "AP", "PA")
    positive = (patients >= 20) & (patients % 2 == 0)  # no positive in AP

    def statistics(weights):
        return {"auroc": metrics.auroc(patients % 7, positive, weights=weights)}

    found = rows_of(statistics, members, patients, least=1)
    assert np.isnan(found.rows["AP"]["auroc"].value) and found.gaps == {}
    assert found.to_json()["rows"]["AP"]["metrics"]["auroc"]["value"] is None


def test_no_subgroup_is_large_enough():
    statistics, *_, sex, patients = made()
    found = rows_of(statistics, sex, patients, least=1000)
    assert found.rows == {} and found.gaps == {} and found.left_out == ("F", "M")


def test_age_bands():
    found = subgroups.age_bands([0, 39.9, 40, 79, 80, 101, np.nan, -1], edges=(40, 60, 80))
    assert found.tolist() == ["00-39", "00-39", "40-59", "60-79", "80+", "80+", "", ""]
    for bad in ((), (60, 40), (0, 40), (40, 40)):
        with pytest.raises(ValueError, match="ascending"):
            subgroups.age_bands([1], edges=bad)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="members"):
        rows_of(lambda weights: {}, ["F"], np.arange(2))
