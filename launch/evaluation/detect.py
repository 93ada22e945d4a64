"""Runs the task "detection" on one model."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from launch.evaluation import model_images, too_few
from launch.evaluation.detection_tasks import DetectionTask
from launch.evaluation.subject import Opened, Subject
from prior_jax.data import region_targets
from prior_jax.data.region_targets import RegionConfig
from prior_jax.errors import ConfigError
from prior_jax.evaluate import box_choice, detector, found_boxes
from prior_jax.evaluate.box_file import ShownImage
from prior_jax.evaluate.detection import ImageBoxes
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.prompts import canonical
from prior_jax.evaluate.results import TaskResult
from prior_jax.objectives.detection import DetectionObjective


def measure_detection(
    task: DetectionTask,
    encoder: Encoder,
    subject: Subject,
    opened: Callable[[str], Opened],
) -> TaskResult:
    """Measures one detector; see `detector.evaluate_detector`.

    Raises:
      ConfigError: if the model is no detector, or none of its classes has enough boxes.
    """
    objective = detector_of(subject, task=task.task)
    data = opened(task.split)
    names = chosen(task, objective, subject, data)
    batches = subject.batches(data, batch_size=task.batch_size, require_text=False)
    found = found_boxes.detect(encoder, objective, batches)
    numbers = [objective.classes.index(name) for name in names]
    found = dataclasses.replace(found, images=found_boxes.of_classes(found.images, numbers))
    threshold = box_choice.threshold_of(found.images)
    result = detector.evaluate_detector(
        found,
        threshold=threshold,
        shown=_shown(
            found.images, found.record, data, threshold=threshold, batch_size=task.batch_size
        ),
        classes=names,
        ids=[data.texts[int(index)].study_id for index in found.record],
        patients=data.patients[found.record],
        config=task.detector,
        resampling=task.bootstrap,
    )
    return dataclasses.replace(
        result,
        settings={
            **result.settings,
            "images_left_out": images_left_out(data, found.record),
            "regions": dataclasses.asdict(_regions(subject)),
        },
    )


def _shown(
    images: Sequence[ImageBoxes],
    records: np.ndarray,
    data: Opened,
    *,
    threshold: float,
    batch_size: int,
) -> tuple[ShownImage, ...]:
    """Returns the images that the report shows, which are read once more."""
    choices = box_choice.choose_images(images, threshold=threshold)
    chosen = {int(records[one.index]) for one in choices}
    grey = model_images.grey_images(data, sorted(chosen), batch_size=batch_size)
    return tuple(ShownImage(choice=one, image=grey[int(records[one.index])]) for one in choices)


def detector_of(subject: Subject, *, task: str) -> DetectionObjective:
    """Returns the subject's objective.

    Raises:
      ConfigError: if the model is no detector.
    """
    if not isinstance(subject.objective, DetectionObjective):
        raise ConfigError(
            f"The task {task!r} measures a detector, and {subject.name} is a model of the "
            f"objective {subject.objective_name!r}.",
            "Fine-tune it with launch.train and a config of configs/finetune such as detection.py.",
            where="task.task",
        )
    return subject.objective


def chosen(
    task: DetectionTask, objective: DetectionObjective, subject: Subject, data: Opened
) -> tuple[str, ...]:
    """Returns the classes that are measured.

    Raises:
      ConfigError: if a class of the task is none of the model's, or no class is left.
    """
    known = {canonical(name): name for name in objective.classes}
    absent = [name for name in task.classes if canonical(name) not in known]
    if absent:
        raise ConfigError(
            f"The model was not trained to detect {', '.join(absent)}.",
            f"Set --task.classes to some of {', '.join(objective.classes)}.",
            where="task.classes",
        )
    asked = {canonical(name) for name in task.classes} or set(known)
    left_out = {canonical(name) for name in (*task.exclude, *rare(task, subject, data))}
    kept = tuple(name for name in objective.classes if canonical(name) in asked - left_out)
    if not kept:
        raise ConfigError(
            f"None of the model's classes, {', '.join(objective.classes)}, has a box on "
            f"{task.min_positives} images of the split {task.split!r}.",
            "Choose a set or a split with such boxes, or lower --task.min_positives.",
            where="task.classes",
        )
    return kept


def rare(task: DetectionTask, subject: Subject, data: Opened) -> dict[str, str]:
    """Returns the reason for each class of the model that has a box on too few images."""
    if task.classes:
        return {}
    regions = _regions(subject)
    skipped = {canonical(name) for name in task.exclude}
    counts = {
        name: {"box": count}
        for name, count in images_with(data, regions).items()
        if canonical(name) not in skipped
    }
    return too_few.reasons(counts, least=task.min_positives, split=task.split)[1]


def images_with(data: Opened, regions: RegionConfig) -> dict[str, int]:
    """Counts the images of a split with a box of each class; of a study one image is seen."""
    counts = dict.fromkeys(regions.classes, 0)
    for index in range(len(data.split)):
        record = data.record(index)
        image = region_targets.usable_images(record, regions)[0]
        labels = {
            record.region_labels[number]
            for number in region_targets.findings_on(record, image, regions)
        }
        for name in {regions.classes[regions.class_of[label]] for label in labels}:
            counts[name] += 1
    return counts


def images_left_out(data: Opened, records: Iterable[int]) -> int:
    """Counts the images of studies that are not measured, for of a study one image is."""
    return sum(data.image_counts[int(index)] - 1 for index in records)


def one_of_several(data: Opened, *, split: str) -> list[str]:
    """Returns a sentence on the images that are not measured; none if every study has one image."""
    others = images_left_out(data, range(len(data.image_counts)))
    if not others:
        return []
    return [
        "of a study with several images one alone is measured, one with a finding where there is "
        f"one; {others} other images of the split {split} are not"
    ]


def unused_labels(subject: Subject, data: Opened) -> list[str]:
    """Returns a sentence on the labels of boxes that the model does not detect."""
    regions = _regions(subject)
    others = [name for name in data.split.manifest.regions if name not in regions.class_of]
    return [f"boxes that the model does not detect: {', '.join(sorted(others))}"] if others else []


def _regions(subject: Subject) -> RegionConfig:
    regions = subject.data.regions
    if regions is None:
        raise ConfigError(
            f"The model {subject.name} was trained without boxes.",
            "Measure a run of the objective 'detection'.",
            where="task.task",
        )
    return regions
