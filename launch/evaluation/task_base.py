"""What all evaluation tasks have in common."""

import dataclasses

from prior_jax.data.pipeline import DataConfig
from prior_jax.errors import ConfigError, check_field, check_least
from prior_jax.evaluate import bootstrap

USUALLY_EXCLUDED = ("Lung Opacity", "Support Devices")
"""Labels that files of configs/eval exclude, as they say why. They do so where the classes are
named as well, as those of a paper are, and `exclude` is not read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskData:
    """The set that a task measures on.

    Attributes:
      path: folder of a prepared set; None for the set that the run was trained on.
    """

    path: str | None

    def __post_init__(self):
        """Refuses an empty path, as when a variable of a script is not set."""
        check_field(self, "path", self.path != "", "the folder of a prepared set, or None")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The settings that all configs of configs/eval have.

    Attributes:
      task: kind of the task.
      data: set that the task measures on.
      split: split on which the task is measured.
      batch_size: number of images encoded at once.
      classes: labels to measure; () selects every suitable label that is frequent enough.
      exclude: labels that () does not select.
      min_positives: least number of positives of a class that () selects.
      bootstrap: settings of the bootstrap intervals.
      protocol: name of the paper whose protocol the settings follow, "" for none. It is a part of
        the name of the results file.
    """

    task: str
    data: TaskData
    split: str
    batch_size: int
    classes: tuple[str, ...]
    exclude: tuple[str, ...]
    min_positives: int
    bootstrap: bootstrap.BootstrapConfig
    protocol: str = ""

    def __post_init__(self):
        """Refuses an empty batch, a protocol that names no file, and what would be unread.

        With `classes`, nothing is selected that `exclude` could leave out.
        """
        check_least(self, batch_size=1, min_positives=0)
        plain = not self.protocol or self.protocol.replace("_", "").isalnum()
        check_field(self, "protocol", plain, "letters, digits and '_'")
        if self.classes and self.exclude not in ((), USUALLY_EXCLUDED):
            raise ConfigError(
                f"The value is {self.exclude!r}, but the classes are named, so that none is left "
                "out.",
                "Give either --task.classes or --task.exclude.",
                where="exclude",
            )

    @property
    def reads_text(self) -> bool:
        """Returns whether the task needs a model with a text encoder."""
        return True

    def on(self, data: DataConfig) -> DataConfig:
        """Returns the settings of a model's data as the task reads them, on the task's set.

        Boxes and masks are read by the tasks that count them alone.
        """
        path = data.path if self.data.path is None else self.data.path
        return dataclasses.replace(data, path=path, regions=None)

    @property
    def learns_from(self) -> tuple[str, ...]:
        """Returns the splits that the task learns from, besides the one that it measures."""
        return ()

    @property
    def learns_regions(self) -> bool:
        """Returns whether the task is about models that learn boxes or masks."""
        return False

    @property
    def result(self) -> str:
        """Returns the name of the results file, without its suffix.

        Results of a split other than "test" have a name of their own, such as `retrieval_validate`,
        so that they do not overwrite the results of "test". So have the results of a protocol, such
        as `retrieval_benchx`.
        """
        name = f"{self.task}_{self.protocol}" if self.protocol else self.task
        return name if self.split == "test" else f"{name}_{self.split}"
