"""What a task needs of its set, its packages and its files, checked before a model is opened."""

import pathlib

import jax

from launch.evaluation import labelled_part, phantom_masks
from launch.evaluation.detection_tasks import DetectionTask, TrainDetectionTask
from launch.evaluation.tasks import (
    GalleryTask,
    GroundingTask,
    PhraseTask,
    ProbeTask,
    RetrievalTask,
    Task,
    ZeroShotTask,
    masks_folder,
)
from launch.evaluation.training_tasks import ClassificationTask, FinetuneTask, TrainingTask
from prior_jax.data.manifest import MANIFEST_NAME, Manifest, load_manifest
from prior_jax.data.schema import TEXT_NONE
from prior_jax.errors import ConfigError
from prior_jax.evaluate import coco_library, probe, prompts

_WITHOUT = {"validate": ", or train a head with configs/eval/finetune.py:linear, which needs none"}
"""What else to do without a split that a task learns on."""


def has_texts(manifest: Manifest) -> bool:
    """Tells whether a study of the set has a report, or sentences made of its labels."""
    return any(n for source, n in manifest.text_sources.items() if source != TEXT_NONE)


def check_set(task: Task, manifest: Manifest, *, drawn: pathlib.Path | None = None) -> None:
    """Refuses a set that lacks what the task measures.

    Args:
      task: a task; a suite is not checked, which passes over what a set lacks.
      manifest: manifest of the set.
      drawn: folder in which a run may have drawn the phantom that the set is of.

    Raises:
      ConfigError: if a split of the task has no record, or the set has no labels, no reports or no
        regions.
    """
    _check_splits(task, manifest)
    _check_labels_and_reports(task, manifest)
    if not manifest.regions:
        _check_without_regions(task, drawn=drawn)


def _check_splits(task: Task, manifest: Manifest) -> None:
    """Refuses a set without a record in a split that the task reads."""
    for name in (*task.learns_from, task.split):
        if name not in manifest.splits or not manifest.splits[name].studies:
            full = [split for split, counts in manifest.splits.items() if counts.studies]
            learns = bool(task.learns_from)
            other = _WITHOUT.get(name, "") if learns else ", or set --task.split to another"
            raise ConfigError(
                f"The set has no record in the split {name!r}, which the task {task.task!r} reads; "
                f"it has records in {', '.join(full) or 'none'}.",
                f"Prepare the set with such a split{other}.",
                where="task.data.path" if learns else "task.split",
            )


def _check_labels_and_reports(task: Task, manifest: Manifest) -> None:
    """Refuses a set without the labels or the reports that the task reads."""
    labelled = ZeroShotTask | ProbeTask | ClassificationTask | FinetuneTask
    if isinstance(task, labelled) and not manifest.label_names:
        raise ConfigError(
            "No class can be scored: the set has no labels.",
            "Prepare the set with labels, or choose a task that needs none.",
            where="task.classes",
        )
    if isinstance(task, RetrievalTask | GalleryTask) and not has_texts(manifest):
        raise ConfigError(
            "Nothing can be retrieved: the set has no reports.",
            "Prepare the set with reports, or choose another task.",
            where="task.data.path",
        )
    if isinstance(task, GroundingTask) and task.text == "report" and not has_texts(manifest):
        raise ConfigError(
            "No sentence can be located: the set has no reports.",
            "Set --task.text=prompts, or prepare the set with reports.",
            where="task.text",
        )


def _check_without_regions(task: Task, *, drawn: pathlib.Path | None) -> None:
    """Refuses a task that reads boxes or masks, on a set that has none."""
    if isinstance(task, PhraseTask):
        raise ConfigError(
            "No phrase can be measured: the set has no boxes or masks.",
            "Prepare the set with boxes or masks, or choose another task.",
            where="task.data.path",
        )
    if task.learns_regions:
        raise ConfigError(
            "Nothing can be located: the set has no boxes or masks.",
            "Prepare the set with boxes or masks, or choose another task.",
            where="task.data.path",
        )
    own = drawn is not None and (drawn / "phantom").is_dir()
    if isinstance(task, GroundingTask) and task.masks is None and not own:
        raise ConfigError(
            "No finding can be located: the set has no boxes or masks.",
            "Prepare the set with boxes or masks, or, for a phantom's set, give --task.masks=DIR, "
            "the folder that data_prep.phantom drew its images into.",
            where="task.data.path",
        )


def check_task(task: Task, *, drawn: pathlib.Path | None = None, own: str | None = None) -> None:
    """Refuses a task whose packages or files are missing, before anything is computed.

    Args:
      task: task to check.
      drawn: folder that `launch.train` draws a phantom into, if it has drawn one that it was asked
        for; None before a training, which may still draw the data.
      own: folder of the model's own set, which a task that names no set measures on; it need not be
        prepared yet.

    Raises:
      ConfigError: if a package is missing, with the command that installs it, or if the batch
        size does not fit the number of processes, or prompts, a config of a training or its list of
        records are not there, or findings are to be located in the model's own set, which has no
        regions and is no phantom's.
      DataError: if the set is absent, or no phantom was drawn in the folder.
    """
    if isinstance(task, ProbeTask):
        probe.check_installed()
    if isinstance(task, TrainingTask):
        labelled_part.check(task)
    detects = isinstance(task, DetectionTask | TrainDetectionTask)
    if detects and task.detector.coco == "faster_coco_eval":
        coco_library.check_installed()
    if isinstance(task, ZeroShotTask | GroundingTask):
        prompts.prompts_in(task.prompts.set)
    if task.batch_size % jax.process_count():
        raise ConfigError(
            f"The batch size is {task.batch_size}, which {jax.process_count()} processes cannot "
            "share evenly.",
            f"Set --task.batch_size to a multiple of {jax.process_count()}.",
            where="task.batch_size",
        )
    path = task.data.path
    if path is None and own is not None and (pathlib.Path(own) / MANIFEST_NAME).is_file():
        path = own
    has_regions = path is not None and bool(load_manifest(path).regions)
    if not isinstance(task, GroundingTask):
        return
    if task.masks is None and drawn is not None and path is not None and not has_regions:
        _check_without_regions(task, drawn=drawn)
    if task.masks is not None or (drawn is not None and not has_regions):
        folder = masks_folder(task, drawn or pathlib.Path())
        phantom_masks.check_drawn(folder, field="task.masks")
