"""Evaluation of a model while it is trained: zero-shot, retrieval, nearest neighbours on a subset.

The subset, the bank of the neighbours, the classes and the prompts are chosen once, before the
first step, so that the numbers are a function of the model alone. Every process of a run computes
them from the same features.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from flax import nnx

from prior_jax.errors import ConfigError, check_choice, check_field, check_least
from prior_jax.evaluate import (
    bootstrap,
    labels,
    metrics,
    prompt_file,
    prompts,
    retrieval,
)
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Pooled, ReportTokens, Studies
from prior_jax.evaluate.neighbours import neighbour_scores
from prior_jax.evaluate.prompt_scores import class_scores
from prior_jax.objectives.base import in_stage
from prior_jax.processes import activities
from prior_jax.train.watched import EVALUATED
from prior_jax.types import Batch

TaskName = Literal["zero_shot", "retrieval", "knn"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
OF_TEXT = ("zero_shot", "retrieval")
"""Tasks that need a model with a text encoder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation while training; the section `config.evaluate`.

    Attributes:
      tasks: names of the tasks, "zero_shot", "retrieval" and "knn"; () for all that the objective
        and the set allow.
      split: split that the subset is drawn from, "validate" or "test".
      studies: number of studies of the subset: patients are drawn until there are as many. The
        studies of a patient stay together.
      bank: number of studies of the training split that the neighbours are looked for among.
      seed: seed of both draws.
      batch_size: number of images encoded, and of similarities' rows computed, at once.
      classes: labels to measure; () selects those that have prompts (zero-shot alone) and enough
        positives and other studies in the subset.
      exclude: labels that () does not select.
      min_positives: least number of positives, and of other studies, of a class that () selects.
      prompts: set of prompts of the zero-shot classes, as in `configs/eval/zero_shot.py`.
      negatives: whether the denying prompts are subtracted from the affirming ones.
      ranks: values of K of retrieval.
      neighbours: number of neighbours of "knn".
      temperature: temperature of the weights of the neighbours.
      policy: treatment of uncertain and unmentioned findings.
    """

    tasks: tuple[TaskName, ...]
    split: Literal["validate", "test"]
    studies: int
    bank: int
    seed: int
    batch_size: int
    classes: tuple[str, ...]
    exclude: tuple[str, ...]
    min_positives: int
    prompts: str
    negatives: bool
    ranks: tuple[int, ...]
    neighbours: int
    temperature: float
    policy: labels.LabelPolicy

    def __post_init__(self):
        """Refuses values with which nothing can be measured."""
        for task in self.tasks:
            check_field(self, "tasks", task in TASKS, f"some of {', '.join(map(repr, TASKS))}")
        check_field(self, "tasks", len(set(self.tasks)) == len(self.tasks), "different tasks")
        check_choice(self, "split", ("validate", "test"))
        check_least(self, studies=2, bank=1, seed=0, batch_size=1, min_positives=1, neighbours=1)
        check_field(self, "temperature", self.temperature > 0, "above 0")
        if self.wants("zero_shot") and not prompt_file.is_path(self.prompts):
            prompts.prompts_in(self.prompts, field="prompts")
        positive = min(self.ranks, default=0) >= 1
        check_field(self, "ranks", positive, "one or more integers, all at least 1")

    def wants(self, task: str) -> bool:
        """Returns whether a task is to be measured if the objective and the set allow it."""
        return not self.tasks or task in self.tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset:
    """What is measured, chosen before the first step.

    Attributes:
      classes: classes of each task that is measured; those of retrieval may be ().
      label_names: label names of the set, in the order of `Batch.labels`.
      patients: patient of each record of the subset, by record number.
      texts: report of each record of the subset, by record number; read by retrieval alone.
      table: prompts; None without zero-shot.
      tokens: tokens of the prompts; None without zero-shot.
      batches: function that starts one pass over the subset, on the devices.
      bank: function that starts one pass over the bank of the neighbours.
    """

    classes: Mapping[str, tuple[str, ...]]
    label_names: Sequence[str]
    patients: Mapping[int, str]
    texts: Mapping[int, str]
    table: prompts.PromptTable | None
    tokens: ReportTokens | None
    batches: Callable[[], Iterable[Batch]]
    bank: Callable[[], Iterable[Batch]]


class WhileTraining:
    """The evaluation of a run's models, compiled once."""

    def __init__(
        self,
        objective,
        *,
        subset: Subset,
        config: EvaluateConfig,
        place: Callable,
    ):
        """Prepares lazy compilation.

        Args:
          objective: objective of the models.
          subset: what is measured.
          config: settings.
          place: function that puts host arrays on the devices, see `Encoder`.
        """
        self._objective, self._subset, self._config = objective, subset, config
        self._place, self._encoder = place, None

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the numbers, the same at every evaluation."""
        return names(self._subset.classes, config=self._config)

    def __call__(self, model: nnx.Module, *, stage: str) -> dict[str, float]:
        """Measures a model.

        Args:
          model: the model after some step.
          stage: stage that the step belongs to; reports are encoded as it is trained.

        Returns:
          `names` -> number: `evaluate_zero_shot_macro_auroc`, `evaluate_knn_macro_auroc` and
          `evaluate_retrieval_recall_at_<K>`, with `report_to_image_recall_at_<K>` and
          `precision_at_<K>`; the last only if the set has labels.

        Raises:
          DataError: if a feature is not finite.
        """
        objective = in_stage(self._objective, stage)
        if self._encoder is None or objective is not self._objective:
            self._objective = objective
            self._encoder = Encoder(objective, model, place=self._place)
        encoder = self._encoder = self._encoder.with_model(model)
        subset, tasks = self._subset, self._subset.classes
        studies = encoder.studies(
            activities.each(activities.INPUT, subset.batches()), reports="retrieval" in tasks
        )
        found: dict[str, float] = {}
        if "zero_shot" in tasks:
            found |= self._zero_shot(encoder, studies)
        if "retrieval" in tasks:
            found |= self._retrieval(encoder, studies)
        if "knn" in tasks:
            bank = encoder.pooled(activities.each(activities.INPUT, subset.bank()))
            found |= self._knn(bank, studies)
        return {f"{EVALUATED}{name}": value for name, value in found.items()}

    def _zero_shot(self, encoder: Encoder, studies: Studies) -> dict[str, float]:
        config, table, tokens = self._config, self._subset.table, self._subset.tokens
        assert table is not None and tokens is not None  # `Subset` has them for this task
        reports = encoder.prompts(tokens, block=config.batch_size)
        scores = class_scores(
            encoder.similarity(studies.images, reports, block=config.batch_size),
            table=table,
            pool="mean",
            normalise="none",
        )
        truth = self._truth(studies.labels, self._subset.classes["zero_shot"])
        return {"zero_shot_macro_auroc": macro_auroc(scores, truth)}

    def _knn(self, bank: Pooled, studies: Studies) -> dict[str, float]:
        classes = self._subset.classes["knn"]
        of_bank = self._truth(bank.labels, classes)
        scores = neighbour_scores(
            np.asarray(studies.images.pooled),
            bank=bank.features,
            positive=of_bank.positive,
            known=of_bank.known,
            neighbours=self._config.neighbours,
            temperature=self._config.temperature,
        )
        return {"knn_macro_auroc": macro_auroc(scores, self._truth(studies.labels, classes))}

    def _retrieval(self, encoder: Encoder, studies: Studies) -> dict[str, float]:
        config, classes = self._config, self._subset.classes["retrieval"]
        positive = np.zeros((len(studies.record), 0), bool)
        if classes:
            truth = self._truth(studies.labels, classes)
            positive = truth.positive & truth.known
        records = studies.record.tolist()
        found = retrieval.measure(
            retrieval.search(encoder, studies, ranks=max(config.ranks), block=config.batch_size),
            positive=positive,
            texts=[self._subset.texts[record] for record in records],
            groups=np.asarray([self._subset.patients[record] for record in records]),
            config=retrieval.RetrievalConfig(
                ranks=config.ranks,
                classes=classes,
                subset="all",
                match="any",
                duplicates="hit",
                policy=config.policy,
                block=config.batch_size,
            ),
            # Intervals are those of the tasks after training; one resample is the least there is.
            resampling=bootstrap.BootstrapConfig(resamples=1, confidence=0.95, seed=0),
        )
        return {
            f"retrieval_{name}": found.metrics[name].value
            for name in _retrieval_names(classes, config=config)
        }

    def _truth(self, found: np.ndarray, classes: Sequence[str]) -> labels.Truth:
        return labels.truth_of(
            found,
            label_names=self._subset.label_names,
            classes=classes,
            policy=self._config.policy,
            field="config.evaluate.classes",
        )


def names(classes: Mapping[str, Sequence[str]], *, config: EvaluateConfig) -> tuple[str, ...]:
    """Returns the names of the numbers of an evaluation.

    Args:
      classes: classes of each task that is measured.
      config: settings.
    """
    found = []
    for task in (task for task in TASKS if task in classes):
        of_task = ["macro_auroc"]
        if task == "retrieval":
            of_task = _retrieval_names(classes[task], config=config)
        found += [f"{EVALUATED}{task}_{name}" for name in of_task]
    return tuple(found)


def _retrieval_names(classes: Sequence[str], *, config: EvaluateConfig) -> list[str]:
    kinds = ["recall", "report_to_image_recall", *(["precision"] if classes else [])]
    return [f"{kind}_at_{k}" for kind in kinds for k in config.ranks]


def macro_auroc(scores: np.ndarray, truth: labels.Truth) -> float:
    """Returns the mean area under the ROC curve over the classes that have both states.

    Args:
      scores: scores, float[N, C]; NaN leaves a class out.
      truth: truth, [N, C].
    """
    areas = [
        metrics.auroc(
            scores[truth.known[:, index], index],
            truth.positive[truth.known[:, index], index],
            weights=np.ones((1, int(truth.known[:, index].sum()))),
        )[0]
        for index in range(scores.shape[1])
        if not np.isnan(scores[:, index]).any()
    ]
    return float(metrics.mean_of_defined(np.asarray(areas)))


def draw_patients(patients: Mapping[int, str], *, studies: int, seed: int) -> np.ndarray:
    """Draws whole patients until there are enough studies.

    Args:
      patients: patient of each record that may be drawn, by record number.
      studies: number of studies; all are taken if there are fewer.
      seed: seed of the order of the patients. With the same seed, the patients of a smaller number
        are among those of a larger one.

    Returns:
      Record numbers, int64[n], ascending; n exceeds `studies` by less than the last patient's.
    """
    records = np.array(sorted(patients), np.int64)
    given = np.array([patients[record] for record in records.tolist()])
    known, member = np.unique(given, return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(known))
    order = np.argsort(place[member.reshape(-1)], kind="stable")
    taken = place[member.reshape(-1)][order]
    # The first patients, up to and with the one in whom the number is reached.
    last = taken[min(studies, len(taken)) - 1] if len(taken) else -1
    return np.sort(records[order[taken <= last]])


def draw_records(records: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Draws records without replacement.

    Args:
      records: numbers of the records that may be drawn, int[N].
      size: number to draw; all are taken if there are fewer.
      seed: seed of the draw.

    Returns:
      Record numbers, int64[min(size, N)], ascending.
    """
    return np.sort(np.random.default_rng(seed).permutation(np.asarray(records, np.int64))[:size])


