"""Metrics of supervised classifiers at a decision, and of how far their probabilities can be taken.

They add to `metrics`, whose convention they share: `weights`, float[R, N], are R weightings of the
same N records, and each metric is computed for all of them at once. What has no value is NaN:

* The precision of a class that is never predicted, the recall of a class without a record, the F1
  of a class that occurs neither in truth nor in prediction, and calibration without a record.
* A macro average is over the classes that occur in truth or prediction. It counts such a class as 0
  where its own value is NaN, because never answering a class that exists is a failure.

scikit-learn has the same values where it has one, with its `zero_division` of NaN for a class and
of 0 for the macro average.
"""

import dataclasses

import numpy as np

from prior_jax.evaluate import metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """The points of reliability curves with bins of equal width.

    Attributes:
      edges: edges of the B bins, float64[B + 1], from 0 to 1. A bin contains its upper edge and not
        its lower one; the first contains 0.
      weight: weight of the records in each bin, float64[R, B].
      confidence: mean probability in each bin, float64[R, B]; NaN in an empty one.
      frequency: share of the positives in each bin, float64[R, B]; NaN in an empty one.
    """

    edges: np.ndarray
    weight: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray


def class_precision(matrix: np.ndarray) -> np.ndarray:
    """Computes the precision of each class.

    Args:
      matrix: confusion matrices, float[R, C, C], from `metrics.confusion`.

    Returns:
      Precision, float64[R, C]; NaN where the class is never predicted.
    """
    return _ratio(_hits(matrix), matrix.sum(axis=1))


def class_recall(matrix: np.ndarray) -> np.ndarray:
    """Computes the recall of each class.

    Args:
      matrix: confusion matrices, float[R, C, C], from `metrics.confusion`.

    Returns:
      Recall, float64[R, C]; NaN where the class has no record.
    """
    return _ratio(_hits(matrix), matrix.sum(axis=2))


def class_f1(matrix: np.ndarray) -> np.ndarray:
    """Computes the F1 of each class.

    Args:
      matrix: confusion matrices, float[R, C, C], from `metrics.confusion`.

    Returns:
      F1, float64[R, C]; NaN where the class occurs in neither truth nor prediction.
    """
    return _ratio(2 * _hits(matrix), matrix.sum(axis=1) + matrix.sum(axis=2))


