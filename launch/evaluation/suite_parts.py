"""The parts of a suite: which tasks a model and a set allow, and why not the others."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from launch.evaluation import labelled_part
from launch.evaluation.detection_tasks import DetectionTask, TrainDetectionTask
from launch.evaluation.finetune_settings import FRACTION_RULE, training_config
from launch.evaluation.segmentation_tasks import SegmentationTask, TrainSegmentationTask
from launch.evaluation.set_checks import has_texts
from launch.evaluation.subject import Subject
from launch.evaluation.task_base import USUALLY_EXCLUDED, Task, TaskData
from launch.evaluation.tasks import (
    GalleryTask,
    GroundingTask,
    PhraseTask,
    ProbeTask,
    RetrievalTask,
    SuiteTask,
    ZeroShotTask,
    load_task,
)
from launch.evaluation.training_tasks import ClassificationTask, FinetuneTask, TrainingTask
from prior_jax.config import to_json
from prior_jax.data.fractions import read_ids
from prior_jax.data.manifest import Manifest
from prior_jax.data.schema import TEXT_REPORT
from prior_jax.errors import ConfigError
from prior_jax.evaluate import prompt_file
from prior_jax.objectives.base import ShowsAttention
from prior_jax.objectives.classification import ClassificationObjective
from prior_jax.objectives.detection import DetectionObjective
from prior_jax.objectives.segmentation import SegmentationObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One task on one set.

    Attributes:
      set_name: name of the set.
      name: name of the results file, without its suffix.
      task: the task.
    """

    set_name: str
    name: str
    task: Task


def parts_of(suite: SuiteTask, sets: Mapping[str, str]) -> list[Part]:
    """Returns every part of a suite, whether or not it can be run.

    Raises:
      ConfigError: if a file of the suite holds no task, or holds another suite, or two files have
        results of the same name.
    """
    found: list[Part] = []
    files: dict[tuple[str, str], str] = {}
    for set_name, path in sets.items():
        for file in suite.tasks:
            task = load_task(file, where="task.tasks")
            if isinstance(task, SuiteTask):
                raise ConfigError(f"{file} is a suite itself.", "Leave it out.", where="task.tasks")
            for one, seed in _expanded(_adapted(task, suite, path), suite):
                name = f"{one.result}_seed_{seed}" if seed else one.result
                other = files.pop((set_name, name), None)
                if other is not None:
                    alike = "at two fractions" if other == file else f"as {other}"
                    raise ConfigError(
                        f"{file} writes results of the same name {alike}, {name}.",
                        "Leave one of the two out.",
                        where="task.tasks",
                    )
                files[set_name, name] = file
                found.append(Part(set_name=set_name, name=name, task=one))
    return found


def _adapted(task: Task, suite: SuiteTask, path: str) -> Task:
    """Returns the task with the suite's settings and set; what learns is measured on test alone.

    A training that keeps the length of a paper's config is not cut.
    """
    changes: dict[str, Any] = {
        "data": TaskData(path=path),
        "batch_size": suite.batch_size,
        "bootstrap": suite.bootstrap,
    }
    if not isinstance(task, ProbeTask | TrainingTask):
        changes["split"] = suite.split
    detects = isinstance(task, TrainDetectionTask)
    most = suite.detector_max_steps if detects else suite.max_steps
    if isinstance(task, TrainingTask) and most is not None and "length" not in task.finetune.keeps:
        changes["finetune"] = dataclasses.replace(task.finetune, max_steps=most)
    if not task.protocol:  # a protocol has classes of its own
        changes["min_positives"] = suite.min_positives
        if suite.classes:  # of which the task's own exclusions are no part
            changes["classes"] = suite.classes
            changes["exclude"] = task.exclude if task.exclude == USUALLY_EXCLUDED else ()
        elif suite.exclude and not task.classes:
            changes["exclude"] = suite.exclude
    return dataclasses.replace(task, **changes)


