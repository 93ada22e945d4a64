"""What can be measured of a run: the files of configs/eval as dataclasses."""

import dataclasses
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any, Literal

import jax

from launch.evaluation import phantom_masks
from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError
from prior_jax.evaluate import bootstrap, probe, zero_shot
from prior_jax.strict import build


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Which sentences stand for a class.

    Attributes:
      set: "release", "single", "ensemble" or "described".
      negatives: whether a class's score is affirmation minus denial.
    """

    set: str
    negatives: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What every config of configs/eval has.

    Attributes:
      task: its kind.
      split: which split is measured.
      batch_size: images encoded at once.
      classes: labels to answer for; () for every one that fits and is frequent enough.
      exclude: labels that () leaves out.
      min_positives: positives that a class chosen by () has at least.
      bootstrap: the intervals.
    """

    task: str
    split: str
    batch_size: int
    classes: tuple[str, ...]
    exclude: tuple[str, ...]
    min_positives: int
    bootstrap: bootstrap.BootstrapConfig

    def __post_init__(self):
        """Refuses a batch of nothing."""
        if self.batch_size < 1:
            raise ConfigError("task.batch_size", received=self.batch_size, accepted="at least 1")

    @property
    def result(self) -> str:
        """Name of the file of results, without its ending.

        Results of another split than "test" have a name of their own, `retrieval_validate`, so that
        neither takes the place of the other.
        """
        return self.task if self.split == "test" else f"{self.task}_{self.split}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotTask(Task):
    """Task "zero_shot".

    Attributes:
      prompts: the sentences.
      zero_shot: how to count; its classes and policy.
    """

    prompts: PromptConfig
    zero_shot: zero_shot.ZeroShotConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalTask(Task):
    """Task "retrieval".

    Attributes:
      retrieval: what counts as a hit, but for its classes.
    """

    retrieval: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeTask(Task):
    """Task "probe"; learns on "train" and chooses on "validate" whatever `split` is.

    Attributes:
      probe: how the probe is trained.
    """

    probe: probe.ProbeConfig

    @property
    def result(self) -> str:
        """Each fraction of the training patients has a file of its own."""
        if self.probe.fraction == 1:
            return self.task
        percent = f"{100 * self.probe.fraction:g}".replace(".", "_")
        return f"{self.task}_{percent}_percent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroundingTask(Task):
    """Task "grounding".

    Attributes:
      text: whose sentences look: "report", each study's own, or "prompts", the same for every
        image. Of either those that hold a word that names the finding.
      prompts: the sentences with text "prompts".
      masks: folder that `data_prep.phantom` drew the set's images into; None for the one that
        the launcher drew under the workdir.
    """

    text: Literal["report", "prompts"]
    prompts: PromptConfig
    masks: str | None


TASKS: Mapping[str, type[Task]] = {
    "zero_shot": ZeroShotTask,
    "retrieval": RetrievalTask,
    "probe": ProbeTask,
    "grounding": GroundingTask,
}


def load_task(path: str) -> Task:
    """Reads a file of configs/eval.

    Raises:
      ConfigError: if it is not one.
    """
    return task_of(runpy.run_path(path)["get_config"]())


def check_task(task: Task, *, workdir: pathlib.Path | None = None) -> None:
    """Refuses a task that lacks packages or files, before anything is computed for it.

    Args:
      task: the task.
      workdir: of the run, where all that the task reads is there already; None before a training,
        which may draw the data itself.

    Raises:
      ConfigError: naming the package and how to install it, or the batch size that does not fit
        the processes.
      DataError: naming the folder in which no phantom was drawn.
    """
    if isinstance(task, ProbeTask):
        probe.check_installed()
    if task.batch_size % jax.process_count():
        raise ConfigError(
            "task.batch_size",
            received=task.batch_size,
            accepted=f"a multiple of the {jax.process_count()} processes",
        )
    if isinstance(task, GroundingTask) and (task.masks is not None or workdir is not None):
        folder = masks_folder(task, workdir or pathlib.Path())
        phantom_masks.check_drawn(folder, field="--task.masks")


def masks_folder(task: GroundingTask, workdir: pathlib.Path) -> pathlib.Path:
    """Where the masks lie: as told, or where launch.train draws them in a run's folder."""
    return workdir / "data" / "raw" if task.masks is None else pathlib.Path(task.masks)


def task_of(section: Any) -> Task:
    """Checks a task's settings.

    Raises:
      ConfigError: for an unknown task, or settings that it does not take.
    """
    name = section.get("task")
    if name not in TASKS:
        raise ConfigError("task.task", received=name, accepted=", ".join(TASKS))
    task = build(TASKS[name], section, name="task")
    if task.split not in SPLITS:
        raise ConfigError("task.split", received=task.split, accepted=", ".join(SPLITS))
    if isinstance(task, ProbeTask) and task.split != "test":
        raise ConfigError(
            "task.split", received=task.split, accepted="test: the probe learns on the others"
        )
    return task
