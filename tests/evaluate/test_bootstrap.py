import time

import numpy as np
import pytest

from prior_jax.errors import ConfigError
from prior_jax.evaluate import bootstrap, metrics

CONFIG = bootstrap.BootstrapConfig(resamples=400, confidence=0.95, seed=3)


def mean_of(values):
    return lambda weights: {"mean": metrics.weighted_mean(values, weights=weights)}


def test_the_images_of_a_patient_are_drawn_together():
    groups = np.array(["a", "b", "a", "c", "b", "b"])
    weights = bootstrap.resample_weights(groups, config=CONFIG)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 5])
    # Three patients are drawn each time, whatever the number of their images.
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), np.full(400, 3))


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).random(50)
    again, other = (
        bootstrap.BootstrapConfig(resamples=400, confidence=0.95, seed=seed) for seed in (3, 4)
    )
    first, second, third = (
        bootstrap.intervals(mean_of(values), groups=np.arange(50), config=config)["mean"]
        for config in (CONFIG, again, other)
    )
    assert first == second
    assert first.low != third.low and first.value == third.value


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(2.0, 3.0, 400)
    config = bootstrap.BootstrapConfig(resamples=2000, confidence=0.95, seed=0)
    found = bootstrap.intervals(mean_of(values), groups=np.arange(400), config=config)["mean"]
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(5)
    config = bootstrap.BootstrapConfig(resamples=200, confidence=0.9, seed=0)
    covered = 0
    for _ in range(200):
        values = random.normal(0.0, 1.0, 60)
        found = bootstrap.intervals(mean_of(values), groups=np.arange(60), config=config)["mean"]
        covered += found.low <= 0.0 <= found.high
    assert 165 <= covered <= 195


def test_copies_of_a_patients_image_do_not_narrow_the_interval():
    values = np.random.default_rng(2).random(30)
    once = bootstrap.intervals(mean_of(values), groups=np.arange(30), config=CONFIG)
    often = bootstrap.intervals(
        mean_of(values.repeat(10)), groups=np.arange(30).repeat(10), config=CONFIG
    )
    assert often["mean"].low == pytest.approx(once["mean"].low)
    assert often["mean"].high == pytest.approx(once["mean"].high)


def test_a_metric_that_does_not_exist_is_null():
    found = bootstrap.intervals(
        lambda weights: {"none": np.full(len(weights), np.nan)}, groups=np.arange(4), config=CONFIG
    )
    assert found["none"].to_json() == {"value": None, "low": None, "high": None}


def test_resamples_without_the_rare_class_are_left_out():
    positive = np.arange(20) == 5
    found = bootstrap.intervals(
        lambda weights: {"auroc": metrics.auroc(np.arange(20), positive, weights=weights)},
        groups=np.arange(20),
        config=CONFIG,
    )
    assert found["auroc"].value == pytest.approx(5 / 19)
    assert found["auroc"].low < 5 / 19 < found["auroc"].high
    assert 0.2 < np.isnan(found["auroc"].draws).mean() < 0.5


def test_a_class_that_one_patient_has_gets_no_interval():
    groups = np.array([0, 0, *range(1, 19)])
    values = np.random.default_rng(6).random(20)

    for count in (1, 2):  # one image, and two images of the same patient
        found = bootstrap.intervals(
            lambda w, count=count: mean_of(values[:count])(w[:, :count]),
            groups=groups,
            config=CONFIG,
        )["mean"]
        assert found.value == pytest.approx(values[:count].mean())
        assert np.isnan([found.low, found.high]).all() and np.isnan(found.draws).all()


def test_a_metric_that_is_the_same_for_several_patients_keeps_its_interval():
    for count in (2, 3, 20):  # of two or three patients, some resamples draw none
        found = bootstrap.intervals(
            lambda w, count=count: mean_of(np.ones(count))(w[:, :count]),
            groups=np.arange(20),
            config=CONFIG,
        )["mean"]
        assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("field", "bad"), [("resamples", 0), ("confidence", 1.0), ("confidence", 0.0)]
)
def test_bad_settings_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        bootstrap.BootstrapConfig(**{"resamples": 10, "confidence": 0.9, "seed": 0, field: bad})


def test_a_thousand_resamples_of_fourteen_classes_and_5000_images_take_seconds():
    random = np.random.default_rng(0)
    scores = random.random((5000, 14)).astype(np.float32)
    positive = random.random((5000, 14)) < 0.1
    config = bootstrap.BootstrapConfig(resamples=1000, confidence=0.95, seed=0)

    def statistics(weights):
        return {
            str(c): metrics.auroc(scores[:, c], positive[:, c], weights=weights) for c in range(14)
        }

    start = time.process_time()
    found = bootstrap.intervals(statistics, groups=np.arange(5000) // 2, config=config)
    assert time.process_time() - start < 60
    assert all(metric.low < metric.value < metric.high for metric in found.values())


def test_records_of_one_patient_have_a_value_and_no_interval():
    found = bootstrap.intervals(
        mean_of(np.array([1.0, 2.0])), groups=np.array(["a", "a"]), config=CONFIG
    )["mean"]
    assert found.value == 1.5 and np.isnan([found.low, found.high]).all()


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed: The value is -1"):
        bootstrap.BootstrapConfig(resamples=1, confidence=0.95, seed=-1)
