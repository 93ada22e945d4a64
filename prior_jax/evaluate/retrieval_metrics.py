"""Retrieval by the definitions of the papers: P@K, Hit@K, R@K and mean rank, from similarities.

Every function gives one value per query, so that `metrics.weighted_mean` and the bootstrap over
patients apply. The queries are the rows of a similarity matrix and the gallery its columns; for the
other direction hand over the transposed matrix. Equal similarities are in the order of the gallery.

* BenchX (arXiv:2410.21969) asks for reports of the query's class on MIMIC 5x200. Its gallery is the
  batch, the query's own report among it (quirk B25).
* CXR-CLIP (arXiv:2310.13292) asks for the query's own report among the different texts (quirk X26).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import metrics

Own = Literal["kept", "removed"]
Divisor = Literal["candidates", "ranks"]
Mean = Literal["queries", "batches"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryConfig:
    """The gallery and the averages of retrieval by class.

    Attributes:
      ranks: values of K, integers of at least 1.
      own: whether the gallery holds the query's own partner: "removed" takes it out, because it is
        relevant by definition and lifts every precision; "kept" leaves it in, as BenchX does (quirk
        B25).
      divisor: divisor of precision at K where the gallery has fewer than K candidates:
        "candidates" divides by their number, "ranks" by K, as BenchX does (quirk B25).
      mean: weights of the average over several galleries: "queries" weights every query alike,
        "batches" every gallery, as BenchX does (quirk B25).
    """

    ranks: tuple[int, ...]
    own: Own = "removed"
    divisor: Divisor = "candidates"
    mean: Mean = "queries"

    def __post_init__(self):
        """Refuses unknown choices."""
        for field, choices in (("own", Own), ("divisor", Divisor), ("mean", Mean)):
            if getattr(self, field) not in get_args(choices):
                raise ConfigError.of_value(field, getattr(self, field), _either(choices))
        if not self.ranks or min(self.ranks) < 1:
            raise ConfigError.of_value("ranks", self.ranks, "a list of integers of at least 1")


BENCHX = GalleryConfig(ranks=(1, 5, 10), own="kept", divisor="ranks", mean="batches")
"""BenchX's release, unifier/blocks/zeroshot/zeroshot_model.py, `evaluate`."""


def draw_batches(count: int, *, size: int, seed: int | None) -> tuple[np.ndarray, ...]:
    """Divides the records into the batches that are each other's gallery.

    Args:
      count: number of records.
      size: number of records of a batch; the last batch may be smaller.
      seed: seed of the order of the records; None keeps their order.

    Returns:
      Rows of each batch, int64[M] each.

    Raises:
      ValueError: if the size is not positive.
    """
    if size < 1:
        raise ValueError(f"size is {size}: expected at least 1")
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    return tuple(order[start : start + size] for start in range(0, count, size))


