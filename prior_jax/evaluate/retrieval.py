"""Retrieval between images and reports, in both directions, over a whole split.

The gallery is every record of the evaluated set, including the query's own partner, as in GLoRIA
(ICCV 2021, sec. 4.2). Metrics without a prefix are from image to report; metrics of the other
direction have the prefix `report_to_image_`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import DataError, check_choice, check_field, check_least
from prior_jax.evaluate import bootstrap, labels, metrics, undefined
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Studies, not_finite, to_host
from prior_jax.evaluate.results import TaskResult

Subset = Literal["all", "single_positive"]
Match = Literal["any", "exact"]
Duplicates = Literal["hit", "miss"]

# The direction without a prefix comes first.
_DIRECTIONS = ("", "report_to_image_")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """The definition of a hit.

    Attributes:
      ranks: values of K for precision@K and recall@K, e.g. (1, 5, 10).
      classes: names of the labels used for precision.
      subset: records that are used: "single_positive" keeps only records with exactly one positive
        class, as queries and in the gallery, so that precision is that of GLoRIA's 5x200 protocol.
        "all" keeps every record.
      match: relevance between records with several classes: "any" makes a result relevant if it
        shares at least one positive class with the query (a query without any positive class is
        left out of precision); "exact" if its set of positive classes equals the query's, the empty
        set included. For single positive records both are the same.
      duplicates: treatment of a report (or its image) whose text is identical to the true one: a
        "hit" or a "miss" of recall by pair. Short reports repeat, and no model can distinguish such
        pairs.
      policy: treatment of uncertain and unmentioned findings; "ignore" means not positive.
      block: number of rows and columns compared at once.
    """

    ranks: tuple[int, ...]
    classes: tuple[str, ...]
    subset: Subset
    match: Match
    duplicates: Duplicates
    policy: labels.LabelPolicy
    block: int

    def __post_init__(self):
        """Refuses unknown choices."""
        choices = (("subset", Subset), ("match", Match), ("duplicates", Duplicates))
        for field, known in choices:
            check_choice(self, field, get_args(known))
        positive = min(self.ranks, default=0) >= 1
        check_field(self, "ranks", positive, "one or more integers, all at least 1")
        check_least(self, block=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieved:
    """The results of each query, best first.

    Attributes:
      report_of_image: rows of the retrieved reports of each image, int32[N, K], among the searched
        studies; equal scores are in row order.
      image_of_report: rows of the retrieved images of each report, int32[N, K].
      score_of_image: similarities of `report_of_image`, float32[N, K].
    """

    report_of_image: np.ndarray
    image_of_report: np.ndarray
    score_of_image: np.ndarray


def evaluate_retrieval(
    encoder: Encoder,
    studies: Studies,
    *,
    texts: Sequence[str],
    label_names: Sequence[str],
    patients: Sequence[str] | np.ndarray,
    config: RetrievalConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Ranks a split against itself and computes the retrieval metrics.

    Args:
      encoder: encoder of the model that computed the features.
      studies: features from `encoder.studies(..., reports=True)`.
      texts: text of each report of the split, [records]: equal texts count as one pair.
      label_names: label names of the data set, in the order of `Batch.labels`.
      patients: patient of each record of the split, [records]; the bootstrap resamples patients.
      config: definition of a hit.
      resampling: settings of the bootstrap intervals; queries are resampled, the gallery is fixed.

    Returns:
      `precision_at_<K>`, `recall_at_<K>` and the same with `report_to_image_`. If the data set has
      no labels of the classes, precision is NaN with its reason. `settings["chance"]` is the
      expectation of each metric under random order.

    Raises:
      ConfigError: if a class is not a label of the data set.
      DataError: if the evaluated set has fewer records than the largest K.
    """
    positive, kept = records_used(
        studies,
        label_names=label_names,
        classes=config.classes,
        subset=config.subset,
        policy=config.policy,
    )
    part = take(studies, kept)
    top = search(encoder, part, ranks=max(config.ranks), block=config.block)
    return measure(
        top,
        positive=positive[kept],
        texts=[texts[int(record)] for record in part.record],
        groups=np.asarray(patients)[part.record],
        config=config,
        resampling=resampling,
    )


