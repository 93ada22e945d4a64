"""Runs the task "classification" on one model."""

from collections.abc import Callable

import numpy as np

from launch.evaluation import too_few
from launch.evaluation.class_choice import excluded
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.tasks import ClassificationTask
from prior_jax.errors import ConfigError
from prior_jax.evaluate import classification, prompts, subgroups
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.results import TaskResult
from prior_jax.objectives.classification import ClassificationObjective

VALIDATION = "validate"


def measure_classification(
    task: ClassificationTask,
    encoder: Encoder,
    subject: Subject,
    opened: Callable[[str], Opened],
) -> TaskResult:
    """Measures one classifier; see `classification.evaluate_classification`.

    Raises:
      ConfigError: if the model is no classifier, or the set has none of its classes.
    """
    objective = classifier_of(subject, task=task.task)
    data = opened(task.split)
    matched = chosen(task, objective, data)

    def scored(split: Opened) -> classification.Scored:
        batches = subject.batches(split, batch_size=task.batch_size, require_text=False)
        return classification.score(encoder, objective, batches)

    test, validation = scored(data), None
    counts = data.split.manifest.splits.get(VALIDATION)
    if counts is not None and counts.studies:
        validation = scored(opened(VALIDATION))
    several = objective.config.loss == "exclusive" and len(objective.classes) > 1
    return classification.evaluate_classification(
        test,
        validation=validation,
        matched=matched,
        label_names=data.split.label_names,
        exclusive=several and matched.classes == objective.classes,
        patients=data.patients[test.record],
        members=members(data, test.record, ages=task.classification.age_edges),
        config=task.classification,
        resampling=task.bootstrap,
    )


def classifier_of(subject: Subject, *, task: str) -> ClassificationObjective:
    """Returns the subject's objective.

    Raises:
      ConfigError: if the model is no classifier.
    """
    if not isinstance(subject.objective, ClassificationObjective):
        raise ConfigError(
            f"The task {task!r} measures a classifier, and {subject.name} is a model of the "
            f"objective {subject.objective_name!r}.",
            "Fine-tune it with launch.train and a config of configs/finetune, or measure its "
            "features with --task=configs/eval/probe.py.",
            where="task.task",
        )
    return subject.objective


def chosen(
    task: ClassificationTask, objective: ClassificationObjective, data: Opened
) -> classification.Matched:
    """Returns the classes that are measured.

    Raises:
      ConfigError: if a class of the task is none of the model's, or no class is left.
    """
    known = {prompts.canonical(name): name for name in objective.classes}
    absent = [name for name in task.classes if prompts.canonical(name) not in known]
    if absent:
        raise ConfigError(
            f"The model was not trained to tell {', '.join(absent)}.",
            f"Set --task.classes to some of {', '.join(objective.classes)}.",
            where="task.classes",
        )
    asked = {prompts.canonical(name) for name in task.classes} or set(known)
    matched = classification.match(objective.classes, data.split.label_names)
    absent = {prompts.canonical(name) for name in (*task.exclude, *rare(task, objective, data))}
    kept = [
        (name, column)
        for name, column in zip(matched.classes, matched.columns, strict=True)
        if prompts.canonical(name) in asked - absent
    ]
    if not kept:
        raise ConfigError(
            f"None of the model's classes, {', '.join(objective.classes)}, is a label with "
            f"{task.min_positives} positive studies on split {task.split!r}; the set's labels are "
            f"{', '.join(data.split.label_names) or 'none'}.",
            "Choose a set with these labels, lower --task.min_positives, or fine-tune the model on "
            "labels of this set.",
            where="task.classes",
        )
    names, columns = zip(*kept, strict=True)
    return classification.Matched(
        classes=names,
        columns=columns,
        without_label=matched.without_label,
        without_class=matched.without_class,
        renamed={name: label for name, label in matched.renamed.items() if name in names},
    )


def rare(
    task: ClassificationTask, objective: ClassificationObjective, data: Opened
) -> dict[str, str]:
    """Returns the reason for each class of the model that has too few positives in the set."""
    if task.classes:
        return {}
    matched = classification.match(objective.classes, data.split.label_names)
    positives = {
        prompts.canonical(name): int((column == 1).sum())
        for name, column in zip(data.split.label_names, data.labels.T, strict=True)
    }
    counts = {
        name: {"positive": positives[prompts.canonical(name)]}
        for name in matched.classes
        if not excluded(name, task)
    }
    return too_few.reasons(counts, least=task.min_positives, split=task.split)[1]


def without_partner(task: ClassificationTask, subject: Subject, data: Opened) -> list[str]:
    """Returns sentences on the synonyms, and on classes and labels without a partner."""
    objective = classifier_of(subject, task=task.task)
    matched = classification.match(objective.classes, data.split.label_names)
    said = [f"{name} is the label {label}" for name, label in matched.renamed.items()]
    if matched.without_label:
        said.append(f"classes without a label of the set: {', '.join(matched.without_label)}")
    if matched.without_class:
        said.append(f"labels that the model does not tell: {', '.join(matched.without_class)}")
    return said


def members(data: Opened, records: np.ndarray, *, ages: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns the subgroup of each row by sex, age band and view, str[N], "" where unknown."""
    read = [data.record(int(index)) for index in records]
    found = {
        "sex": np.asarray([record.sex for record in read], dtype=object).astype(str),
        "view": np.asarray([record.views[0] for record in read], dtype=object).astype(str),
    }
    if ages:
        years = [record.age for record in read]
        found["age"] = np.asarray(subgroups.age_bands(years, edges=ages)).astype(str)
    return found
