"""Chooses the classes of a task: those that are asked for, or those that the set has enough of."""

from collections.abc import Sequence

from launch.evaluation import too_few
from launch.evaluation.subject import Opened
from launch.evaluation.tasks import Task, ZeroShotTask
from prior_jax.errors import ConfigError
from prior_jax.evaluate import prompts
from prior_jax.evaluate.labels import select_columns


def askable(data: Opened, set_name: str = "ensemble") -> tuple[str, ...]:
    """Returns the labels for which there are prompts."""
    known = {prompts.canonical(name) for name in prompts.known_classes(set_name)}
    return tuple(name for name in data.split.label_names if prompts.canonical(name) in known)


def without_prompts(task: Task, data: Opened) -> tuple[str, ...]:
    """Returns the labels that a task leaves out only because there are no prompts for them."""
    if task.classes or not isinstance(task, ZeroShotTask):
        return ()
    known = askable(data, task.prompts.set)
    names = (name for name in data.split.label_names if name not in known)
    return tuple(name for name in names if not excluded(name, task))


def excluded(name: str, task: Task) -> bool:
    """Tells whether `task.exclude` names a class, by any of its synonyms."""
    return prompts.canonical(name) in {prompts.canonical(other) for other in task.exclude}


def excluded_in_vain(task: Task, label_names: Sequence[str]) -> list[str]:
    """Returns a sentence on names of `task.exclude` that no set has, as a misspelt one; or none.

    A finding that has prompts is known, so that a list of findings serves for sets without some.
    """
    known = {prompts.canonical(name) for name in (*prompts.known_classes(), *label_names)}
    strange = [name for name in task.exclude if prompts.canonical(name) not in known]
    if not strange:
        return []
    return [
        f"task.exclude names {', '.join(strange)}, which is no label of the set, so that nothing "
        f"is excluded by it; the labels are {', '.join(label_names)}"
    ]


def classes_of(task: Task, data: Opened, candidates: Sequence[str]) -> tuple[str, ...]:
    """Returns the task's classes, or the candidates with enough positives and negatives.

    Raises:
      ConfigError: if there is no such class.
    """
    found = frequent(task, data, candidates)
    if found:
        return found
    if candidates:
        problem = (
            f"No class can be scored on split {task.split!r}: none of the labels "
            f"{', '.join(candidates)} has {task.min_positives} positive and "
            f"{task.min_positives} other studies."
        )
        remedy = "Set --task.classes, or lower --task.min_positives."
    elif data.split.label_names:
        asked_of = task.prompts.set if isinstance(task, ZeroShotTask) else "ensemble"
        problem = (
            f"No class can be scored: the labels of the set are "
            f"{', '.join(data.split.label_names)}, but there are prompts only for "
            f"{', '.join(prompts.known_classes(asked_of))}."
        )
        remedy = (
            "Set --task.classes to labels of the set, with --task.prompts.set=release and "
            "--task.prompts.negatives=False."
        )
    else:
        problem = "No class can be scored: the set has no labels."
        remedy = "Prepare the set with labels, or choose a task that needs none."
    raise ConfigError(problem, remedy, where="task.classes")


def frequent(task: Task, data: Opened, candidates: Sequence[str]) -> tuple[str, ...]:
    """Returns the task's classes, or the candidates with enough positives and negatives, or ().

    Raises:
      ConfigError: if a class is not a label of the data set, or is named twice.
    """
    if task.classes:
        names = data.split.label_names
        select_columns(data.labels, label_names=names, classes=task.classes, field="task.classes")
        return task.classes
    return enough(task, data, candidates)[0]


def enough(
    task: Task, data: Opened, candidates: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the labels with enough records, and the reason for each other one."""
    names = [name for name in candidates if not excluded(name, task)]
    counts = too_few.of_labels(data.labels, data.split.label_names, names)
    return too_few.reasons(counts, least=task.min_positives, split=task.split)
