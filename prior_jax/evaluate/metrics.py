"""Metrics of classifiers and retrieval, in numpy, over many weightings at once.

Every function takes `weights`, float[R, N]: R ways of weighting the same N records. One row of ones
gives the plain metric; the rows of `bootstrap.resample_weights` give its bootstrap resamples. An
undefined metric (a class without a positive record) is NaN, never an exception: the writer of the
results converts it to null and names the reason.
"""

import numpy as np

# Number of rows of weights handled together, which bounds the temporary arrays of a call.
_ROWS = 128


def auroc(scores: np.ndarray, positive: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Computes the area under the ROC curve; a tie counts one half.

    Args:
      scores: score of each record, float[N], finite; higher = more likely positive.
      positive: whether each record is positive, bool[N].
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      Area, float64[R], 0 to 1; NaN where the positives or the negatives have no weight.

    Raises:
      ValueError: if the lengths differ or a score is not finite.

    Source: the Mann-Whitney statistic, Hanley and McNeil, Radiology 143 (1982) 29.
    """
    positives, negatives = _by_score(scores, positive, weights)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = np.sum(positives * (below + 0.5 * negatives), axis=1)
    return _ratio(wins, positives.sum(axis=1) * negatives.sum(axis=1))


def average_precision(
    scores: np.ndarray, positive: np.ndarray, *, weights: np.ndarray
) -> np.ndarray:
    """Computes the mean precision at each recovered positive; tied scores are one threshold.

    Args:
      scores: score of each record, float[N], finite; higher = more likely positive.
      positive: whether each record is positive, bool[N].
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      Average precision, float64[R], 0 to 1; NaN where the positives have no weight.

    Raises:
      ValueError: if the lengths differ or a score is not finite.

    Source: sum over thresholds of (recall gained) x precision, not interpolated.
    """
    positives, negatives = _by_score(-np.asarray(scores), positive, weights)
    found = np.cumsum(positives, axis=1)
    taken = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    return _ratio(np.sum(positives * precision, axis=1), positives.sum(axis=1))


def confusion(
    truth: np.ndarray, predicted: np.ndarray, *, classes: int, weights: np.ndarray
) -> np.ndarray:
    """Computes weighted confusion matrices.

    Args:
      truth: true class of each record, int[N], 0..classes-1.
      predicted: predicted class of each record, int[N].
      classes: number of classes.
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      Matrices, float64[R, classes, classes]; rows are the truth, columns the prediction.

    Raises:
      ValueError: if the lengths differ or a class lies outside 0..classes-1.
    """
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    _check_lengths(truth, predicted, weights)
    both = np.stack([truth, predicted])
    if both.size and (both.min() < 0 or both.max() >= classes):
        raise ValueError(f"classes must lie in 0..{classes - 1}, got {both.min()}..{both.max()}")
    cell = np.zeros((truth.size, classes * classes), np.float64)
    cell[np.arange(truth.size), truth * classes + predicted] = 1.0
    return (np.asarray(weights, np.float64) @ cell).reshape(-1, classes, classes)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Computes the share of the weight on the diagonal.

    Args:
      matrix: confusion matrices, float[R, C, C], from `confusion`.

    Returns:
      Accuracy, float64[R]; NaN where the matrix is empty.
    """
    return _ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Computes F1, averaged over the classes that occur in truth or prediction.

    Args:
      matrix: confusion matrices, float[R, C, C], from `confusion`.

    Returns:
      F1, float64[R]; NaN where the matrix is empty.
    """
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    seen = matrix.sum(axis=1) + matrix.sum(axis=2)
    return mean_of_defined(_ratio(2 * hits, seen))


def cohen_kappa(matrix: np.ndarray) -> np.ndarray:
    """Computes the agreement beyond chance between truth and prediction.

    Args:
      matrix: confusion matrices, float[R, C, C], from `confusion`.

    Returns:
      Kappa, float64[R], -1 to 1; NaN where chance agreement is complete (one class only) or the
      matrix is empty.

    Source: Cohen, Educ. Psychol. Meas. 20 (1960) 37.
    """
    total = matrix.sum(axis=(1, 2))
    observed = np.trace(matrix, axis1=1, axis2=2)
    by_chance = _ratio(np.sum(matrix.sum(axis=1) * matrix.sum(axis=2), axis=1), total)
    return _ratio(observed - by_chance, total - by_chance)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Averages over the last axis, leaving out NaN.

    Args:
      values: values, float[..., C].

    Returns:
      Means, float64[...]; NaN where every entry is NaN.
    """
    values = np.asarray(values, np.float64)
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def precision_at(relevant: np.ndarray, k: int) -> np.ndarray:
    """Computes the share of a query's first k results that are relevant.

    Args:
      relevant: whether the result at each rank is relevant, bool[Q, K]; K >= k.
      k: number of ranks that count, >= 1.

    Returns:
      Precision of each query, float64[Q].

    Raises:
      ValueError: if fewer than k ranks are given.

    Source: Prec@K of ConVIRT, arXiv:2010.00747, sec. 4.2, and of GLoRIA, ICCV 2021, sec. 4.
    """
    return np.asarray(_first(relevant, k).mean(axis=1))


def recall_at(relevant: np.ndarray, k: int) -> np.ndarray:
    """Returns 1 where the first k results contain the query's partner, and 0 elsewhere.

    Args:
      relevant: whether the result at each rank is the partner, bool[Q, K]; K >= k.
      k: number of ranks that count, >= 1.

    Returns:
      Recall of each query, float64[Q].

    Raises:
      ValueError: if fewer than k ranks are given.
    """
    return np.asarray(_first(relevant, k).any(axis=1), np.float64)


def weighted_mean(values: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """Averages one value per record under each weighting; records with NaN are left out.

    Args:
      values: value of each record, float[N].
      weights: R weightings of the records, float[R, N], >= 0.

    Returns:
      Means, float64[R]; NaN where no record is left.
    """
    values = np.asarray(values, np.float64)
    _check_lengths(values, values, weights)
    defined = ~np.isnan(values)
    weights = np.asarray(weights, np.float64)
    return _ratio(weights @ np.where(defined, values, 0.0), weights @ defined)


def _first(relevant, k):
    relevant = np.asarray(relevant, bool)
    if relevant.ndim != 2 or not 1 <= k <= relevant.shape[1]:
        raise ValueError(f"k = {k} needs at least {k} ranks, got an array of {relevant.shape}")
    return relevant[:, :k]


def _by_score(scores, positive, weights):
    """Sums the weights of positives and of negatives at each distinct score, ascending."""
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    _check_lengths(scores, positive, weights)
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    weights = np.asarray(weights)
    if scores.size == 0:
        return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sums = []
    for of_kind in (positive[order], ~positive[order]):
        parts = [
            np.add.reduceat(
                weights[row : row + _ROWS][:, order] * of_kind, starts, axis=1, dtype=np.float64
            )
            for row in range(0, len(weights), _ROWS)
        ]
        sums.append(np.concatenate(parts) if parts else np.zeros((0, starts.size)))
    return sums[0], sums[1]


def _check_lengths(first, second, weights):
    shape = np.shape(weights)
    if len(shape) != 2 or first.shape != second.shape or first.shape != shape[1:]:
        raise ValueError(
            f"lengths differ: {first.shape}, {second.shape} and weights {shape}; "
            "expected [N], [N] and [R, N]"
        )


def _ratio(top, bottom):
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.asarray(np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0))
