"""Runs the task "segmentation" on one model."""

import dataclasses
from collections.abc import Callable

import numpy as np

from launch.evaluation import too_few
from launch.evaluation.detect import images_left_out, images_with
from launch.evaluation.model_images import grey_of
from launch.evaluation.segmentation_tasks import SegmentationTask
from launch.evaluation.subject import Opened, Subject
from prior_jax.data.region_targets import RegionConfig
from prior_jax.errors import ConfigError
from prior_jax.evaluate import segmenter
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import fitting, to_host
from prior_jax.evaluate.mask_file import KeptMasks, ShownMasks
from prior_jax.evaluate.prompts import canonical
from prior_jax.evaluate.results import TaskResult
from prior_jax.objectives.segmentation import SegmentationObjective, masks_of


def measure_segmentation(
    task: SegmentationTask,
    encoder: Encoder,
    subject: Subject,
    opened: Callable[[str], Opened],
) -> TaskResult:
    """Measures one segmentation model; see `segmenter.evaluate_segmenter`.

    Raises:
      ConfigError: if the model is none, or none of its classes has enough masks.
    """
    objective = segmenter_of(subject, task=task.task)
    data = opened(task.split)
    names = chosen(task, objective, subject, data)
    kept = segmenter.count(
        encoder,
        objective,
        subject.batches(data, batch_size=task.batch_size, require_text=False),
        ids=lambda index: data.texts[index].study_id,
        config=task.segmenter,
    )
    kept = segmenter.of_classes(kept, names)
    result = segmenter.evaluate_segmenter(
        kept,
        patients=data.patients[kept.record],
        config=task.segmenter,
        resampling=task.bootstrap,
    )
    shown = _shown(task, encoder, objective, subject, data, kept=kept)
    return dataclasses.replace(
        result,
        settings={
            **result.settings,
            "images_left_out": images_left_out(data, kept.record),
            "regions": dataclasses.asdict(_regions(subject)),
        },
        kept=dataclasses.replace(kept, shown=shown),
    )


def segmenter_of(subject: Subject, *, task: str) -> SegmentationObjective:
    """Returns the subject's objective.

    Raises:
      ConfigError: if the model is no segmentation model.
    """
    if not isinstance(subject.objective, SegmentationObjective):
        raise ConfigError(
            f"The task {task!r} measures a segmentation model, and {subject.name} is a model of "
            f"the objective {subject.objective_name!r}.",
            "Train one with launch.train and a config of configs/finetune such as "
            "segmentation.py, or with --task=configs/eval/segmentation/any_set.py.",
            where="task.task",
        )
    return subject.objective


def chosen(
    task: SegmentationTask, objective: SegmentationObjective, subject: Subject, data: Opened
) -> tuple[str, ...]:
    """Returns the classes that are measured.

    Raises:
      ConfigError: if a class of the task is none of the model's, or no class is left.
    """
    known = {canonical(name): name for name in objective.classes}
    absent = [name for name in task.classes if canonical(name) not in known]
    if absent:
        raise ConfigError(
            f"The model was not trained to segment {', '.join(absent)}.",
            f"Set --task.classes to some of {', '.join(objective.classes)}.",
            where="task.classes",
        )
    asked = {canonical(name) for name in task.classes} or set(known)
    left_out = {canonical(name) for name in (*task.exclude, *rare(task, subject, data))}
    kept = tuple(name for name in objective.classes if canonical(name) in asked - left_out)
    if not kept:
        raise ConfigError(
            f"None of the model's classes, {', '.join(objective.classes)}, has a mask on "
            f"{task.min_positives} images of the split {task.split!r}.",
            "Choose a set or a split with such masks, or lower --task.min_positives.",
            where="task.classes",
        )
    return kept


def rare(task: SegmentationTask, subject: Subject, data: Opened) -> dict[str, str]:
    """Returns the reason for each class of the model that has a mask on too few images."""
    if task.classes:
        return {}
    skipped = {canonical(name) for name in task.exclude}
    counts = {
        name: {"mask": count}
        for name, count in images_with(data, _regions(subject)).items()
        if canonical(name) not in skipped
    }
    return too_few.reasons(counts, least=task.min_positives, split=task.split)[1]


def unused_labels(subject: Subject, data: Opened) -> list[str]:
    """Returns a sentence on the labels of masks that the model does not segment."""
    known = _regions(subject).class_of
    others = sorted(name for name in data.split.manifest.regions if name not in known)
    return [f"masks that the model does not segment: {', '.join(others)}"] if others else []


def _regions(subject: Subject) -> RegionConfig:
    regions = subject.data.regions
    if regions is None:
        raise ConfigError(
            f"The model {subject.name} was trained without masks.",
            "Measure a run of the objective 'segmentation'.",
            where="task.task",
        )
    return regions


def _shown(
    task: SegmentationTask,
    encoder: Encoder,
    objective: SegmentationObjective,
    subject: Subject,
    data: Opened,
    *,
    kept: KeptMasks,
) -> tuple[ShownMasks, ...]:
    """Returns the best, the median and the worst images with their masks, computed once more."""
    choices = kept.chosen()
    if not choices:
        return ()
    places = {int(kept.record[one.index]): one for one in choices}
    columns = [objective.classes.index(name) for name in kept.classes]
    predicted = encoder.compiled(segmenter.inside(objective, task.segmenter))
    size = fitting(task.batch_size, len(data.split))
    records = np.asarray(sorted(places))
    found: dict[int, ShownMasks] = {}
    with data.split.eval_batches(batch_size=size, require_text=False, records=records) as batches:
        for _, host in batches:
            batch = subject.place.put(host)
            rows = batch.image, predicted(batch.image), masks_of(batch), batch.record
            for image, one, truth, record in zip(*to_host(rows), strict=True):
                if int(record) in places:
                    found[int(record)] = ShownMasks(
                        choice=places[int(record)],
                        image=grey_of(image, data),
                        predicted=one[..., columns],
                        truth=truth[..., columns],
                    )
    return tuple(found[int(kept.record[one.index])] for one in choices)
