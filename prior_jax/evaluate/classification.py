"""Measures a trained classifier of images on a split, with intervals and by subgroup."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from prior_jax import near_names
from prior_jax.errors import DataError, check_field, check_least
from prior_jax.evaluate import (
    bootstrap,
    classification_rows,
    labels,
    prompts,
    ranking,
    reliability,
    subgroups,
    undefined,
)
from prior_jax.evaluate.classification_rows import Predicted
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import finite, to_host
from prior_jax.evaluate.results import TaskResult
from prior_jax.objectives.base import Classifies
from prior_jax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """Settings of the measurement.

    Attributes:
      bins: number of bins of equal width of the calibration error; Guo et al., arXiv:1706.04599,
        use 15.
      policy: treatment of uncertain and unmentioned findings, on both splits.
      age_edges: first year of each age band but the youngest, ascending; () for no rows by age.
      least_patients: number of patients below which a subgroup is named and left out.
    """

    bins: int
    policy: labels.LabelPolicy
    age_edges: tuple[int, ...]
    least_patients: int

    def __post_init__(self):
        """Refuses values that define no measurement."""
        check_least(self, bins=1, least_patients=1)
        ascending = list(self.age_edges) == sorted(set(self.age_edges))
        usable = ascending and min(self.age_edges, default=1) > 0
        check_field(self, "age_edges", usable, "ascending years above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """The answers of a classifier on one split, on the host.

    Attributes:
      odds: log-odds of the model's classes, float32[N, K].
      labels: label states of the set, int8[N, C].
      record: index of each record in its split, int32[N].
    """

    odds: np.ndarray
    labels: np.ndarray
    record: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matched:
    """Which class of a model is which label of a set.

    Attributes:
      classes: names of the model's classes that are labels of the set, M of them.
      columns: position of each among the model's classes, M.
      without_label: classes of the model that the set has no label for.
      without_class: labels of the set that the model was not trained to tell.
      renamed: class -> label, where the two are spelled differently.
    """

    classes: tuple[str, ...]
    columns: tuple[int, ...]
    without_label: tuple[str, ...]
    without_class: tuple[str, ...]
    renamed: Mapping[str, str]


def match(classes: Sequence[str], label_names: Sequence[str]) -> Matched:
    """Finds the labels of a set that a model's classes mean, by `prompts.canonical`.

    Args:
      classes: names of the model's classes.
      label_names: names of the set's labels.
    """
    labelled = {prompts.canonical(name): name for name in label_names}
    known = {prompts.canonical(name) for name in classes}
    kept = [index for index, name in enumerate(classes) if prompts.canonical(name) in labelled]
    return Matched(
        classes=tuple(classes[index] for index in kept),
        columns=tuple(kept),
        without_label=tuple(n for n in classes if prompts.canonical(n) not in labelled),
        without_class=tuple(n for n in label_names if prompts.canonical(n) not in known),
        renamed={
            classes[index]: labelled[prompts.canonical(classes[index])]
            for index in kept
            if labelled[prompts.canonical(classes[index])] != classes[index]
        },
    )


def score(encoder: Encoder, objective: Classifies, batches: Iterable[Batch]) -> Scored:
    """Scores every record of a split.

    Args:
      encoder: encoder of the model.
      objective: objective of the model.
      batches: batches of one pass over the split; rows of weight 0 are dropped.

    Raises:
      DataError: if no batch holds a real row, or a score is not finite.
    """
    classify = encoder.compiled(
        lambda model, image: objective.classify(model, image).astype(jnp.float32)
    )
    parts = []
    for batch in batches:
        odds, known, record, weight = to_host(
            (classify(batch.image), batch.labels, batch.record, batch.weight)
        )
        real = weight > 0
        parts.append((odds[real], known[real], record[real]))
    if not any(len(record) for _, _, record in parts):
        raise DataError(
            "The split contains no record, so that there is nothing to classify.",
            "Choose a split that has records with --task.split.",
        )
    odds, known, record = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Scored(odds=finite(odds, "log-odds"), labels=known, record=record)


def evaluate_classification(
    test: Scored,
    *,
    validation: Scored | None,
    matched: Matched,
    label_names: Sequence[str],
    exclusive: bool,
    patients: np.ndarray,
    members: Mapping[str, np.ndarray],
    config: ClassificationConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Computes the metrics of a classifier.

    Args:
      test: answers on the split that is measured.
      validation: answers on the validation split, which choose each finding's threshold; None for
        a set without one, whose metrics at a threshold are then undefined.
      matched: classes that are measured, at least one.
      label_names: names of the set's labels.
      exclusive: whether exactly one of several classes holds, and all of them are measured. Records
        with another number of positive classes are left out.
      patients: patient of each row of `test`, [N]; the bootstrap resamples patients.
      members: attribute -> subgroup of each row of `test`, str[N], "" where it is not known.
      config: settings of the measurement.
      resampling: settings of the bootstrap intervals.

    Returns:
      The metrics of `classification_rows.findings_rows` or, if exclusive, of `classes_rows`;
      `settings["subgroups"]`, `settings["reliability"]` and `settings["pooled_reliability"]` hold
      the rest; see `reliability.Curves`.
    """
    read = functools.partial(_read, matched=matched, label_names=label_names, policy=config.policy)
    every, truth = read(test)
    if exclusive:
        sample = _of_classes(every, truth, bins=config.bins)
    else:
        chosen = None if validation is None else read(validation)[0]
        sample = _of_findings(every, chosen, bins=config.bins)
    found = _measure(sample, patients, members, config=config, resampling=resampling)
    asked = {
        **dataclasses.asdict(config),
        "classes": list(matched.classes),
        "renamed": dict(matched.renamed),
        "classes_without_a_label": list(matched.without_label),
        "labels_without_a_class": list(matched.without_class),
        "exclusive": exclusive,
    }
    return dataclasses.replace(found, settings={**asked, **found.settings})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sample:
    """The records that count.

    Attributes:
      rows: records of the split that count, int[M].
      predicted: probabilities and truth of these M records, as they are counted.
      statistics: function from weightings of the M records to their metrics.
      thresholds: threshold of each finding, float[C], NaN for none; None for exclusive classes.
      validated: whether a validation split is given.
    """

    rows: np.ndarray
    predicted: Predicted
    statistics: subgroups.Statistics
    thresholds: np.ndarray | None
    validated: bool