def macro(values: np.ndarray, *, matrix: np.ndarray) -> np.ndarray:
    """Averages the values of the classes that occur in truth or prediction; NaN counts as 0.

    Args:
      values: value of each class, float[R, C], such as `class_precision`.
      matrix: confusion matrices of the values, float[R, C, C].

    Returns:
      Means, float64[R]; NaN where the matrix is empty.
    """
    occurs = (matrix.sum(axis=1) + matrix.sum(axis=2)) > 0
    return metrics.mean_of_defined(np.where(occurs, np.nan_to_num(values, nan=0.0), np.nan))


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Averages the recall over the classes that have a record.

    Args:
      matrix: confusion matrices, float[R, C, C], from `metrics.confusion`.

    Returns:
      Balanced accuracy, float64[R]; NaN where the matrix is empty.

    Source: Brodersen et al., ICPR 2010, p. 3121.
    """
    return metrics.mean_of_defined(class_recall(matrix))


def f1_at(
    scores: np.ndarray, positive: np.ndarray, *, threshold: float, weights: np.ndarray
) -> np.ndarray:
    """Computes the F1 of the records whose score reaches a threshold.

    Args:
      scores: score of each record, float[N].
      positive: whether each record is positive, bool[N].
      threshold: least score that is predicted positive; NaN predicts none.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      F1, float64[R]; NaN where there is neither a positive nor a predicted record.

    Raises:
      ValueError: if the lengths differ.
    """
    matrix = at_threshold(scores, positive, threshold=threshold, weights=weights)
    return class_f1(matrix)[:, 1]


def at_threshold(
    scores: np.ndarray, positive: np.ndarray, *, threshold: float, weights: np.ndarray
) -> np.ndarray:
    """Computes the confusion matrices of one finding; class 1 is positive.

    Args:
      scores: score of each record, float[N].
      positive: whether each record is positive, bool[N].
      threshold: least score that is predicted positive; NaN predicts none.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      Matrices, float64[R, 2, 2]; rows are the truth, columns the prediction.
    """
    return metrics.confusion(
        np.asarray(positive, bool), np.asarray(scores) >= threshold, classes=2, weights=weights
    )


def best_f1_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """Finds the threshold with the highest F1, on validation records.

    Args:
      scores: score of each validation record, float[N], finite.
      positive: whether each record is positive, bool[N].

    Returns:
      One of the scores: records with this score or a higher one are predicted positive. Of equally
      good thresholds it is the lowest, which misses the fewest. NaN without a positive record.

    Raises:
      ValueError: if the lengths differ or a score is not finite.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    if scores.shape != positive.shape or scores.ndim != 1:
        raise ValueError(
            f"The scores have the shape {scores.shape} and positive has {positive.shape}. Both "
            "must have the same shape [N]."
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    if not positive.any():
        return float("nan")
    thresholds, member = np.unique(scores, return_inverse=True)
    count = np.bincount(member, minlength=len(thresholds))
    found = np.bincount(member, weights=positive, minlength=len(thresholds))
    taken, hits = (np.cumsum(x[::-1])[::-1] for x in (count, found))
    # Equal fractions of integers are equal floats, so that rounding decides between no two.
    return float(thresholds[np.argmax(2 * hits / (taken + positive.sum()))])


def brier(probability: np.ndarray, positive: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Computes the mean squared error of the probabilities of one finding.

    Args:
      probability: probability of each record, float[N], 0 to 1.
      positive: whether each record is positive, bool[N].
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      Brier score, float64[R], 0 to 1; NaN without a record.

    Raises:
      ValueError: if the lengths differ or a probability lies outside 0 to 1.

    Source: Brier, Mon. Weather Rev. 78 (1950) 1, halved as is usual for two classes.
    """
    probability = _probabilities(probability)
    error = (probability - np.asarray(positive, bool)) ** 2
    return metrics.weighted_mean(error, weights=weights)


def brier_of_classes(
    probability: np.ndarray, truth: np.ndarray, *, weights: np.ndarray
) -> np.ndarray:
    """Computes the squared error of the probabilities of exclusive classes, summed over classes.

    Args:
      probability: probabilities of each record, float[N, C], each row with the sum 1.
      truth: true class of each record, int[N].
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      Brier score, float64[R], 0 to 2; NaN without a record.

    Source: Brier, Mon. Weather Rev. 78 (1950) 1.
    """
    probability = _probabilities(probability)
    right = np.asarray(truth)[:, None] == np.arange(probability.shape[1])
    return metrics.weighted_mean(((probability - right) ** 2).sum(axis=1), weights=weights)


def reliability(
    probability: np.ndarray, positive: np.ndarray, *, bins: int, weights: np.ndarray
) -> Reliability:
    """Computes the points of the reliability curve.

    Args:
      probability: probability of each record, float[N], 0 to 1; for exclusive classes see
        `top_class`.
      positive: whether each record is positive, bool[N].
      bins: number of bins of equal width, >= 1.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      The points of each weighting.

    Raises:
      ValueError: if the lengths differ, a probability lies outside 0 to 1, or there is no bin.

    Source: DeGroot and Fienberg, The Statistician 32 (1983) 12.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}: expected at least 1")
    probability, positive = _probabilities(probability), np.asarray(positive, bool)
    weights = np.asarray(weights, np.float64)
    if probability.shape != positive.shape or probability.shape != weights.shape[1:]:
        raise ValueError(
            f"lengths differ: {probability.shape}, {positive.shape} and weights {weights.shape}"
        )
    edges = np.linspace(0.0, 1.0, bins + 1)
    cell = (bin_of(probability, bins=bins)[:, None] == np.arange(bins)).astype(np.float64)
    weight = weights @ cell
    return Reliability(
        edges=edges,
        weight=weight,
        confidence=_ratio(weights @ (cell * probability[:, None]), weight),
        frequency=_ratio(weights @ (cell * positive[:, None]), weight),
    )


def bin_of(probability: np.ndarray, *, bins: int) -> np.ndarray:
    """Returns the bin of each probability, int64[N], 0..bins-1.

    Args:
      probability: probability of each record, float[N], 0 to 1.
      bins: number of bins of equal width; a probability at an edge belongs to the bin below it.
    """
    return np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], probability, side="left")


def expected_calibration_error(points: Reliability) -> np.ndarray:
    """Averages over the records the distance of their bin's point from the diagonal.

    Args:
      points: points of the reliability curve.

    Returns:
      Error, float64[R], 0 to 1; NaN without a record. It depends on the number of bins, and is 0
      for a classifier that always answers with the prevalence. With few records in a bin it is
      mostly above the error of the population, the more the better calibrated the classifier is,
      and on bootstrap resamples, which repeat records, higher still: a percentile interval may
      lie above the value (Roelofs et al., arXiv:2012.08668).

    Source: Naeini et al., AAAI 2015, sec. 3; Guo et al., arXiv:1706.04599, eq. 3.
    """
    distance = np.nan_to_num(np.abs(points.confidence - points.frequency), nan=0.0)
    return _ratio((points.weight * distance).sum(axis=1), points.weight.sum(axis=1))


def top_class(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduces exclusive classes to the probability of the answer, and whether the answer is right.

    Args:
      probability: probabilities of each record, float[N, C].
      truth: true class of each record, int[N].

    Returns:
      Probability of the answer, float64[N], and whether it is right, bool[N], for `reliability`.

    Source: Guo et al., arXiv:1706.04599, sec. 2.
    """
    probability = _probabilities(probability)
    answer = probability.argmax(axis=1)
    return probability[np.arange(len(answer)), answer], answer == np.asarray(truth)


def _probabilities(probability) -> np.ndarray:
    probability = np.asarray(probability, np.float64)
    outside = ~((probability >= 0) & (probability <= 1))
    if outside.any():
        raise ValueError(f"{int(outside.sum())} probabilities are not in 0 to 1")
    return probability


def _hits(matrix):
    return np.diagonal(matrix, axis1=1, axis2=2)


def _ratio(top, bottom):
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.asarray(np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0))
