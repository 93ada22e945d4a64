"""Runs a task on one model: opens the data and calls `prior_jax.evaluate`."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from launch.evaluation import region_masks, too_few
from launch.evaluation.class_choice import (
    askable,
    classes_of,
    enough,
    excluded_in_vain,
    frequent,
    without_prompts,
)
from launch.evaluation.classify import (
    VALIDATION,
    classifier_of,
    measure_classification,
    rare,
    without_partner,
)
from launch.evaluation.detect import (
    detector_of,
    measure_detection,
    one_of_several,
    unused_labels,
)
from launch.evaluation.detect import rare as rare_boxes
from launch.evaluation.detection_tasks import DetectionTask
from launch.evaluation.grounded import enough_masks, has_regions, masks_of, measure_grounding
from launch.evaluation.phrases import measure_phrases, phrases_left_out
from launch.evaluation.prompt_tokens import tokens_of
from launch.evaluation.segment import measure_segmentation, segmenter_of
from launch.evaluation.segment import rare as rare_masks
from launch.evaluation.segment import unused_labels as unused_masks
from launch.evaluation.segmentation_tasks import SegmentationTask
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.tasks import (
    ClassificationTask,
    GalleryTask,
    GroundingTask,
    PhraseTask,
    ProbeTask,
    RetrievalTask,
    Task,
    ZeroShotTask,
)
from prior_jax.errors import ConfigError
from prior_jax.evaluate import (
    gallery,
    places,
    probe,
    prompts,
    retrieval,
    zero_shot,
)
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Pooled
from prior_jax.evaluate.results import TaskResult
from prior_jax.objectives.base import ComparesParts


def measure(
    task: Task, encoder: Encoder, *, subject: Subject, opened: Callable[[str], Opened]
) -> TaskResult:
    """Measures one model.

    Args:
      task: task to measure.
      encoder: encoder of the model, trained or not.
      subject: model that is evaluated, with its objective, its preprocessing and its set.
      opened: function from the name of a split to the split; it should cache what it has read.

    Returns:
      The results; `settings["left_out"]` is `left_out`.
    """
    found = _MEASURES[type(task)](task, encoder, subject, opened)
    absent = left_out(task, subject, opened(task.split))
    return dataclasses.replace(found, settings={**found.settings, "left_out": absent})


def _zero_shot(task: ZeroShotTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    asks_places = task.zero_shot.local_weight is not None
    _check_parts(subject, asks_places, field="task.zero_shot.local_weight", without="None")
    data = opened(task.split)
    classes = classes_of(task, data, candidates=askable(data, task.prompts.set))
    table = prompts.prompt_table(
        task.prompts.set, classes=classes, negatives=task.prompts.negatives
    )
    return zero_shot.evaluate_zero_shot(
        encoder,
        subject.batches(data, batch_size=task.batch_size, require_text=False),
        table=table,
        tokens=tokens_of(subject, data, table.texts),
        label_names=data.split.label_names,
        patients=data.patients,
        config=task.zero_shot,
        resampling=task.bootstrap,
    )


def _retrieval(task: RetrievalTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    data = opened(task.split)
    # If there is no class, only retrieval by pair is measured.
    rule = task.rule(classes=frequent(task, data, data.split.label_names))
    retrieval.check_ranks(len(data.split.with_text), ranks=max(rule.ranks))
    batches = subject.batches(data, batch_size=task.batch_size, require_text=True)
    return retrieval.evaluate_retrieval(
        encoder,
        encoder.studies(batches, reports=True),
        texts=[text.text for text in data.texts],
        label_names=data.split.label_names,
        patients=data.patients,
        config=rule,
        resampling=task.bootstrap,
    )


def _gallery(task: GalleryTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    asks_places = task.gallery.kind == "local"
    _check_parts(subject, asks_places, field="task.gallery.kind", without="both")
    data = opened(task.split)
    batches = subject.batches(data, batch_size=task.batch_size, require_text=True)
    return gallery.evaluate_gallery(
        encoder,
        encoder.studies(batches, reports=True),
        texts=[text.text for text in data.texts],
        label_names=data.split.label_names,
        classes=frequent(task, data, data.split.label_names),
        patients=data.patients,
        config=task.gallery,
        resampling=task.bootstrap,
    )


def _probe(task: ProbeTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    probe.check_installed()
    parts: dict[str, tuple[Pooled, np.ndarray]] = {}
    for name in ("train", "validate", task.split):
        data = opened(name)
        features = encoder.pooled(
            subject.batches(data, batch_size=task.batch_size, require_text=False)
        )
        parts[name] = features, data.patients[features.record]
    data = opened(task.split)
    return probe.evaluate_probe(
        train=parts["train"][0],
        validate=parts["validate"][0],
        test=parts[task.split][0],
        train_patients=parts["train"][1],
        test_patients=parts[task.split][1],
        label_names=data.split.label_names,
        classes=classes_of(task, data, data.split.label_names),
        config=task.probe,
        resampling=task.bootstrap,
    )


_MEASURES: Mapping[type[Task], Callable[..., TaskResult]] = {
    ZeroShotTask: _zero_shot,
    RetrievalTask: _retrieval,
    GalleryTask: _gallery,
    ProbeTask: _probe,
    GroundingTask: measure_grounding,
    ClassificationTask: measure_classification,
    DetectionTask: measure_detection,
    SegmentationTask: measure_segmentation,
    PhraseTask: measure_phrases,
}


def remarks(task: Task, subject: Subject, data: Opened) -> list[str]:
    """Returns sentences on how the task, the model and the labels of the set fit together."""
    if isinstance(task, ClassificationTask):
        said = without_partner(task, subject, data)
        if task.split == VALIDATION:
            said.append(
                "the thresholds are chosen on the split that is measured, which favours the "
                "metrics at them; those above half do not depend on it"
            )
    elif isinstance(task, DetectionTask):
        detector_of(subject, task=task.task)
        said = [*unused_labels(subject, data), *one_of_several(data, split=task.split)]
    elif isinstance(task, SegmentationTask):
        segmenter_of(subject, task=task.task)
        said = [*unused_masks(subject, data), *one_of_several(data, split=task.split)]
    elif isinstance(task, PhraseTask | GroundingTask):
        nowhere = places.without_places(subject.objective)
        said = [nowhere] if nowhere else []
        if isinstance(task, PhraseTask) or has_regions(task, subject, data):
            elsewhere = region_masks.left_out(data, split=task.split)
            said += [elsewhere] if elsewhere else []
    else:
        unasked = without_prompts(task, data)
        said = [f"left out for want of prompts: {', '.join(unasked)}"] if unasked else []
    labels = data.split.label_names
    if isinstance(task, PhraseTask | GroundingTask):  # regions may have labels of their own
        labels = tuple(dict.fromkeys((*labels, *data.split.manifest.regions)))
    said += excluded_in_vain(task, labels)
    return [*said, *too_few.sentences(left_out(task, subject, data))]


def left_out(task: Task, subject: Subject, data: Opened) -> dict[str, str]:
    """Returns the reason for each class that the set has too few of, see `min_positives`."""
    if task.classes:
        return {}
    if isinstance(task, ClassificationTask):
        return rare(task, classifier_of(subject, task=task.task), data)
    if isinstance(task, DetectionTask):
        return rare_boxes(task, subject, data)
    if isinstance(task, SegmentationTask):
        return rare_masks(task, subject, data)
    if isinstance(task, PhraseTask):
        return phrases_left_out(task, data)
    if isinstance(task, GroundingTask):
        return enough_masks(task, data, masks_of(task, subject, data))[1]
    asked = task.prompts.set if isinstance(task, ZeroShotTask) else None
    candidates = data.split.label_names if asked is None else askable(data, asked)
    return enough(task, data, candidates)[1]


def _check_parts(subject: Subject, asked_for: bool, *, field: str, without: str) -> None:
    """Refuses to ask for the local part of a similarity that has no parts.

    Raises:
      ConfigError: naming the setting, and its value for a similarity as a whole.
    """
    if asked_for and not isinstance(subject.objective, ComparesParts):
        raise ConfigError(
            f"The objective {subject.objective_name!r} compares only whole images and reports, so "
            "that its similarity has no local part.",
            f"Set --{field}={without}.",
            where=field,
        )