def _read(
    scored: Scored, *, matched: Matched, label_names, policy
) -> tuple[Predicted, labels.Truth]:
    """Returns the probabilities of the classes that are measured, and their truth."""
    truth = labels.truth_of(
        scored.labels, label_names=label_names, classes=matched.classes, policy=policy
    )
    odds = np.asarray(scored.odds, np.float64)[:, list(matched.columns)]
    predicted = Predicted(
        # The logistic function without an overflow for odds far from 0.
        probability=0.5 * (1 + np.tanh(0.5 * odds)),
        positive=truth.positive,
        counted=truth.known,
        classes=matched.classes,
    )
    return predicted, truth


def _of_findings(every: Predicted, validation: Predicted | None, *, bins: int) -> _Sample:
    """Returns all records, for findings that may occur together."""
    thresholds = np.full(len(every.classes), np.nan)
    if validation is not None:
        thresholds = classification_rows.validation_thresholds(validation)

    def statistics(weights):
        return classification_rows.findings_rows(
            every, thresholds=thresholds, bins=bins, weights=weights
        )

    return _Sample(
        rows=np.arange(len(every.positive)),
        predicted=every,
        statistics=statistics,
        thresholds=thresholds,
        validated=validation is not None,
    )


def _of_classes(every: Predicted, truth: labels.Truth, *, bins: int) -> _Sample:
    """Returns the records with exactly one positive class, whose probabilities have the sum 1.

    Raises:
      DataError: if there is none.
    """
    rows = np.flatnonzero(truth.single)
    if not len(rows):
        raise DataError(
            f"No record has exactly one of the classes {', '.join(every.classes)}.",
            "Choose a set whose classes exclude each other, as the model's do.",
        )
    # The sigmoid of the odds against all others is the softmax, but for rounding.
    probability, positive = every.probability[rows], every.positive[rows]
    probability = probability / probability.sum(axis=1, keepdims=True)
    answer = positive.argmax(axis=1)

    def statistics(weights):
        return classification_rows.classes_rows(
            probability, answer, classes=every.classes, bins=bins, weights=weights
        )

    return _Sample(
        rows=rows,
        predicted=dataclasses.replace(
            every, probability=probability, positive=positive, counted=np.ones_like(positive)
        ),
        statistics=statistics,
        thresholds=None,
        validated=False,
    )


def _measure(sample: _Sample, patients, members, *, config, resampling) -> TaskResult:
    """Computes the metrics of a sample, those of its subgroups and its reliability curves."""
    patients = patients[sample.rows]
    members = {name: groups[sample.rows] for name, groups in members.items()}
    found = bootstrap.intervals(sample.statistics, groups=patients, config=resampling)
    groups, absent = _subgroups(
        sample.statistics, members, patients, config=config, resampling=resampling
    )
    curves = reliability.curves(
        sample.predicted, patients=patients, bins=config.bins, resampling=resampling
    )
    known, thresholds = sample.predicted, sample.thresholds
    classes = known.classes
    return TaskResult(
        metrics=found,
        settings={
            "records": len(patients),
            "patients": len(np.unique(patients)),
            "positives": _counts(known.positive & known.counted, classes),
            "counted": _counts(known.counted, classes),
            "thresholds": {} if thresholds is None else _numbers(classes, thresholds),
            "chance": {"macro_auroc": 0.5},
            "undefined": _reasons(sample, undefined.without_value(found)),
            "subgroups": groups,
            "attributes_not_recorded": absent,
            "reliability": curves.by_class,
            "pooled_reliability": curves.pooled,
            "bootstrap": dataclasses.asdict(resampling),
        },
    )


def _reasons(sample: _Sample, names: Sequence[str]) -> dict[str, str]:
    """Returns why metrics of a sample are undefined."""
    known = sample.predicted
    reasons = undefined.classification_reasons(
        names,
        classes=known.classes,
        positive=known.positive,
        counted=known.counted,
        thresholds=sample.thresholds,
        validated=sample.validated,
    )
    ranked = ranking.reasons(known.positive, known.counted, classes=known.classes)
    return {name: ranked.get(name, reason) for name, reason in reasons.items()}


def _subgroups(statistics, members, patients, *, config, resampling):
    """Returns the rows of each attribute that some record has, and the names of the others."""

    def summary(weights):
        found = statistics(weights)
        return {
            name: value
            for name, value in found.items()
            if name.startswith(("macro_", "auroc_")) or name in ("accuracy", "balanced_accuracy")
        }

    known = {name: groups for name, groups in members.items() if (groups != "").any()}
    found = {
        name: subgroups.subgroup_rows(
            summary,
            members=groups,
            patients=patients,
            least_patients=config.least_patients,
            config=resampling,
        ).to_json()
        for name, groups in known.items()
    }
    return found, [name for name in members if name not in known]


def _counts(chosen: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    names = [near_names.slug(name) for name in classes]
    return dict(zip(names, chosen.sum(axis=0).tolist(), strict=True))


def _numbers(classes: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    return {
        near_names.slug(name): None if np.isnan(value) else float(value)
        for name, value in zip(classes, values, strict=True)
    }
