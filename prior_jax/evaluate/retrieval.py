"""Retrieval between images and reports, both ways, over a whole split.

The gallery is every record of the evaluated set, the query's own partner included, as in
GLoRIA (ICCV 2021, sec. 4.2). Metrics without a prefix go from image to report; the other way
carries the prefix `report_to_image_`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import bootstrap, labels, metrics
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Studies, to_host
from prior_jax.evaluate.results import TaskResult

Subset = Literal["all", "single_positive"]
Match = Literal["any", "exact"]
Duplicates = Literal["hit", "miss"]

# The unprefixed direction first.
_DIRECTIONS = ("", "report_to_image_")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """What counts as a hit.

    Attributes:
      ranks: the K of precision@K and recall@K, e.g. (1, 5, 10).
      classes: labels that precision looks at.
      subset: "single_positive" keeps only records with exactly one positive class, as queries
        and in the gallery: precision is then that of GLoRIA's 5x200 protocol. "all" keeps
        every record.
      match: of records with several classes: "any" calls a result relevant if it shares at
        least one positive class with the query (a query without any is no query of precision);
        "exact" if its set of positive classes is the query's, the empty set included. The same
        for single positive records.
      duplicates: whether a report (or its image) whose text equals the true one's, letter for
        letter, is a "hit" or a "miss" of recall by pair. Short reports repeat, and no model
        can tell such pairs apart.
      policy: what uncertain and unmentioned findings count as; "ignore" reads as not positive.
      block: rows and columns compared at once.
    """

    ranks: tuple[int, ...]
    classes: tuple[str, ...]
    subset: Subset
    match: Match
    duplicates: Duplicates
    policy: labels.LabelPolicy
    block: int

    def __post_init__(self):
        """Refuses choices that do not exist."""
        choices = (("subset", Subset), ("match", Match), ("duplicates", Duplicates))
        for field, accepted in choices:
            received = getattr(self, field)
            if received not in get_args(accepted):
                raise ConfigError(
                    f"task.retrieval.{field}",
                    received=received,
                    accepted=" | ".join(get_args(accepted)),
                )
        if not self.ranks or min(self.ranks) < 1:
            raise ConfigError("task.retrieval.ranks", received=self.ranks, accepted="integers >= 1")
        if self.block < 1:
            raise ConfigError(
                "task.retrieval.block", received=self.block, accepted="an integer >= 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieved:
    """What each query brought, best first.

    Attributes:
      report_of_image: int32[N, K], rows of the studies searched; equal scores in row order.
      image_of_report: int32[N, K].
      score_of_image: float32[N, K], similarity of `report_of_image`.
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
    """Ranks a split against itself and counts.

    Args:
      encoder: of the model that made the features.
      studies: of `encoder.studies(..., reports=True)`.
      texts: [records of the split], each report's text: equal texts are one pair.
      label_names: the data set's, in the order of `Batch.labels`.
      patients: [records of the split], whom each record belongs to; the bootstrap's unit.
      config: what counts as a hit.
      resampling: the intervals; queries are resampled, the gallery stays.

    Returns:
      `precision_at_<K>`, `recall_at_<K>` and the same with `report_to_image_`. Without labels
      of the classes in the data set, precision is NaN with its reason. `settings["chance"]` is
      the expectation of each under random order.

    Raises:
      ConfigError: if a class is not a label of the data set.
      DataError: if the evaluated set has fewer records than the largest K.
    """
    if config.classes:
        chosen = labels.select_columns(
            studies.labels,
            label_names=label_names,
            classes=config.classes,
            field="task.classes",
        )
        truth = labels.apply_policy(chosen, policy=config.policy)
        positive, single = truth.positive & truth.known, truth.single
    else:
        positive = np.zeros((len(studies.record), 0), bool)
        single = np.zeros(len(studies.record), bool)
    kept = np.flatnonzero(single) if config.subset == "single_positive" else np.arange(len(single))
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


def take(studies: Studies, rows: np.ndarray) -> Studies:
    """The studies at `rows`, int[M], in that order."""
    images, reports = jax.tree.map(lambda x: x[rows], (studies.images, studies.reports))
    return Studies(
        images=images, reports=reports, labels=studies.labels[rows], record=studies.record[rows]
    )


