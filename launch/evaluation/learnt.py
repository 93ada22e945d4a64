"""Which classes a training learns: labels of the records, or findings with boxes or masks."""

from collections.abc import Sequence

import numpy as np

from launch.evaluation import too_few
from launch.evaluation.finetune_settings import training_config
from launch.evaluation.subject import Opened
from launch.evaluation.training_tasks import TrainingTask
from prior_jax.errors import ConfigError
from prior_jax.evaluate.labels import select_columns
from prior_jax.evaluate.prompts import canonical


def learnable(
    task: TrainingTask, *, train: Opened, test: Opened
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the classes that are learnt and measured, and the reason for each that is left out.

    Labels are spelled as the set spells them, whichever synonym the task names.

    Args:
      task: the task, with its classes; () asks for every class of the set that is not excluded.
      train: split whose labels are learnt; the classes are the same for each part of it.
      test: split that is measured.

    Raises:
      ConfigError: if a class is none of the set's, or no class is left.
    """
    excluded = {canonical(name) for name in task.exclude}
    known = _known(task, train)
    asked = task.classes or tuple(name for name in known if canonical(name) not in excluded)
    left_out: dict[str, str] = {}
    for split, data, least in (("train", train, 1), (task.split, test, task.min_positives)):
        for name, counts in counted(task, data, asked).items():
            if reason := too_few.reason(counts, least=least, split=split):
                left_out.setdefault(name, reason)
    kept = tuple(name for name in asked if name not in left_out)
    if not kept:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        what = "boxes or masks" if task.learns_regions else "labels"
        raise ConfigError(
            f"No class can be learnt and measured ({reasons or f'the set has no {what}'}).",
            "Set --task.classes, or lower --task.min_positives.",
            where="task.classes",
        )
    if task.learns_regions:
        return kept, left_out
    spelled = {canonical(name): name for name in known}
    return tuple(spelled[canonical(name)] for name in kept), left_out


def validates(task: TrainingTask, data: Opened | None, classes: Sequence[str]) -> bool:
    """Returns whether the validation split tells good models of one of the classes from bad ones.

    For labels that takes positives and negatives, for boxes and masks a finding.
    """
    if data is None:
        return False
    return any(min(counts.values()) > 0 for counts in counted(task, data, classes).values())


def counted(task: TrainingTask, data: Opened, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts the records of a split for each class, kind of record -> number; see `too_few`.

    Raises:
      ConfigError: if a class is no label of the set, or no region of the set is labelled so.
    """
    if task.learns_regions:
        return _findings(task, data, classes)
    columns = select_columns(
        data.labels, label_names=data.split.label_names, classes=classes, field="task.classes"
    )
    return {name: _states(column) for name, column in zip(classes, columns.T, strict=True)}


def _known(task: TrainingTask, data: Opened) -> tuple[str, ...]:
    """Returns the names of the classes of a set: one, where the config joins all findings."""
    if not task.learns_regions:
        return tuple(data.split.label_names)
    config = training_config(task.finetune, task.OBJECTIVE)
    if config.data.regions.any_of:
        return tuple(config.model.classes)
    return tuple(sorted(data.split.manifest.regions))


def _findings(
    task: TrainingTask, data: Opened, classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Counts the records with a finding of each class."""
    any_of = training_config(task.finetune, task.OBJECTIVE).data.regions.any_of
    present = tuple(sorted(data.split.manifest.regions))
    for name in any_of or classes:
        if name not in present:
            raise ConfigError(
                f"No region of the set is labelled {name!r}.",
                f"Choose among {', '.join(present) or 'none'}.",
                where="task.classes",
            )
    found = {}
    for name in classes:
        wanted = set(any_of) or {name}
        records = sum(not wanted.isdisjoint(labels) for labels in data.region_labels)
        found[name] = {"finding": records}
    return found


def _states(column: np.ndarray) -> dict[str, int]:
    """Returns the numbers of positives and negatives; what is not mentioned is a negative."""
    negative = (column == 0) | (column == -2)
    return {"positive": int((column == 1).sum()), "negative": int(negative.sum())}