def by_class(
    similarity: np.ndarray,
    labels: np.ndarray,
    *,
    config: GalleryConfig,
    batches: Sequence[np.ndarray] | None = None,
    queries: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Looks among each query's best results for records with the same labels.

    Args:
      similarity: similarity of each query to each of the N records, float[Q, N].
      labels: labels of each record, int[N] or int[N, C]; a result is relevant if its labels equal
        the query's.
      config: gallery and divisor.
      batches: records of each gallery, from `draw_batches`; None for one gallery of all records.
      queries: records that ask, int[Q]; None for all of them.

    Returns:
      `precision_at_<K>` and `hit_at_<K>` of each query, float64[Q]; NaN for a record in no batch,
      and where the gallery has no candidate.

    Raises:
      DataError: if a similarity is not finite.
      ValueError: if the shapes do not fit.
    """
    similarity = _finite(similarity)
    count = len(labels)
    queries = np.arange(count) if queries is None else np.asarray(queries)
    if similarity.shape != (len(queries), count):
        expected = f"expected [{len(queries)}, {count}]"
        raise ValueError(f"similarity {similarity.shape} of {count} records: {expected}")
    columns = np.asarray(labels).reshape(count, -1)
    member = np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)
    names = [f"{kind}_at_{k}" for kind in ("precision", "hit") for k in config.ranks]
    found = {name: np.full(len(queries), np.nan) for name in names}
    galleries = [np.arange(count)] if batches is None else batches
    gallery, place = _places(galleries, count)
    for number in np.unique(gallery[queries]):
        if number < 0:
            continue
        rows, asking = galleries[number], np.flatnonzero(gallery[queries] == number)
        part = similarity if batches is None else similarity[np.ix_(asking, rows)]
        order = ordered(part, own=config.own, partner=place[queries[asking]])
        relevant = member[rows][order] == member[queries[asking]][:, None]
        for name, values in _at_ranks(relevant, config).items():
            found[name][asking] = values
    return found


def _at_ranks(relevant: np.ndarray, config: GalleryConfig) -> dict[str, np.ndarray]:
    """Computes precision and hit at each rank.

    Args:
      relevant: whether each query's results, best first, are relevant, bool[Q, G].
      config: ranks and divisor.

    Returns:
      `precision_at_<K>` and `hit_at_<K>`, [Q] each; {} if the gallery has no candidate.
    """
    found: dict[str, Any] = {}
    for k in config.ranks if relevant.shape[1] else ():
        first = relevant[:, :k]
        divisor = k if config.divisor == "ranks" else first.shape[1]
        found[f"precision_at_{k}"] = first.sum(axis=1) / divisor
        found[f"hit_at_{k}"] = first.any(axis=1)
    return found


def _places(galleries: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gallery of each record, -1 for none, and its place there, both int64[N]."""
    gallery, place = np.full(count, -1), np.zeros(count, np.int64)
    for number, rows in enumerate(galleries):
        gallery[rows], place[rows] = number, np.arange(len(rows))
    return gallery, place


def ordered(similarity: np.ndarray, *, own: Own, partner: np.ndarray | None = None) -> np.ndarray:
    """Sorts each query's gallery, best first; equal similarities keep the order of the gallery.

    Args:
      similarity: similarities, float[Q, G].
      own: "removed" leaves the query's partner out.
      partner: column of each query's partner, int[Q]; None for column i of query i.

    Returns:
      Columns, int64[Q, G], or int64[Q, G - 1] without the partner.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")
    if own == "kept":
        return order
    column = np.arange(len(order)) if partner is None else partner
    return order[order != column[:, None]].reshape(len(order), -1)


def average(
    values: np.ndarray,
    *,
    weights: np.ndarray,
    mean: Mean,
    batches: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Averages the values of queries that were answered from several galleries.

    Args:
      values: value of each query, float[N]; NaN is left out.
      weights: R weightings of the queries, float[R, N], >= 0.
      mean: see `GalleryConfig`.
      batches: rows of each gallery, as given to `by_class`.

    Returns:
      Means, float64[R]; NaN where no query is left.
    """
    if mean == "queries" or batches is None:
        return metrics.weighted_mean(values, weights=weights)
    each = [metrics.weighted_mean(values[rows], weights=weights[:, rows]) for rows in batches]
    return metrics.mean_of_defined(np.stack(each, axis=-1))


def different_texts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Makes one gallery entry of all reports with the same text.

    A deterministic encoder gives equal texts equal features, so that nothing depends on which of
    them stands for all. CXR-CLIP's release takes the first (quirk X26), and so does this.

    Args:
      texts: texts of the N reports.

    Returns:
      Row of the first report with each different text, int64[U], ascending; and the entry of each
      report's text among them, int64[N].
    """
    place: dict[str, int] = {}
    member = [place.setdefault(text, len(place)) for text in texts]
    first = np.unique(member, return_index=True)[1] if member else []
    return np.asarray(first, np.int64), np.asarray(member, np.int64)


def partner_ranks(similarity: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Computes the rank of each query's own entry, or of the best of several.

    Args:
      similarity: similarities, float[Q, G].
      partner: column of each query's own entry, int[Q]; or which columns are the query's own,
        bool[Q, G] with at least one in each row, for images of the same text.

    Returns:
      Ranks, int64[Q], from 1.

    Raises:
      DataError: if a similarity is not finite.
      ValueError: if the shapes do not fit, or a query has no entry.

    Source: CXR-CLIP's release, cxrclip/evaluator.py, `retrieval_image_text`.
    """
    similarity, partner = _finite(similarity), np.asarray(partner)
    if partner.ndim == 1:
        partner = partner[:, None] == np.arange(similarity.shape[1])
    if partner.shape != similarity.shape or not partner.any(axis=1).all():
        raise ValueError(
            f"partner {partner.shape}: expected one at least in each of {len(partner)}"
        )
    order = ordered(similarity, own="kept")
    return np.take_along_axis(partner, order, axis=1).argmax(axis=1) + 1


def by_rank(ranks: np.ndarray, *, at: Sequence[int]) -> dict[str, np.ndarray]:
    """Computes recall at K, and the rank itself, whose mean is the mean rank.

    Args:
      ranks: rank of each query's own entry, int[Q], from `partner_ranks`.
      at: values of K.

    Returns:
      `recall_at_<K>` of each query, 1 or 0, and `rank`, float64[Q].
    """
    ranks = np.asarray(ranks, np.float64)
    return {**{f"recall_at_{k}": (ranks <= k).astype(np.float64) for k in at}, "rank": ranks}


def _finite(similarity) -> np.ndarray:
    similarity = np.asarray(similarity)
    if not np.isfinite(similarity).all():
        raise DataError(
            f"{int((~np.isfinite(similarity)).sum())} similarities are not finite numbers.",
            "Check the checkpoint: its features must be finite.",
        )
    return similarity


def _either(choices) -> str:
    return "one of " + ", ".join(map(repr, get_args(choices)))
