"""What a task needs of a set, checked by its manifest before a model is opened."""

from launch.evaluation.tasks import (
    ClassificationTask,
    PhraseTask,
    ProbeTask,
    Task,
    ZeroShotTask,
)
from prior_jax.data.manifest import Manifest
from prior_jax.errors import ConfigError


def check_set(task: Task, manifest: Manifest) -> None:
    """Refuses a set that lacks what the task measures.

    Args:
      task: a task; a suite is not checked, which passes over what a set lacks.
      manifest: manifest of the set.

    Raises:
      ConfigError: if a split of the task has no record, or the set has no labels or no regions.
    """
    names = ("train", "validate", task.split) if isinstance(task, ProbeTask) else (task.split,)
    for name in names:
        if name not in manifest.splits or not manifest.splits[name].studies:
            full = [split for split, counts in manifest.splits.items() if counts.studies]
            raise ConfigError(
                f"The set has no record in the split {name!r}, which the task {task.task!r} reads; "
                f"it has records in {', '.join(full) or 'none'}.",
                "Prepare the set with such a split, or set --task.split to another.",
                where="task.split",
            )
    if isinstance(task, ZeroShotTask | ProbeTask | ClassificationTask) and not manifest.label_names:
        raise ConfigError(
            "No class can be scored: the set has no labels.",
            "Prepare the set with labels, or choose a task that needs none.",
            where="task.classes",
        )
    if isinstance(task, PhraseTask) and not manifest.regions:
        raise ConfigError(
            "No phrase can be measured: the set has no boxes or masks.",
            "Prepare the set with boxes or masks, or choose another task.",
            where="task.data.path",
        )
