"""Measures a task on a model and, beside it, on the same model before its first step."""

import pathlib
from collections.abc import Callable

from launch.evaluation import finetune
from launch.evaluation.class_choice import excluded_in_vain
from launch.evaluation.detect import one_of_several
from launch.evaluation.detection_tasks import TrainDetectionTask
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.task_base import Task
from launch.evaluation.task_results import measure, remarks
from launch.evaluation.training_tasks import FinetuneTask, TrainingTask
from prior_jax.evaluate.results import TaskResult

Open = Callable[[str], Opened]


def measure_both(
    task: Task, subject: Subject, opened: Open, *, folder: pathlib.Path, beside: bool = True
) -> tuple[TaskResult, TaskResult]:
    """Returns the results of the model and of the same model before its first step.

    That has random weights, or with `config.init` those that its run began with; a training's
    baseline is the same training from random weights.

    Args:
      task: task to measure.
      subject: model on the task's set.
      opened: function from the name of a split of the set to the split; it should cache it.
      folder: folder for what the task trains, for this task, model and set alone.
      beside: whether the baseline is wanted; without it the second result has no metrics.
    """
    if isinstance(task, TrainingTask):
        return finetune.measure_trainings(task, subject, opened, folder=folder, beside=beside)
    if not beside:
        found = measure(task, subject.trained, subject=subject, opened=opened)
        return found, TaskResult(metrics={}, settings={})
    encoders = list(dict.fromkeys((subject.trained, subject.untrained)))
    found = [measure(task, one, subject=subject, opened=opened) for one in encoders]
    return found[0], found[-1]


def title_of(task: Task, subject: Subject, found: tuple[TaskResult, TaskResult]) -> str:
    """Returns which checkpoints were measured, for the line above the table."""
    if isinstance(task, TrainingTask):
        return finetune.title(subject, found)
    return subject.title


def said_of(task: Task, subject: Subject, opened: Open) -> list[str]:
    """Returns sentences on how the labels of the set and what the task asks for fit together."""
    if isinstance(task, TrainingTask):
        remark = [task.remark] if isinstance(task, TrainDetectionTask) and task.remark else []
        if isinstance(task, FinetuneTask):
            remark += excluded_in_vain(task, opened("train").split.label_names)
        if task.learns_regions:
            remark += one_of_several(opened(task.split), split=task.split)
        remark += finetune.remarks(task, subject, opened)
        return [*remark, *finetune.left_out(task, opened)]
    return remarks(task, subject, opened(task.split))