def choose_classes(
    states: np.ndarray,
    *,
    label_names: Sequence[str],
    config: EvaluateConfig,
    bank: np.ndarray | None = None,
) -> tuple[str, ...]:
    """Selects the classes that can be measured.

    Args:
      states: label states of the subset, int8[N, C].
      label_names: label names of the set, C.
      config: settings.
      bank: label states of the bank, int8[M, C], which must have both states of a class; None where
        there is no bank.

    Returns:
      `config.classes`; if there are none, the labels with enough positives and other studies.

    Raises:
      ConfigError: if one of `config.classes` is no label, or has only one state.
    """
    chosen, left_out = [], {prompts.canonical(name) for name in config.exclude}
    for name in config.classes or label_names:
        least = 1 if config.classes else config.min_positives
        parts = {"subset": (states, least)} | ({} if bank is None else {"bank": (bank, 1)})
        lacking = [
            part
            for part, (rows, count) in parts.items()
            if min(_counts(rows, name, label_names=label_names, config=config)) < count
        ]
        if lacking and config.classes:
            raise ConfigError(
                f"The studies of the {lacking[0]} are all positive or all negative for {name}, so "
                "that it cannot be measured.",
                "Leave the class out, or raise config.evaluate.studies and config.evaluate.bank.",
                where="config.evaluate.classes",
            )
        if not lacking and (config.classes or prompts.canonical(name) not in left_out):
            chosen.append(name)
    return tuple(chosen)


def _counts(states, name, *, label_names, config) -> tuple[int, int]:
    """Returns the numbers of known positives and of known negatives of a class."""
    truth = labels.truth_of(
        states,
        label_names=label_names,
        classes=(name,),
        policy=config.policy,
        field="config.evaluate.classes",
    )
    return int((truth.positive & truth.known).sum()), int((~truth.positive & truth.known).sum())
