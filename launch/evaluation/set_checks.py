"""What a task needs of a set, checked by its manifest before a model is opened."""

import pathlib

from launch.evaluation.tasks import (
    ClassificationTask,
    FinetuneTask,
    GalleryTask,
    GroundingTask,
    PhraseTask,
    ProbeTask,
    RetrievalTask,
    Task,
    ZeroShotTask,
)
from prior_jax.data.manifest import Manifest
from prior_jax.data.schema import TEXT_NONE
from prior_jax.errors import ConfigError


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
    learnt = {ProbeTask: ("train", "validate"), FinetuneTask: ("train",)}.get(type(task), ())
    for name in (*learnt, task.split):
        if name not in manifest.splits or not manifest.splits[name].studies:
            full = [split for split, counts in manifest.splits.items() if counts.studies]
            raise ConfigError(
                f"The set has no record in the split {name!r}, which the task {task.task!r} reads; "
                f"it has records in {', '.join(full) or 'none'}.",
                "Prepare the set with such a split, or set --task.split to another.",
                where="task.split",
            )
    labelled = ZeroShotTask | ProbeTask | ClassificationTask | FinetuneTask
    if isinstance(task, labelled) and not manifest.label_names:
        raise ConfigError(
            "No class can be scored: the set has no labels.",
            "Prepare the set with labels, or choose a task that needs none.",
            where="task.classes",
        )
    told = sum(count for source, count in manifest.text_sources.items() if source != TEXT_NONE)
    if isinstance(task, RetrievalTask | GalleryTask) and not told:
        raise ConfigError(
            "Nothing can be retrieved: the set has no reports.",
            "Prepare the set with reports, or choose another task.",
            where="task.data.path",
        )
    if manifest.regions:
        return
    if isinstance(task, PhraseTask):
        raise ConfigError(
            "No phrase can be measured: the set has no boxes or masks.",
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
