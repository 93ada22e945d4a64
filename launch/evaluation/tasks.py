"""Evaluation tasks: the files of configs/eval as dataclasses."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from launch.evaluation.detection_tasks import DetectionTask, TrainDetectionTask
from launch.evaluation.finetune_settings import read_file
from launch.evaluation.segmentation_tasks import SegmentationTask, TrainSegmentationTask
from launch.evaluation.task_base import Task
from launch.evaluation.training_tasks import ClassificationTask, FinetuneTask, TrainingTask
from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError, check_field
from prior_jax.evaluate import fine_regions, gallery, phrases, probe, retrieval, zero_shot
from prior_jax.strict import build


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The choice of the prompts for a class.

    Attributes:
      set: "release", "single", "ensemble", "described", "gloria" or "gloria_release", or the path
        of a file of prompts that ends in ".json" or ".txt".
      negatives: whether the score of a class is that of the affirming prompts minus that of the
        denying prompts.
    """

    set: str
    negatives: bool


UNASKED = PromptConfig(set="ensemble", negatives=False)
"""The prompts of configs/eval/grounding.py, which are not read if the reports are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotTask(Task):
    """The task "zero_shot".

    Attributes:
      prompts: choice of the prompts.
      zero_shot: settings of the measurement: its classes and its policy for uncertain labels.
    """

    prompts: PromptConfig
    zero_shot: zero_shot.ZeroShotConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalTask(Task):
    """The task "retrieval".

    Attributes:
      retrieval: definition of a hit, without the classes.
    """

    retrieval: Mapping[str, Any]

    def __post_init__(self):
        """Refuses what is no definition of a hit."""
        super().__post_init__()
        self.rule(classes=())

    def rule(self, *, classes: tuple[str, ...]) -> retrieval.RetrievalConfig:
        """Returns the definition of a hit with the classes."""
        section = {**self.retrieval, "classes": classes}
        return build(retrieval.RetrievalConfig, section, name="retrieval")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryTask(Task):
    """The task "gallery_retrieval": retrieval by the protocols of papers.

    Attributes:
      gallery: gallery, relevance and ranks.
    """

    gallery: gallery.GalleryRetrievalConfig

    @property
    def result(self) -> str:
        """Returns the name of the results file, "retrieval_" and the name of the protocol."""
        name = f"retrieval_{self.protocol or 'gallery'}"
        return name if self.split == "test" else f"{name}_{self.split}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeTask(Task):
    """The task "probe", which trains on "train" and selects on "validate" for any `split`.

    Attributes:
      probe: settings of the probe's training.
    """

    probe: probe.ProbeConfig

    @property
    def reads_text(self) -> bool:
        """Returns False: the probe learns from images and labels alone."""
        return False

    @property
    def learns_from(self) -> tuple[str, ...]:
        """Returns the splits that the probe learns from."""
        return ("train", "validate")

    @property
    def result(self) -> str:
        """Returns the name of the results file, which is different for each training fraction."""
        if self.probe.fraction == 1:
            return self.task
        percent = f"{100 * self.probe.fraction:g}".replace(".", "_")
        return f"{self.task}_{percent}_percent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroundingTask(Task):
    """The task "grounding".

    Attributes:
      text: source of the sentences whose attention is measured: "report" takes each study's own,
        "prompts" the same for every image. Both use only sentences with a word that names the
        finding.
      prompts: choice of the prompts if `text` is "prompts", `UNASKED` otherwise. Only affirming
        prompts say that there is something to find.
      masks: folder that `data_prep.phantom` drew the set's images into; None for the boxes and
        masks in the set's own records, and, where it has none, for the phantom that the launcher
        drew under the workdir.
      attention: grid of the regions that the sentences attend to, and whether the mirror images
        count as well.
    """

    text: Literal["report", "prompts"]
    prompts: PromptConfig
    masks: str | None
    attention: fine_regions.AttentionConfig = fine_regions.OWN  # as in files without the setting

    def __post_init__(self):
        """Refuses prompts that are not asked."""
        super().__post_init__()
        if self.text == "report" and self.prompts != UNASKED:
            raise ConfigError(
                "The sentences of the reports are asked, and no prompts.",
                "Set --task.text=prompts, or leave out the settings of the prompts.",
                where="prompts",
            )
        if self.prompts.negatives:
            raise ConfigError(
                "Prompts that deny a finding are not asked where it is.",
                "Set --task.prompts.negatives=False.",
                where="prompts.negatives",
            )

    @property
    def result(self) -> str:
        """Returns the name of the results file, another one for prompts and for finer regions.

        It is such as "grounding_prompts_fine", and names the set of prompts unless it is the usual.
        """
        asked = ""
        if self.text == "prompts":
            plain = (one if one.isalnum() else "_" for one in pathlib.Path(self.prompts.set).name)
            usual = self.prompts.set == UNASKED.set
            asked = "prompts" if usual else f"prompts_{''.join(plain)}"
        return "_".join(filter(None, (super().result, asked, self.attention.name)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhraseTask(Task):
    """The task "phrase_grounding", on the regions of a set's records.

    Attributes:
      phrases: settings of the maps and of their comparison with the regions.
    """

    phrases: phrases.PhraseConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteTask(Task):
    """The task "suite": other tasks, on several sets.

    Attributes:
      sets: sets, "name=path" each, or a mapping from name to path; () for the model's own.
      tasks: files of the tasks.
      fractions: fractions of the probe and of the trainings of classifiers.
      region_fractions: fractions of the trainings of segmentations and detectors.
      seeds: seeds of the choice of patients for the fractions below 1, and of the trainings.
      imagenet: folder of weights of an image encoder that is measured beside the model in the probe
        and the trainings; None for none.
      max_steps: largest number of steps of each training of a classifier or a segmentation; None
        for the tasks' own. The protocols of papers keep their length.
      detector_max_steps: largest number of steps of each training of a detector; None for the
        tasks' own. The protocols of papers keep their length.
    """

    sets: Any
    tasks: tuple[str, ...]
    fractions: tuple[float, ...]
    region_fractions: tuple[float, ...]
    seeds: tuple[int, ...]
    imagenet: str | None
    max_steps: int | None
    detector_max_steps: int | None

    def __post_init__(self):
        """Refuses an empty suite, and sets without a name of their own."""
        super().__post_init__()
        for field in ("tasks", "fractions", "region_fractions", "seeds"):
            given = getattr(self, field)
            check_field(self, field, 0 < len(given) == len(set(given)), "one or more, each once")
        for field in ("fractions", "region_fractions"):
            shares = all(0 < fraction <= 1 for fraction in getattr(self, field))
            check_field(self, field, shares, "numbers above 0 and at most 1")
        whole = all(0 <= seed < 2**32 for seed in self.seeds)
        check_field(self, "seeds", whole, "integers from 0 to 2**32 - 1")
        for field in ("max_steps", "detector_max_steps"):
            most = getattr(self, field)
            check_field(self, field, most is None or most >= 1, "at least 1, or None")
        paths = self.named_sets().values()
        if paths and self.data.path is not None and self.data.path not in paths:
            raise ConfigError(
                f"The value is {self.data.path!r}, which is none of the sets of the suite.",
                "Give either --task.sets or --task.data.path.",
                where="data.path",
            )

    def named_sets(self) -> dict[str, str]:
        """Returns the path of each set by its name.

        Raises:
          ConfigError: if a set has no name or no path, or two have the same name.
        """
        given = self.sets
        if hasattr(given, "items"):
            pairs = [(str(name), str(path)) for name, path in given.items()]
        else:
            listed = given.split(",") if isinstance(given, str) else given
            pairs = [tuple(str(one).strip().partition("=")[::2]) for one in listed]
        names = [name for name, _ in pairs]
        plain = all(name.replace("_", "").replace("-", "").isalnum() for name in names)
        if not plain or not all(path for _, path in pairs) or len(set(names)) != len(names):
            raise ConfigError.of_value(
                "sets", given, "name=path for each set, with different names of letters and digits"
            )
        return dict(pairs)  # type: ignore[arg-type]


TASKS: Mapping[str, type[Task]] = {
    "zero_shot": ZeroShotTask,
    "retrieval": RetrievalTask,
    "gallery_retrieval": GalleryTask,
    "probe": ProbeTask,
    "grounding": GroundingTask,
    "classification": ClassificationTask,
    "finetune": FinetuneTask,
    "detection": DetectionTask,
    "train_detection": TrainDetectionTask,
    "segmentation": SegmentationTask,
    "train_segmentation": TrainSegmentationTask,
    "phrase_grounding": PhraseTask,
    "suite": SuiteTask,
}


def load_task(path: str, *, where: str = "task") -> Task:
    """Reads a task from a file of configs/eval, "file.py" or "file.py:argument".

    Args:
      path: path of the file.
      where: name of the setting that names the file, for the error message.

    Raises:
      ConfigError: if the file holds no task.
    """
    section = read_file(path, where=where)
    if section.get("task") not in TASKS:
        raise ConfigError(
            f"The file {path} holds no task.", "Give a file of configs/eval.", where=where
        )
    return task_of(section)


def masks_folder(task: GroundingTask, drawn: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the masks: the task's, or the one that launch.train draws into."""
    return drawn if task.masks is None else pathlib.Path(task.masks)


def task_of(section: Any) -> Task:
    """Checks a task's settings.

    Raises:
      ConfigError: if the task is unknown, or has unknown settings.
    """
    name = section.get("task")
    if name not in TASKS:
        raise ConfigError(
            f"The task is {name!r}, which is not known.",
            f"Give a file of configs/eval, or set --task.task to one of {', '.join(TASKS)}.",
            where="task.task",
        )
    task = build(TASKS[name], section, name="task")
    if task.split not in SPLITS:
        raise ConfigError.of_value("task.split", task.split, f"one of {', '.join(SPLITS)}")
    if isinstance(task, ProbeTask | TrainingTask) and task.split != "test":
        raise ConfigError(
            f"The split is {task.split!r}, but {task.task!r} learns on 'train' and 'validate'.",
            "Set --task.split=test.",
            where="task.split",
        )
    return task
