"""Retrieval by the protocols of papers: galleries, own reports, and several averages.

The similarities of a small set are computed once and are all in memory. Those of a large one are
computed twice, for each direction, and only some queries' are in memory (`strips.py`); the numbers
are the same.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np

from prior_jax.errors import DataError, check_choice, check_field, check_least
from prior_jax.evaluate import bootstrap, labels, metrics, retrieval_metrics, strips, undefined
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Studies
from prior_jax.evaluate.results import TaskResult
from prior_jax.evaluate.retrieval import Subset, records_used, take
from prior_jax.evaluate.retrieval_metrics import GalleryConfig
from prior_jax.objectives.base import SimilarityKind
from prior_jax.types import ImageFeatures, ReportFeatures

DIRECTIONS = ("", "report_to_image_")
Answers = tuple[dict[str, np.ndarray], dict[str, np.ndarray], Sequence[np.ndarray] | None]
"""Value of each query by metric; the same in random order; the galleries, None for one."""
_HELD = 20_000  # records whose similarities, 1.6 GB, are held


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryRetrievalConfig:
    """What is searched, and what counts.

    Attributes:
      rule: gallery and averages of retrieval by class, of which `ranks` also serves recall.
      gallery: number of records that are each other's gallery, drawn by `seed`; None for one
        gallery of all records.
      seed: seed of the order in which records are divided into galleries, >= 0; None keeps their
        order.
      kind: part of the similarity, "both", "global" or "local".
      subset: records that are used, see `retrieval.RetrievalConfig`.
      policy: treatment of uncertain and unmentioned findings; "ignore" means not positive.
      block: number of rows and columns compared at once.
    """

    rule: GalleryConfig
    gallery: int | None
    seed: int | None
    kind: SimilarityKind
    subset: Subset
    policy: labels.LabelPolicy
    block: int

    def __post_init__(self):
        """Refuses unknown choices."""
        for field, known in (("kind", SimilarityKind), ("subset", Subset)):
            check_choice(self, field, get_args(known))
        check_least(self, block=1)
        usable = self.gallery is None or self.gallery >= 2
        check_field(self, "gallery", usable, "at least 2, or None")
        check_field(self, "seed", self.seed is None or self.seed >= 0, "at least 0, or None")


def evaluate_gallery(
    encoder: Encoder,
    studies: Studies,
    *,
    texts: Sequence[str],
    label_names: Sequence[str],
    classes: Sequence[str],
    patients: Sequence[str] | np.ndarray,
    config: GalleryRetrievalConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Ranks each gallery and computes the papers' metrics.

    Args:
      encoder: encoder of the model that computed the features.
      studies: features from `encoder.studies(..., reports=True)`.
      texts: text of each report of the split, [records].
      label_names: names of the set's labels.
      classes: labels by which results are relevant; () for retrieval by pair alone.
      patients: patient of each record of the split; the bootstrap resamples patients.
      config: galleries and relevance.
      resampling: settings of the bootstrap intervals; queries are resampled, galleries are fixed.

    Returns:
      `precision_at_<K>` and `hit_at_<K>` within the galleries; `recall_at_<K>` and `mean_rank` of
      the query's own text among the different texts of all records. All of them again with
      `report_to_image_`.

    Raises:
      ConfigError: if a class is not a label of the set.
      DataError: if fewer than two records are left, or a similarity is not finite.
    """
    positive, kept = _records(studies, label_names, classes, config=config)
    part = take(studies, kept)
    if part.reports is None:
        raise ValueError("the studies hold no reports: encode them with reports=True")
    searched = [texts[int(record)] for record in part.record]
    answers = measure_strips(
        _directions(encoder, part.images, part.reports, config=config),
        positive=positive[kept],
        texts=searched,
        config=config,
    )
    groups = np.asarray(patients)[part.record]
    found = _averaged(answers, searched, groups=groups, config=config, resampling=resampling)
    asked = {**dataclasses.asdict(config), "classes": list(classes)}
    return dataclasses.replace(found, settings={**asked, **found.settings})


def _averaged(answers: Answers, texts, *, groups, config, resampling) -> TaskResult:
    """Averages the values of the queries, and their expectations, with intervals."""
    found, chance, batches = answers

    def mean(name, values, weights):
        if not _in_galleries(name):
            return metrics.weighted_mean(values, weights=weights)
        return retrieval_metrics.average(
            values, weights=weights, mean=config.rule.mean, batches=batches
        )

    intervals = bootstrap.intervals(
        lambda weights: {name: mean(name, each, weights) for name, each in found.items()},
        groups=groups,
        config=resampling,
    )
    once = np.ones((1, len(texts)))
    return TaskResult(
        metrics=intervals,
        settings={
            "records": len(texts),
            "galleries": 1 if batches is None else len(batches),
            "patients": len(np.unique(groups)),
            "different_texts": len(set(texts)),
            "chance": {name: _number(mean(name, each, once)[0]) for name, each in chance.items()},
            "undefined": dict.fromkeys(
                undefined.without_value(intervals), "the set has no label among the classes"
            ),
            "bootstrap": dataclasses.asdict(resampling),
        },
    )


def measure(
    similarity: np.ndarray,
    *,
    positive: np.ndarray,
    texts: Sequence[str],
    config: GalleryRetrievalConfig,
) -> Answers:
    """Computes the value of each query, and its expectation in random order.

    Args:
      similarity: similarity of each image to each report of the same N records, float[N, N].
      positive: positive classes of the records, bool[N, C]; a result is relevant if its set of
        classes equals the query's.
      texts: texts of the N reports.
      config: galleries and relevance.

    Returns:
      Values by metric, float64[N] each; the same in random order; and the galleries, None for one.
    """
    both = (strips.of_matrix(similarity), strips.of_matrix(similarity.T))
    return measure_strips(both, positive=positive, texts=texts, config=config)


