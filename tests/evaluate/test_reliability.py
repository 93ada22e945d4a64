"""The reliability curves: against scikit-learn, and their intervals over patients."""

import numpy as np
import pytest
from sklearn import calibration

from prior_jax.evaluate import classification_metrics as at_decision
from prior_jax.evaluate import reliability
from prior_jax.evaluate.bootstrap import BootstrapConfig
from prior_jax.evaluate.classification_rows import Predicted

MANY = BootstrapConfig(resamples=200, confidence=0.9, seed=0)


def drawn(count=400, classes=3, *, seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.random((count, classes)).round(2)  # with values at the edges of bins
    return Predicted(
        probability=probability,
        positive=rng.random((count, classes)) < probability,
        counted=rng.random((count, classes)) < 0.8,
        classes=("A", "B b", "C")[:classes],
    )


def curves(predicted, *, patients=None, bins=10):
    names = np.arange(len(predicted.probability)) if patients is None else patients
    return reliability.curves(predicted, patients=names, bins=bins, resampling=MANY)


def check(bins, probability, positive):
    frequency, confidence = calibration.calibration_curve(positive, probability, n_bins=10)
    assert [one["frequency"] for one in bins] == pytest.approx(frequency, abs=1e-12)
    assert [one["confidence"] for one in bins] == pytest.approx(confidence, abs=1e-12)
    assert sum(one["records"] for one in bins) == len(probability)
    for one in bins:
        assert one["low"] <= one["confidence"] <= one["high"]
        assert one["frequency_low"] <= one["frequency"] <= one["frequency_high"]


def test_the_curves_are_those_of_sklearn():
    given = drawn()
    found = curves(given)
    assert list(found.by_class) == ["a", "b_b", "c"]
    for index, bins in enumerate(found.by_class.values()):
        kept = given.counted[:, index]
        check(bins, given.probability[kept, index], given.positive[kept, index])
    check(found.pooled, given.probability[given.counted], given.positive[given.counted])


def test_the_curve_gives_the_calibration_error():
    given = drawn(classes=1)
    kept = given.counted[:, 0]
    points = at_decision.reliability(
        given.probability[kept, 0],
        given.positive[kept, 0],
        bins=10,
        weights=np.ones((1, kept.sum())),
    )
    bins = curves(given).by_class["a"]
    distance = sum(one["records"] * abs(one["confidence"] - one["frequency"]) for one in bins)
    expected = at_decision.expected_calibration_error(points)[0]
    assert distance / kept.sum() == pytest.approx(expected, abs=1e-12)


def test_patients_are_resampled_as_a_whole():
    """Copies of every record under its own patient give the interval of the records alone."""
    one = drawn(60)
    doubled = Predicted(
        probability=np.tile(one.probability, (4, 1)),
        positive=np.tile(one.positive, (4, 1)),
        counted=np.tile(one.counted, (4, 1)),
        classes=one.classes,
    )
    alone, together = curves(one), curves(doubled, patients=np.tile(np.arange(60), 4))
    for first, second in zip(alone.pooled, together.pooled, strict=True):
        assert second["records"] == 4 * first["records"]
        for name in ("frequency", "frequency_low", "frequency_high"):
            assert first[name] == pytest.approx(second[name], abs=1e-9)


def test_only_filled_bins_are_listed_and_the_upper_edge_is_inside():
    given = Predicted(
        probability=np.array([[0.0], [0.25], [0.26], [1.0]]),
        positive=np.array([[False], [True], [True], [True]]),
        counted=np.ones((4, 1), bool),
        classes=("A",),
    )
    found = curves(given, bins=4).by_class["a"]
    assert [(row["low"], row["records"], row["frequency"]) for row in found] == [
        (0.0, 2, 0.5), (0.25, 1, 1.0), (0.75, 1, 1.0)
    ]  # fmt: skip
