"""The rows that a classification task reports, from its probabilities, under many weightings.

Both functions have the form that `bootstrap.intervals` and `subgroups.subgroup_rows` take once
`weights` is left open.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from prior_jax import near_names
from prior_jax.evaluate import classification_metrics as at_decision
from prior_jax.evaluate import metrics, ranking

# The least probability above one half: at exactly one half the argmax is the first of two classes.
_ABOVE_HALF = float(np.nextafter(0.5, 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predicted:
    """Probabilities of findings that may occur together, with the truth.

    Attributes:
      probability: probability of each finding, float[N, C], 0 to 1.
      positive: whether each record is positive for each finding, bool[N, C].
      counted: whether each record counts for each finding, bool[N, C].
      classes: names of the C findings.
    """

    probability: np.ndarray
    positive: np.ndarray
    counted: np.ndarray
    classes: tuple[str, ...]


def validation_thresholds(validation: Predicted) -> np.ndarray:
    """Finds each finding's threshold with the highest F1 on the validation split.

    Args:
      validation: probabilities and truth of the validation split.

    Returns:
      Thresholds, float64[C]; NaN for a finding without a positive validation record.
    """
    return np.array(
        [
            at_decision.best_f1_threshold(
                validation.probability[kept, index], validation.positive[kept, index]
            )
            for index, kept in enumerate(validation.counted.T)
        ]
    )


def findings_rows(
    predicted: Predicted, *, thresholds: np.ndarray, bins: int, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes the metrics of findings that may occur together.

    Args:
      predicted: probabilities and truth of the N records.
      thresholds: threshold of each finding, float[C], from `validation_thresholds`.
      bins: number of bins of the calibration error.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      float64[R] each: those of `ranking.ranking`, and for each finding and as the mean over the
      findings that have a value (`macro_...`): `f1`, `accuracy` and
      `balanced_accuracy` at the thresholds, the same with `_above_half` for probabilities above
      0.5, which is the argmax of two classes, `calibration_error`, `brier`.
      A finding without a threshold has none of the first three, and one without a positive or
      without a negative record has no balanced accuracy.
    """
    found = ranking.ranking(
        predicted.probability,
        predicted.positive,
        predicted.counted,
        classes=predicted.classes,
        weights=weights,
    )
    columns: dict[str, list[np.ndarray]] = {}
    for index, kept in enumerate(predicted.counted.T):
        row = _finding(
            predicted.probability[kept, index],
            predicted.positive[kept, index],
            threshold=float(thresholds[index]),
            bins=bins,
            weights=weights[:, kept],
        )
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    for name, values in columns.items():
        found[f"macro_{name}"] = metrics.mean_of_defined(np.stack(values, axis=-1))
        for label, value in zip(predicted.classes, values, strict=True):
            found[f"{name}_{near_names.slug(label)}"] = value
    return found


def _finding(probability, positive, *, threshold, bins, weights) -> dict[str, np.ndarray]:
    """Computes the metrics of one finding on the records that count."""
    chosen, half = (
        at_decision.at_threshold(probability, positive, threshold=at, weights=weights)
        for at in (threshold, _ABOVE_HALF)
    )
    nothing = np.full(len(weights), np.nan)
    # As the AUROC: the recall of one state alone is no mean of two.
    both = (half.sum(axis=2) > 0).all(axis=1)
    balanced, balanced_half = (
        np.where(both, at_decision.balanced_accuracy(matrix), np.nan) for matrix in (chosen, half)
    )
    known = not np.isnan(threshold)
    points = at_decision.reliability(probability, positive, bins=bins, weights=weights)
    return {
        "f1": at_decision.class_f1(chosen)[:, 1] if known else nothing,
        "accuracy": metrics.accuracy(chosen) if known else nothing,
        "balanced_accuracy": balanced if known else nothing,
        "f1_above_half": at_decision.class_f1(half)[:, 1],
        "accuracy_above_half": metrics.accuracy(half),
        "balanced_accuracy_above_half": balanced_half,
        "calibration_error": at_decision.expected_calibration_error(points),
        "brier": at_decision.brier(probability, positive, weights=weights),
    }


def classes_rows(
    probability: np.ndarray,
    truth: np.ndarray,
    *,
    classes: Sequence[str],
    bins: int,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Computes the metrics of exclusive classes, of which the most probable is the answer.

    Args:
      probability: probabilities of each record, float[N, C], each row with the sum 1.
      truth: true class of each record, int[N], 0..C-1.
      classes: names of the C classes.
      bins: number of bins of the calibration error.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      float64[R] each: those of `answer_rows`, those of `ranking.ranking` for each class against the
      others, `calibration_error` (of the answer's probability) and `brier`.
    """
    probability, truth = np.asarray(probability), np.asarray(truth)
    found = answer_rows(probability.argmax(axis=1), truth, classes=classes, weights=weights)
    confidence, right = at_decision.top_class(probability, truth)
    points = at_decision.reliability(confidence, right, bins=bins, weights=weights)
    found["calibration_error"] = at_decision.expected_calibration_error(points)
    found["brier"] = at_decision.brier_of_classes(probability, truth, weights=weights)
    positive = truth[:, None] == np.arange(len(classes))
    return found | ranking.ranking(
        probability, positive, np.ones_like(positive), classes=classes, weights=weights
    )


def answer_rows(
    answer: np.ndarray, truth: np.ndarray, *, classes: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes the metrics of answers with one of several classes.

    Args:
      answer: predicted class of each record, int[N], 0..C-1.
      truth: true class of each record, int[N], 0..C-1.
      classes: names of the C classes.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      float64[R] each: `accuracy`, `balanced_accuracy`, `kappa`, `macro_precision`, `macro_recall`,
      `macro_f1`, and the last three for each class.
    """
    matrix = metrics.confusion(truth, answer, classes=len(classes), weights=weights)
    found = {
        "accuracy": metrics.accuracy(matrix),
        "balanced_accuracy": at_decision.balanced_accuracy(matrix),
        "kappa": metrics.cohen_kappa(matrix),
    }
    for name, each in (
        ("precision", at_decision.class_precision(matrix)),
        ("recall", at_decision.class_recall(matrix)),
        ("f1", at_decision.class_f1(matrix)),
    ):
        found[f"macro_{name}"] = at_decision.macro(each, matrix=matrix)
        for label, values in zip(classes, each.T, strict=True):
            found[f"{name}_{near_names.slug(label)}"] = values
    return found