def _expanded(task: Task, suite: SuiteTask) -> list[tuple[Task, int]]:
    """Returns the probe or the training at each fraction and seed; all patients at one seed.

    A protocol that has a fraction of its own stays as it is.
    """
    if not isinstance(task, ProbeTask | TrainingTask):
        return [(task, 0)]
    if isinstance(task, TrainingTask) and "fraction" in task.finetune.keeps:
        return [(task, 0)]
    return [
        (_learning(task, fraction=fraction, seed=seed), seed)
        for fraction in (suite.region_fractions if task.learns_regions else suite.fractions)
        for seed in (suite.seeds if fraction < 1 else suite.seeds[:1])
    ]


def _learning(task: ProbeTask | TrainingTask, *, fraction: float, seed: int) -> Task:
    """Returns the task on a fraction of the patients that a seed chooses."""
    field = "probe" if isinstance(task, ProbeTask) else "finetune"
    section = dataclasses.replace(getattr(task, field), fraction=fraction, seed=seed)
    return dataclasses.replace(task, **{field: section})


def obstacle(part: Part, subject: Subject, manifest: Manifest) -> str | None:
    """Returns why a part does not apply to a model and a set; None if it does.

    Args:
      part: the part.
      subject: the model, on any set.
      manifest: manifest of the part's set.
    """
    task = part.task
    if isinstance(task, ClassificationTask):
        if not isinstance(subject.objective, ClassificationObjective):
            return "the model is no classifier"
    elif isinstance(task, DetectionTask):
        if not isinstance(subject.objective, DetectionObjective):
            return "the model is no detector"
    elif isinstance(task, SegmentationTask):
        if not isinstance(subject.objective, SegmentationObjective):
            return "the model is no segmentation model"
    elif task.reads_text and not subject.reads_reports:
        return "the model reads no text"
    splits = (*task.learns_from, task.split)
    empty = [
        name for name in splits if name not in manifest.splits or not manifest.splits[name].studies
    ]
    if empty:
        return f"the set has no record in {' and '.join(empty)}"
    labelled = ZeroShotTask | ProbeTask | ClassificationTask | FinetuneTask
    if isinstance(task, labelled) and not manifest.label_names:
        return "the set has no labels"
    reports = manifest.text_sources.get(TEXT_REPORT, 0)
    if isinstance(task, RetrievalTask | GalleryTask) and not reports:
        return "the set has no reports"
    if (isinstance(task, PhraseTask) or task.learns_regions) and not manifest.regions:
        return "the set has no boxes or masks"
    if isinstance(task, TrainSegmentationTask) and not task.protocol and not _masks(manifest):
        return (
            "the set has boxes alone, and the inside of a box is no outline of a finding; "
            "configs/eval/segmentation/any_set.py segments it, run by itself"
        )
    return _grounding_obstacle(task, subject, manifest)


def _masks(manifest: Manifest) -> int:
    """Returns the number of masks of a set."""
    return sum(one.masks for one in manifest.regions.values())


def _grounding_obstacle(task: Task, subject: Subject, manifest: Manifest) -> str | None:
    if not isinstance(task, GroundingTask):
        return None
    if not isinstance(subject.objective, ShowsAttention):
        return "the texts of the model attend to no places"
    drawn = (subject.drawn / "phantom" / "findings.jsonl").is_file()
    own = task.data.path == subject.data.path and drawn
    if not manifest.regions and not own and task.masks is None:
        return "the set has no boxes or masks"
    if task.text == "report" and not has_texts(manifest):
        return "the set has no reports whose sentences could name a finding"
    return None


def identity(part: Part, subject: Subject, manifest: Manifest) -> str:
    """Returns a hash of all that a part's results depend on: weights, set and settings."""
    settings = dataclasses.asdict(part.task)
    settings.pop("data")
    if isinstance(part.task, TrainingTask):  # the file may change under the same name
        settings["config"] = to_json(training_config(part.task.finetune, part.task.OBJECTIVE))
        settings["fraction_rule"] = FRACTION_RULE
        ids = labelled_part.ids_of(part.task, str(part.task.data.path))
        if ids is not None:
            settings["ids"] = read_ids(ids)
    if isinstance(part.task, ZeroShotTask | GroundingTask):  # and so may a file of prompts
        asked = part.task.prompts.set
        if prompt_file.is_path(asked):
            settings["prompt_file"] = list(prompt_file.read_prompts(asked).items())
    content: Sequence[Any] = (
        dict(subject.about),
        subject.given,
        subject.data.image.given(),
        manifest.fingerprint,
        settings,
    )
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