def records_used(
    studies: Studies,
    *,
    label_names: Sequence[str],
    classes: Sequence[str],
    subset: Subset,
    policy: labels.LabelPolicy,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positive classes of all N records, bool[N, C], and the rows used, int[M].

    Args:
      studies: N studies with their labels.
      label_names: label names of the data set, in the order of the labels.
      classes: names of the C labels by which results are relevant; () for none.
      subset: records that are used, see `RetrievalConfig`.
      policy: treatment of uncertain and unmentioned findings; "ignore" means not positive.

    Raises:
      ConfigError: if a class is not a label of the data set.
    """
    count = len(studies.record)
    positive, single = np.zeros((count, 0), bool), np.zeros(count, bool)
    if classes:
        truth = labels.truth_of(
            studies.labels, label_names=label_names, classes=classes, policy=policy
        )
        positive, single = truth.positive & truth.known, truth.single
    return positive, np.flatnonzero(single) if subset == "single_positive" else np.arange(count)


def take(studies: Studies, rows: np.ndarray) -> Studies:
    """Returns the studies at `rows`, int[M], in that order."""
    images, reports = jax.tree.map(lambda x: x[rows], (studies.images, studies.reports))
    return Studies(
        images=images, reports=reports, labels=studies.labels[rows], record=studies.record[rows]
    )


def check_ranks(count: int, *, ranks: int) -> None:
    """Refuses a rank that no result can have.

    Args:
      count: number of studies that are searched.
      ranks: number of results to keep per query.

    Raises:
      DataError: if there are fewer studies than ranks.
    """
    if count < ranks:
        raise DataError(
            f"The evaluated set has {count} records, but the largest rank needs at least {ranks}.",
            "Lower task.retrieval.ranks, or evaluate more records.",
        )


def search(encoder: Encoder, studies: Studies, *, ranks: int, block: int) -> Retrieved:
    """Finds the best reports of every image and the best images of every report.

    Only one block of similarities and the best results so far are in memory, never the whole
    matrix.

    Args:
      encoder: encoder of the model that computed the features.
      studies: features of N studies, with reports.
      ranks: number of results to keep per query.
      block: number of rows and columns compared at once.

    Returns:
      The results, best first.

    Raises:
      DataError: if there are fewer studies than ranks, or a similarity is not finite.
      ValueError: if the studies hold no reports.
    """
    count = len(studies.record)
    if studies.reports is None:
        raise ValueError("the studies hold no reports: encode them with reports=True")
    check_ranks(count, ranks=ranks)
    padded = -(-count // block) * block
    best = [
        (np.full((padded, ranks), -np.inf, np.float32), np.zeros((padded, ranks), np.int32))
        for _ in _DIRECTIONS
    ]
    for row, column, scores in encoder.similarity_blocks(
        studies.images, studies.reports, block=block
    ):
        for (score, index), here, there, seen in (
            (best[0], row, column, scores),
            (best[1], column, row, scores.T),
        ):
            rows = slice(here, here + block)
            left = np.int32(min(block, count - there))
            merged = _merge(score[rows], index[rows], seen, np.int32(there), left)
            score[rows], index[rows], finite = to_host(merged)
            if not finite:
                raise not_finite("The similarities of images and reports")
    return Retrieved(
        report_of_image=best[0][1][:count],
        image_of_report=best[1][1][:count],
        score_of_image=best[0][0][:count],
    )


@jax.jit
def _merge(score, index, block, offset, left):
    """Keeps the best of the results so far and a new block; equal scores keep the lower index."""
    columns = jnp.arange(block.shape[1], dtype=jnp.int32)
    fresh = jnp.where((columns < left)[None, :], block, -jnp.inf)
    scores = jnp.concatenate([score, fresh], axis=1)
    names = jnp.concatenate(
        [index, jnp.broadcast_to((columns + offset)[None, :], block.shape)], axis=1
    )
    top, place = jax.lax.top_k(scores, score.shape[1])
    return top, jnp.take_along_axis(names, place, axis=1), jnp.all(jnp.isfinite(block))


def measure(
    top: Retrieved,
    *,
    positive: np.ndarray,
    texts: Sequence[str],
    groups: np.ndarray,
    config: RetrievalConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Computes the metrics of the retrieved results.

    Args:
      top: results of N queries in each direction.
      positive: positive classes of the records, bool[N, C].
      texts: texts of the N reports.
      groups: patient of each record, [N].
      config: definition of a hit.
      resampling: settings of the bootstrap intervals.

    Returns:
      The result that `evaluate_retrieval` returns.
    """
    class_of, has_class = _class_sets(positive, config)
    pair = np.arange(len(texts))
    if config.duplicates == "hit":
        pair = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)[1]
    relevant = functools.partial(_relevant, positive, class_of, match=config.match)
    values = _of_queries(top, relevant, has_class=has_class, pair=pair, ranks=config.ranks)
    chance = _chance(relevant, has_class=has_class, pair=pair, ranks=config.ranks)
    found = bootstrap.intervals(
        lambda weights: {n: metrics.weighted_mean(v, weights=weights) for n, v in values.items()},
        groups=groups,
        config=resampling,
    )
    return TaskResult(
        metrics=found,
        settings={
            **{k: v for k, v in dataclasses.asdict(config).items() if k != "block"},
            "records": len(texts),
            "patients": len(np.unique(groups)),
            "queries_of_precision": int(has_class.sum()),
            "different_texts": len(set(texts)),
            "chance": {p + n: v for p in _DIRECTIONS for n, v in chance.items()},
            "undefined": dict.fromkeys(
                undefined.without_value(found), "no record has a positive class"
            ),
            "bootstrap": dataclasses.asdict(resampling),
        },
    )


