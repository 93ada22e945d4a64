"""Classification metrics against scikit-learn's, on random cases with ties and missing classes."""

import warnings

import numpy as np
import pytest
from sklearn import calibration
from sklearn import metrics as sk

from prior_jax.evaluate import classification_metrics as at_decision
from prior_jax.evaluate import classification_rows, metrics

CASES = 500
CLOSE = 1e-9


@pytest.fixture(autouse=True)
def _quiet():
    """scikit-learn warns where a metric has no value; ours is NaN there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cases(seed):
    """Yields random generators, one a case, and the number of records: none at times."""
    for case in range(CASES):
        rng = np.random.default_rng([seed, case])
        yield rng, int(rng.integers(0, 40) if case % 10 else rng.integers(0, 3))


def equal(found, expected):
    np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE)


def resample(rng, count):
    """The records as they are, or a resample of them, beside one that no test looks at."""
    plain = rng.random() < 0.5
    chosen = np.ones(count) if plain else rng.integers(0, 3, count)
    return np.stack([chosen, rng.random(count)]).astype(np.float32)


def binary(seed):
    """Yields scores with ties, labels that may be all alike, and weights of a resample."""
    for rng, count in cases(seed):
        levels = rng.integers(1, 12)
        scores = (
            rng.integers(0, levels, count) / levels if rng.random() < 0.7 else rng.random(count)
        )
        positive = rng.random(count) < rng.choice([0.0, 0.1, 0.5, 1.0], p=[0.1, 0.3, 0.5, 0.1])
        weights = resample(rng, count)
        yield scores, positive, weights


def classes(seed):
    """Yields truth and answer of up to six classes, some of which occur in neither."""
    for rng, count in cases(seed):
        number = int(rng.integers(2, 7))
        used = rng.choice(number, rng.integers(1, number + 1), replace=False)
        truth, answer = rng.choice(used, count), rng.choice(used, count)
        if count and rng.random() < 0.5:
            answer = np.where(rng.random(count) < 0.6, truth, rng.integers(0, number, count))
        weights = resample(rng, count)
        yield truth, answer, number, weights


def both(positive, row):
    return bool((row[positive] > 0).any() and (row[~positive] > 0).any())


def test_auroc():
    compared = 0
    for scores, positive, weights in binary(1):
        for row, found in zip(
            weights, metrics.auroc(scores, positive, weights=weights), strict=True
        ):
            if both(positive, row):
                equal(found, sk.roc_auc_score(positive, scores, sample_weight=row))
                compared += 1
            else:
                assert np.isnan(found)
    assert compared > CASES / 2


def test_average_precision():
    for scores, positive, weights in binary(2):
        found = metrics.average_precision(scores, positive, weights=weights)
        for row, value in zip(weights[:1], found, strict=False):
            if (row[positive] > 0).any():
                equal(value, sk.average_precision_score(positive, scores, sample_weight=row))
            else:
                assert np.isnan(value)


def test_f1_at_a_threshold():
    for scores, positive, weights in binary(3):
        found = at_decision.f1_at(scores, positive, threshold=0.4, weights=weights)
        for row, value in zip(weights[:1], found, strict=False):
            given = scores >= 0.4
            if not row[positive | given].any():
                assert np.isnan(value)
                continue
            equal(value, sk.f1_score(positive, given, sample_weight=row))


def test_the_best_threshold_has_the_highest_f1_of_the_precision_recall_curve():
    for scores, positive, _ in binary(4):
        threshold = at_decision.best_f1_threshold(scores, positive)
        if not positive.any():
            assert np.isnan(threshold)
            continue
        precision, recall, thresholds = sk.precision_recall_curve(positive, scores)
        each = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        equal(sk.f1_score(positive, scores >= threshold), each.max())
        assert threshold == thresholds[np.flatnonzero(each[:-1] > each.max() - 1e-12)[0]]


def test_accuracy_and_balanced_accuracy():
    for truth, answer, number, weights in classes(5):
        matrix = metrics.confusion(truth, answer, classes=number, weights=weights)
        plain, balanced = metrics.accuracy(matrix), at_decision.balanced_accuracy(matrix)
        for index, row in enumerate(weights[:1]):
            if not row.any():
                assert np.isnan(plain[index]) and np.isnan(balanced[index])
                continue
            equal(plain[index], sk.accuracy_score(truth, answer, sample_weight=row))
            seen = row > 0
            equal(
                balanced[index],
                sk.balanced_accuracy_score(truth[seen], answer[seen], sample_weight=row[seen]),
            )


def test_kappa():
    for truth, answer, number, weights in classes(6):
        found = metrics.cohen_kappa(
            metrics.confusion(truth, answer, classes=number, weights=weights)
        )
        for index, row in enumerate(weights[:1]):
            used = np.unique(np.r_[truth[row > 0], answer[row > 0]])
            if len(used) < 2:  # no record, or complete agreement by chance
                assert np.isnan(found[index])
                continue
            equal(found[index], sk.cohen_kappa_score(truth, answer, sample_weight=row))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (at_decision.class_precision, sk.precision_score),
        (at_decision.class_recall, sk.recall_score),
        (at_decision.class_f1, sk.f1_score),
    ],
)
def test_precision_recall_and_f1_of_classes_and_their_macro_averages(ours, theirs):
    for truth, answer, number, weights in classes(7):
        matrix = metrics.confusion(truth, answer, classes=number, weights=weights)
        each = ours(matrix)
        means = at_decision.macro(each, matrix=matrix)
        for index, row in enumerate(weights[:1]):
            if not row.any():
                assert np.isnan(each[index]).all() and np.isnan(means[index])
                continue
            seen = row > 0
            kept = dict(y_true=truth[seen], y_pred=answer[seen], sample_weight=row[seen])
            expected = theirs(**kept, labels=np.arange(number), average=None, zero_division=np.nan)
            equal(each[index], expected)
            equal(means[index], theirs(**kept, average="macro", zero_division=0))
        if ours is at_decision.class_f1:
            equal(means[0], metrics.macro_f1(matrix)[0])


def test_brier():
    for scores, positive, weights in binary(8):
        found = at_decision.brier(scores, positive, weights=weights)
        for row, value in zip(weights[:1], found, strict=False):
            if not row.any():
                assert np.isnan(value)
                continue
            expected = sk.brier_score_loss(
                positive, scores, sample_weight=row, labels=[False, True]
            )
            equal(value, expected)


def test_reliability_and_calibration_error():
    for case, (scores, positive, weights) in enumerate(binary(9)):
        bins = 1 + case % 15
        points = at_decision.reliability(scores, positive, bins=bins, weights=weights)
        error = at_decision.expected_calibration_error(points)
        if not len(scores):
            assert np.isnan(error).all() and np.isnan(points.confidence).all()
            continue
        times = weights[0].astype(int)
        scores, positive = scores.repeat(times), positive.repeat(times)
        if not times.any():
            assert np.isnan(error[0])
        elif len(np.unique(positive)) == 2:  # scikit-learn asks for both
            frequency, confidence = calibration.calibration_curve(positive, scores, n_bins=bins)
            filled = points.weight[0] > 0
            equal(points.frequency[0][filled], frequency)
            equal(points.confidence[0][filled], confidence)
            share = points.weight[0][filled] / len(scores)
            equal(error[0], (share * np.abs(frequency - confidence)).sum())
        else:
            assert 0 <= error[0] <= 1


def test_the_bootstrap_of_the_calibration_error_is_biased_upward():
    """If the probabilities are right the error is chance, and resamples add to it."""
    rng = np.random.default_rng(0)
    probability = rng.random(60)
    positive = rng.random(60) < probability
    drawn = rng.multinomial(60, np.full(60, 1 / 60), size=500).astype(np.float32)
    weights = np.concatenate([np.ones((1, 60), np.float32), drawn])
    points = at_decision.reliability(probability, positive, bins=15, weights=weights)
    value, *draws = at_decision.expected_calibration_error(points)
    brier, *brier_draws = at_decision.brier(probability, positive, weights=weights)
    assert value > 0.05 and np.mean(draws) > 1.1 * value
    assert np.mean(brier_draws) == pytest.approx(brier, rel=0.05)


def test_brier_of_classes_is_the_sum_of_each_class_against_the_others():
    for rng, count in cases(10):
        number = int(rng.integers(2, 6))
        logits, truth = rng.normal(size=(count, number)), rng.integers(0, number, count)
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        once = np.ones((1, count))
        found = at_decision.brier_of_classes(probability, truth, weights=once)
        each = [
            at_decision.brier(probability[:, index], truth == index, weights=once)
            for index in range(number)
        ]
        equal(found, np.sum(each, axis=0))


def test_rows_of_exclusive_classes_equal_scikit_learn_and_a_resample_its_copies():
    rng = np.random.default_rng(11)
    truth = rng.integers(0, 3, 90)
    logits = rng.normal(size=(90, 3)) + 1.5 * np.eye(3)[truth]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    counts = rng.integers(0, 3, 90)
    names = ("A", "B b", "C")
    found = classification_rows.classes_rows(
        probability, truth, classes=names, bins=10, weights=np.stack([np.ones(90), counts])
    )
    answer = probability.argmax(axis=1)
    equal(found["accuracy"][0], sk.accuracy_score(truth, answer))
    equal(found["macro_precision"][0], sk.precision_score(truth, answer, average="macro"))
    equal(found["kappa"][0], sk.cohen_kappa_score(truth, answer))
    equal(found["auroc_b_b"][0], sk.roc_auc_score(truth == 1, probability[:, 1]))
    equal(found["macro_auroc"][0], sk.roc_auc_score(truth, probability, multi_class="ovr"))
    copied = classification_rows.classes_rows(
        probability.repeat(counts, axis=0),
        truth.repeat(counts),
        classes=names,
        bins=10,
        weights=np.ones((1, counts.sum())),
    )
    for name, values in found.items():
        equal(values[1], copied[name][0])


def test_rows_of_findings_leave_out_what_does_not_count_and_take_the_validation_threshold():
    rng = np.random.default_rng(12)
    positive = rng.random((80, 2)) < 0.4
    probability = np.clip(0.3 * positive + 0.5 * rng.random((80, 2)), 0, 1)
    counted = rng.random((80, 2)) < 0.8
    part = classification_rows.Predicted(
        probability=probability, positive=positive, counted=counted, classes=("A", "B")
    )
    thresholds = classification_rows.validation_thresholds(part)
    found = classification_rows.findings_rows(
        part, thresholds=thresholds, bins=5, weights=np.ones((1, 80))
    )
    for index, name in enumerate("ab"):
        kept = counted[:, index]
        truth, given = positive[kept, index], probability[kept, index]
        equal(found[f"auroc_{name}"][0], sk.roc_auc_score(truth, given))
        equal(found[f"f1_{name}"][0], sk.f1_score(truth, given >= thresholds[index]))
        equal(found[f"accuracy_above_half_{name}"][0], sk.accuracy_score(truth, given > 0.5))
        equal(found[f"brier_{name}"][0], sk.brier_score_loss(truth, given))
    equal(found["macro_f1"], (found["f1_a"] + found["f1_b"]) / 2)
    # No positive in validation: no threshold, hence no F1, but the rest is there.
    unknown = classification_rows.findings_rows(
        part, thresholds=np.array([np.nan, 0.5]), bins=5, weights=np.ones((1, 80))
    )
    assert np.isnan(unknown["f1_a"][0]) and np.isnan(unknown["accuracy_a"][0])
    equal(unknown["auroc_a"], found["auroc_a"])
    equal(unknown["macro_f1"], unknown["f1_b"])


def test_a_finding_of_one_state_has_no_balanced_accuracy_and_is_not_in_the_mean():
    """In a weighting without a positive, or a negative, of a finding: here weights of 0."""
    positive = np.array([[1, 1], [0, 0], [1, 0], [0, 1]], bool)
    probability = np.array([[0.9, 0.4], [0.2, 0.2], [0.3, 0.7], [0.4, 0.8]])
    found = classification_rows.findings_rows(
        classification_rows.Predicted(
            probability=probability,
            positive=positive,
            counted=np.ones_like(positive),
            classes=("A", "B"),
        ),
        thresholds=np.array([0.5, 0.5]),
        bins=5,
        # All records; A has no positive; A has no negative; no record.
        weights=np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]]),
    )
    for end in ("", "_above_half"):
        name = f"balanced_accuracy{end}"
        equal(found[f"{name}_a"], [0.75, np.nan, np.nan, np.nan])
        equal(found[f"{name}_b"], [0.5, 1.0, 0.0, np.nan])
        equal(found[f"macro_{name}"], [0.625, 1.0, 0.0, np.nan])
        assert (np.isnan(found[f"{name}_a"]) == np.isnan(found["auroc_a"])).all()
    assert not np.isnan(found["accuracy_a"][:3]).any()


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError, match="1 probabilities are not in 0 to 1"):
        at_decision.brier(np.array([0.5, bad]), np.array([True, False]), weights=np.ones((1, 2)))


def test_all_resamples_of_a_bootstrap_are_computed_at_once():
    rng = np.random.default_rng(13)
    truth, answer = rng.integers(0, 5, (2, 3000))
    weights = rng.poisson(1.0, (100, 3000)).astype(np.float32)
    rows = classification_rows.answer_rows(answer, truth, classes="abcde", weights=weights)
    assert rows["macro_f1"].shape == (100,) and np.isfinite(rows["macro_f1"]).all()
    last = classification_rows.answer_rows(answer, truth, classes="abcde", weights=weights[-1:])
    for name, values in rows.items():
        equal(values[-1:], last[name])