def search(encoder: Encoder, studies: Studies, *, ranks: int, block: int) -> Retrieved:
    """The best reports of every image and the best images of every report.

    Holds one block of similarities and the best so far, never the whole matrix.

    Args:
      encoder: of the model that made the features.
      studies: N of them, with reports.
      ranks: how many results to keep a query.
      block: rows and columns compared at once.

    Returns:
      The results, best first.

    Raises:
      DataError: if there are fewer studies than ranks, or a similarity is not finite.
      ValueError: if the studies hold no reports.
    """
    count = len(studies.record)
    if studies.reports is None:
        raise ValueError("the studies hold no reports: encode them with reports=True")
    if count < ranks:
        raise DataError(
            "records to search", received=count, accepted=f"at least {ranks}, the largest rank"
        )
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
                raise DataError("similarity", received="NaN or inf", accepted="finite similarities")
    return Retrieved(
        report_of_image=best[0][1][:count],
        image_of_report=best[1][1][:count],
        score_of_image=best[0][0][:count],
    )


@jax.jit
def _merge(score, index, block, offset, left):
    """Keeps the best of what was kept and a new block; equal scores keep the lower index."""
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
    """Counts hits among what was retrieved.

    Args:
      top: results of N queries each way.
      positive: bool[N, C], the records' classes.
      texts: N report texts.
      groups: [N], the patient of each record.
      config: what counts as a hit.
      resampling: the intervals.

    Returns:
      As `evaluate_retrieval`.
    """
    count = len(texts)
    class_of, has_class = _class_sets(positive, config)
    pair = np.arange(count)
    if config.duplicates == "hit":
        pair = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)[1]
    relevant = functools.partial(_relevant, positive, class_of, match=config.match)
    values: dict[str, np.ndarray] = {}
    for prefix, found in zip(_DIRECTIONS, (top.report_of_image, top.image_of_report), strict=True):
        by_class = relevant(np.arange(count)[:, None], found)
        by_pair = pair[found] == pair[:, None]
        for k in config.ranks:
            share = metrics.precision_at(by_class, k)
            values[f"{prefix}precision_at_{k}"] = np.where(has_class, share, np.nan)
        for k in config.ranks:
            values[f"{prefix}recall_at_{k}"] = metrics.recall_at(by_pair, k)
    chance = _chance(relevant, has_class=has_class, pair=pair, ranks=config.ranks)
    found = bootstrap.intervals(
        lambda weights: {n: metrics.weighted_mean(v, weights=weights) for n, v in values.items()},
        groups=groups,
        config=resampling,
    )
    reason = "no record has a positive class"
    return TaskResult(
        metrics=found,
        settings={
            **{k: v for k, v in dataclasses.asdict(config).items() if k != "block"},
            "records": count,
            "patients": len(np.unique(groups)),
            "queries_of_precision": int(has_class.sum()),
            "different_texts": len(set(texts)),
            "chance": {p + n: v for p in _DIRECTIONS for n, v in chance.items()},
            "undefined": {n: reason for n, v in found.items() if math.isnan(v.value)},
            "bootstrap": dataclasses.asdict(resampling),
        },
    )


def _class_sets(positive, config):
    """Numbers the distinct sets of classes; says which records can be a query of precision."""
    sets = np.unique(positive, axis=0, return_inverse=True)[1].reshape(-1)
    exact = config.match == "exact" and positive.shape[1] > 0
    has_class = np.ones(len(positive), bool) if exact else positive.any(axis=1)
    return sets, has_class


def _relevant(positive, class_of, query, found, *, match):
    """Whether each result, int[N, K], fits its query, int[N, 1]."""
    if match == "exact":
        return class_of[found] == class_of[query]
    hit = np.zeros(np.broadcast_shapes(query.shape, found.shape), bool)
    for column in positive.T:
        hit |= column[query] & column[found]
    return hit


def _chance(relevant, *, has_class, pair, ranks) -> dict[str, Any]:
    """Expectation of each metric if the gallery came in random order."""
    count = len(pair)
    everyone = np.arange(count)[None, :]
    queries = np.flatnonzero(has_class)
    # In slices: all pairs at once would not fit for a large split.
    shares = [
        relevant(queries[start : start + 256, None], everyone).mean(axis=1)
        for start in range(0, len(queries), 256)
    ]
    precision = float(np.concatenate(shares).mean()) if shares else None
    partners = np.bincount(pair)[pair]
    chance: dict[str, Any] = {f"precision_at_{k}": precision for k in ranks}
    for k in ranks:
        # 1 - C(N - m, k) / C(N, k), the chance that k draws miss all m partners.
        miss = np.prod([(count - partners - j).clip(0) / (count - j) for j in range(k)], axis=0)
        chance[f"recall_at_{k}"] = float(np.mean(1.0 - miss))
    return chance