def measure_strips(
    directions: Sequence[Iterable[strips.Strip]],
    *,
    positive: np.ndarray,
    texts: Sequence[str],
    config: GalleryRetrievalConfig,
) -> Answers:
    """Computes what `measure` does from strips of similarities.

    Args:
      directions: strips in which images ask, and strips in which reports ask, see `strips`.
      positive: positive classes of the records, bool[N, C].
      texts: texts of the N reports.
      config: galleries and relevance.
    """
    count, rule = len(texts), config.rule
    batches = None
    if config.gallery is not None:
        batches = retrieval_metrics.draw_batches(count, size=config.gallery, seed=config.seed)
    first, member = retrieval_metrics.different_texts(texts)
    has_class = bool(positive.shape[1])
    found: dict[str, np.ndarray] = {}
    chance: dict[str, np.ndarray] = {}
    for prefix, direction in zip(DIRECTIONS, directions, strict=True):
        parts = []
        for start, scores in direction:
            queries = np.arange(start, start + len(scores))
            values = retrieval_metrics.by_class(
                scores, positive, config=rule, batches=batches, queries=queries
            )
            if prefix:
                own = member[queries][:, None] == member[None, :]
                ranks = retrieval_metrics.partner_ranks(scores, own)
            else:
                ranks = retrieval_metrics.partner_ranks(scores[:, first], member[queries])
            parts.append({**values, **_by_rank(ranks, rule)})
        each = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        expected = _chance(positive, config=rule, batches=batches)
        for name in expected:
            if not has_class:
                each[name] = expected[name] = np.full(count, np.nan)
        candidates = count if prefix else len(first)
        partners = np.bincount(member)[member] if prefix else np.ones(count, np.int64)
        expected |= _chance_of_rank(candidates, partners, rule)
        found |= {f"{prefix}{name}": values for name, values in each.items()}
        chance |= {f"{prefix}{name}": values for name, values in expected.items()}
    return found, chance, batches


def _directions(
    encoder: Encoder,
    images: ImageFeatures,
    reports: ReportFeatures,
    *,
    config: GalleryRetrievalConfig,
) -> tuple[Iterable[strips.Strip], Iterable[strips.Strip]]:
    """Returns the strips of both directions, of similarities that are held or are computed."""
    block, kind = config.block, config.kind
    if len(images.global_) <= _HELD:
        similarity = encoder.similarity(images, reports, block=block, kind=kind)
        return strips.of_matrix(similarity), strips.of_matrix(similarity.T)
    return (
        strips.of_images(encoder, images, reports, block=block, kind=kind),
        strips.of_reports(encoder, images, reports, block=block, kind=kind),
    )


def _by_rank(ranks: np.ndarray, rule: GalleryConfig) -> dict[str, np.ndarray]:
    found = retrieval_metrics.by_rank(ranks, at=rule.ranks)
    found["mean_rank"] = found.pop("rank")
    return found


def _chance_of_rank(
    candidates: int, partners: np.ndarray, rule: GalleryConfig
) -> dict[str, np.ndarray]:
    """Returns the expected recall and mean rank of each query in random order."""
    expected = {
        f"recall_at_{k}": _hit(np.full(len(partners), candidates), partners, k) for k in rule.ranks
    }
    expected["mean_rank"] = (candidates + 1) / (partners + 1)
    return expected


def _records(studies, label_names, classes, *, config) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positive classes of all records, bool[N, C], and the rows that are used."""
    positive, kept = records_used(
        studies,
        label_names=label_names,
        classes=classes,
        subset=config.subset,
        policy=config.policy,
    )
    if len(kept) < 2 and config.subset == "all":
        raise DataError(
            f"The number of records with a report is {len(kept)}, and a search needs 2.",
            "Choose a larger set, or another --task.split.",
        )
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} records are left to be retrieved: too few have exactly one positive "
            f"class of {', '.join(classes) or 'none'}.",
            "Set --task.classes to labels that exclude each other, or --task.gallery.subset=all.",
        )
    return positive, kept


def _chance(positive, *, config: GalleryConfig, batches) -> dict[str, np.ndarray]:
    """Returns the expected precision and hit of each query in random order."""
    count = len(positive)
    member = np.unique(positive, axis=0, return_inverse=True)[1].reshape(-1)
    relevant, candidates = np.zeros(count, np.int64), np.ones(count, np.int64)
    for rows in [np.arange(count)] if batches is None else batches:
        alike = np.bincount(member[rows], minlength=member.max() + 1)[member[rows]]
        less = 1 if config.own == "removed" else 0
        relevant[rows], candidates[rows] = alike - less, len(rows) - less
    found = {}
    for k in config.ranks:
        with np.errstate(divide="ignore", invalid="ignore"):
            taken = np.minimum(k, candidates)
            divisor = k if config.divisor == "ranks" else taken
            share = taken / divisor * relevant / candidates
        found[f"precision_at_{k}"] = np.where(candidates > 0, share, np.nan)
        found[f"hit_at_{k}"] = np.where(candidates > 0, _hit(candidates, relevant, k), np.nan)
    return found


def _hit(candidates: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Returns the probability that the first k of the candidates hold a relevant one."""
    miss = np.ones(len(relevant))
    for drawn in range(k):
        left = np.maximum(candidates - drawn, 1)
        miss *= np.clip(candidates - relevant - drawn, 0, None) / left
    return 1 - miss


def _in_galleries(name: str) -> bool:
    return "precision" in name or "hit" in name


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