def _class_sets(positive, config):
    """Numbers the distinct sets of classes.

    Also returns which records can be a query of precision.
    """
    sets = np.unique(positive, axis=0, return_inverse=True)[1].reshape(-1)
    exact = config.match == "exact" and positive.shape[1] > 0
    has_class = np.ones(len(positive), bool) if exact else positive.any(axis=1)
    return sets, has_class


def _relevant(positive, class_of, query, found, *, match):
    """Returns whether each result, int[N, K], is relevant to its query, int[N, 1]."""
    if match == "exact":
        return class_of[found] == class_of[query]
    hit = np.zeros(np.broadcast_shapes(query.shape, found.shape), bool)
    for column in positive.T:
        hit |= column[query] & column[found]
    return hit


def _of_queries(top: Retrieved, relevant, *, has_class, pair, ranks) -> dict[str, np.ndarray]:
    """Computes each metric of each query in both directions, float64[N]; NaN for no class."""
    count = len(pair)
    values: dict[str, np.ndarray] = {}
    for prefix, found in zip(_DIRECTIONS, (top.report_of_image, top.image_of_report), strict=True):
        by_class = relevant(np.arange(count)[:, None], found)
        by_pair = pair[found] == pair[:, None]
        for k in ranks:
            share = metrics.precision_at(by_class, k)
            values[f"{prefix}precision_at_{k}"] = np.where(has_class, share, np.nan)
        for k in ranks:
            values[f"{prefix}recall_at_{k}"] = metrics.recall_at(by_pair, k)
    return values


def _chance(relevant, *, has_class, pair, ranks) -> dict[str, Any]:
    """Computes the expectation of each metric for a gallery in random order."""
    count = len(pair)
    everyone = np.arange(count)[None, :]
    queries = np.flatnonzero(has_class)
    # Computed in slices: all pairs at once would not fit in memory for a large split.
    shares = [
        relevant(queries[start : start + 256, None], everyone).mean(axis=1)
        for start in range(0, len(queries), 256)
    ]
    precision = float(np.concatenate(shares).mean()) if shares else None
    partners = np.bincount(pair)[pair]
    chance: dict[str, Any] = {f"precision_at_{k}": precision for k in ranks}
    for k in ranks:
        # 1 - C(N - m, k) / C(N, k), where the ratio is the probability that k draws miss all m
        # partners.
        miss = np.prod([(count - partners - j).clip(0) / (count - j) for j in range(k)], axis=0)
        chance[f"recall_at_{k}"] = float(np.mean(1.0 - miss))
    return chance
