"""Nearest neighbours: the findings of the studies whose images are most like an image.

A classifier without training, so that it measures features while they are trained.
"""

import numpy as np

# Number of queries handled together, which bounds the temporary arrays.
_QUERIES = 256


def neighbour_scores(
    features: np.ndarray,
    *,
    bank: np.ndarray,
    positive: np.ndarray,
    known: np.ndarray,
    neighbours: int,
    temperature: float,
) -> np.ndarray:
    """Scores every class by the share of the positive ones among the nearest rows of a bank.

    The nearest are those of the highest cosine among the rows whose label of the class is known,
    and each counts with the weight exp(cosine / temperature). Among equal cosines the first rows of
    the bank are taken.

    Args:
      features: features of N queries, float[N, F], finite.
      bank: features of the M rows of the bank, float[M, F], finite.
      positive: whether each row of the bank is positive for each class, bool[M, C].
      known: whether each row of the bank counts for each class, bool[M, C].
      neighbours: number of neighbours; all rows that count if there are fewer.
      temperature: temperature of the weights, > 0.

    Returns:
      Shares, float64[N, C], 0 to 1; NaN for a class of which no row of the bank counts.

    Source: Wu et al., arXiv:1805.01978, sec. 3.4, whose temperature is 0.07 and whose k is 200 for
    1.2 million images; several labels of an image are counted each by itself here.
    """
    whole = _unit(bank)
    parts = [
        _share(_unit(features[row : row + _QUERIES]) @ whole.T, positive, known,
               neighbours=neighbours, temperature=temperature)
        for row in range(0, len(features), _QUERIES)
    ]  # fmt: skip
    return np.concatenate(parts) if parts else np.zeros((0, positive.shape[1]))


def _share(cosine, positive, known, *, neighbours, temperature) -> np.ndarray:
    order = np.argsort(-cosine, axis=1, kind="stable")
    cosine = np.take_along_axis(cosine, order, axis=1)
    found = np.full((len(cosine), positive.shape[1]), np.nan)
    for index in range(positive.shape[1]):
        counts = known[order, index]
        counts &= np.cumsum(counts, axis=1) <= neighbours
        if not counts.any():
            continue
        # The nearest neighbour that counts has the weight 1, so that the weights never all vanish.
        nearest = np.take_along_axis(cosine, counts.argmax(axis=1)[:, None], axis=1)
        below = np.where(counts, cosine - nearest, -np.inf)
        weights = np.exp(below / temperature)
        found[:, index] = (weights * positive[order, index]).sum(axis=1) / weights.sum(axis=1)
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    """Returns rows of length 1, float64; a row of zeros, which is like no other, stays zero."""
    rows = np.asarray(features, np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
