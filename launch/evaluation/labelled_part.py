"""The records that a training learns from where it keeps the fraction of its config.

"The first 1 %" and a draw of positions mean a paper's members only in the order of the paper's own
table. A set that follows a published split has that order beside its manifest, and a training that
keeps such a fraction chooses lines of it. Without it the results say that the records are others.
"""

import pathlib

from ml_collections import ConfigDict

from data_prep.kit import splits
from launch.evaluation.finetune_settings import override, training_config
from launch.evaluation.training_tasks import TrainingTask
from prior_jax.data import fractions
from prior_jax.errors import ConfigError, DataError

_BY_POSITION: tuple[fractions.Rule, ...] = ("first_rounded", "sample", "choice")
_ORDER = splits.order_name("train")
_GIVE_LIST = "--task.finetune.overrides=\"('data.fraction.ids=FILE',)\""


def ids_of(task: TrainingTask, path: str) -> str | None:
    """Returns the file whose lines a kept fraction chooses.

    Args:
      task: the task.
      path: folder of the prepared set that is learnt.

    Returns:
      The file that the task or its config names, or else the order of the set's published split.
      None if the task chooses the labelled part itself, or there is neither.
    """
    fraction = _kept(task)
    if fraction is None or fraction.ids is not None:
        return None if fraction is None else fraction.ids
    usable = fraction.rule in _BY_POSITION and not _problem(path)
    return str(pathlib.Path(path) / _ORDER) if usable else None


def remarks(task: TrainingTask, path: str) -> list[str]:
    """Returns a sentence if a kept fraction is chosen by positions that are not the paper's."""
    fraction = _kept(task)
    if fraction is None or fraction.rule not in _BY_POSITION or ids_of(task, path) is not None:
        return []
    return [
        f"the {100 * fraction.share:g} % of the training records are chosen by their positions in "
        f"the prepared set, and are others than the paper's, for {_problem(path)}; prepare the set "
        f"with the paper's --split, or give its list of training records by {_GIVE_LIST}"
    ]


def check(task: TrainingTask) -> None:
    """Refuses a training whose config, or whose list of records, cannot be read.

    Raises:
      ConfigError: naming the setting, and how a list is given.
    """
    fraction = _kept(task)
    if fraction is None or fraction.ids is None:
        return
    try:
        fractions.read_ids(fraction.ids)
    except DataError as error:
        raise ConfigError(
            f"The records that {task.finetune.config} trains on are those of a list, and "
            f"{fraction.ids} is none: {error.problem}",
            f"Give the list by {_GIVE_LIST}.",
            where="task.finetune.overrides",
        ) from error


def _kept(task: TrainingTask) -> ConfigDict | None:
    """Returns the fraction of the task's config, with the task's overrides of it.

    None if the task chooses the labelled part itself, or the config trains on all records.
    """
    config = training_config(task.finetune, task.OBJECTIVE)
    if "fraction" not in task.finetune.keeps or config.data.get("fraction") is None:
        return None
    changes = (one for one in task.finetune.overrides if one.strip().startswith("data.fraction."))
    override(config, tuple(changes))
    return config.data.fraction


def _problem(path: str) -> str:
    """Returns why the set's own order of its training records cannot be read; "" if it can."""
    order = pathlib.Path(path) / _ORDER
    if not order.is_file():
        return f"the set has no {_ORDER}"
    try:
        fractions.read_ids(order)
    except DataError as error:
        return f"its {_ORDER} cannot be used ({error.problem.rstrip('.')})"
    return ""
