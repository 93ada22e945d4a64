"""Runs the tasks that train: models of an objective by the one training loop, then measured."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from launch.evaluation import finetune_config, labelled_part, learnt, models, too_few
from launch.evaluation.classify import VALIDATION
from launch.evaluation.finetune_settings import training_config
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.task_results import measure
from launch.evaluation.training_tasks import TrainingTask
from launch.start import run as run_lib
from prior_jax import near_names
from prior_jax.config import read_config
from prior_jax.data import image as image_lib
from prior_jax.data import pipeline
from prior_jax.data.manifest import ImageStatistics
from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError
from prior_jax.evaluate.results import TaskResult
from prior_jax.interop.initial import EncoderInit
from prior_jax.processes import distributed, lock
from prior_jax.train.measured_step import FINETUNE_MARK

FOLDER = "finetune"
"""Folder of the trainings under the folder of the results: `finetune/<result>/<model>`."""
TRAINED, RANDOM = "model", "random"

Open = Callable[[str], Opened]


def measure_trainings(
    task: TrainingTask, subject: Subject, opened: Open, *, folder: pathlib.Path, beside: bool = True
) -> tuple[TaskResult, TaskResult]:
    """Trains and measures a model from the subject's encoder, and one from random weights.

    A training that is done is not repeated, and one that was stopped goes on.

    Args:
      task: the task.
      subject: model on the set that is learnt.
      opened: function from the name of a split of the set to the split; it should cache it.
      folder: folder of the trainings of this task, model and set, for the task alone.
      beside: whether the model from random weights is wanted.

    Returns:
      Both results; those of the model without weights to start from are the random one's twice.
      The second has no metrics if it is not wanted.
    """
    classes, left_out = learnt.learnable(task, train=opened("train"), test=opened(task.split))

    def one(name: str, start: EncoderInit | None) -> TaskResult:
        run = _trained(task, subject, opened, start=start, classes=classes, folder=folder / name)
        found = _measured(task, subject, run, opened)
        settings = {**found.settings, "left_out": left_out, **_about(task, run, opened, classes)}
        return dataclasses.replace(found, settings=settings)

    if subject.source is None:
        found = one(RANDOM, None)
        return found, found
    found = one(TRAINED, subject.source)
    if not beside:
        return found, TaskResult(metrics={}, settings={})
    return found, one(RANDOM, None)


def title(subject: Subject, found: Sequence[TaskResult]) -> str:
    """Returns the steps of the pre-training and of the fine-tunings that were measured."""
    steps = [f"step {one.settings['trained_step']} of {one.settings['steps']}" for one in found]
    if subject.source is None:
        return f"fine-tuning from random weights: {steps[0]}"
    pre_training = f"pre-trained weights: {pathlib.Path(str(subject.source.path)).name}"
    if "run" in subject.about:
        pre_training = f"pre-training: step {subject.about['step']}"
    return f"{pre_training}; fine-tuning: {steps[0]}; fine-tuning from random weights: {steps[1]}"


def left_out(task: TrainingTask, opened: Open) -> list[str]:
    """Returns a sentence on every class that cannot be learnt or measured."""
    _, reasons = learnt.learnable(task, train=opened("train"), test=opened(task.split))
    return too_few.sentences(reasons)


def remarks(task: TrainingTask, subject: Subject, opened: Open) -> list[str]:
    """Returns sentences on what makes a training another one than that of its config."""
    said, wanted = labelled_part.remarks(task, subject.data.path), task.finetune
    classes, _ = learnt.learnable(task, train=opened("train"), test=opened(task.split))
    waits = finetune_config.waits(training_config(wanted, task.OBJECTIVE))
    if waits and not _validates(task, opened, classes):
        of_labels = "class with a positive and a negative record"
        what = "finding of the classes" if task.learns_regions else of_labels
        said.append(
            f"the set has no {what} to validate on, so that {wanted.config} is trained without "
            f"{' and '.join(waits)}, and its last checkpoint is measured"
        )
    if "length" not in wanted.keeps or wanted.max_steps is None:
        return said
    config = finetune_config.config_of(task, subject, start=None, classes=classes)
    records = _records(config, subject)
    if finetune_config.is_cut(config, wanted, records=records):
        steps = finetune_config.own_steps(config, records=records)
        said.append(
            f"the training is cut to {wanted.max_steps} of the {steps:.0f} steps of "
            f"{wanted.config}, so that its numbers do not compare with those of the whole one"
        )
    return said


def _records(config: ConfigDict, subject: Subject) -> int:
    """Returns the number of records that a config from `finetune_config.config_of` learns from."""
    data = read_config(config, workdir=subject.cache_dir).data
    data = dataclasses.replace(data, batch_size=1)
    try:
        return pipeline.open_split(data, "train", cache_dir=subject.cache_dir).pairs
    except DataError as error:
        if not error.where.startswith("config.data.fraction.ids"):
            raise
        raise DataError(
            error.problem,
            "Prepare the set with these records in its split train, or train without them by "
            "--task.finetune.overrides=\"('data.fraction.absent=leave_out',)\".",
            where=error.where,
        ) from error


def _validates(task: TrainingTask, opened: Open, classes: Sequence[str]) -> bool:
    """Returns whether the set has a validation split that the classes can be measured on."""
    counts = opened("train").split.manifest.splits.get(VALIDATION)
    validation = opened(VALIDATION) if counts is not None and counts.studies else None
    return learnt.validates(task, validation, classes)


def _trained(
    task: TrainingTask,
    subject: Subject,
    opened: Open,
    *,
    start: EncoderInit | None,
    classes: tuple[str, ...],
    folder: pathlib.Path,
) -> run_lib.Run:
    """Trains a model to its end and returns its run.

    This is what `launch.train` does with the config that the folder then holds.
    """
    from launch.train import train  # it imports this package, for the tasks after a training

    config = finetune_config.config_of(task, subject, start=start, classes=classes)
    records = _records(config, subject)
    validates = _validates(task, opened, classes)
    config = finetune_config.in_steps(config, task, records=records, validates=validates)
    read = read_config(config, workdir=folder)
    run_lib.check_fits(read, subject.place)
    settings = run_lib.identity_of_settings(read)
    if distributed.is_primary():
        others = ("seed", "stages", "validate_every", "early_stopping", "checkpoint")
        told = {f"config.{name}": read.given[name] for name in others}
        fingerprint = opened("train").split.manifest.fingerprint
        _make_way(folder, {**settings, **told, "set": fingerprint})
    distributed.barrier("folder of the training")
    run_lib.make_workdir(folder)
    with lock.only_run(folder):
        run = run_lib.open_run(read, subject.place, folder, cache_dir=subject.cache_dir)
        options = dataclasses.replace(
            read.options(steps_per_epoch=run.data.steps_per_epoch()),
            identity=run_lib.identity(settings, run.data),
        )
        run_lib.save_config(read, folder)
        train(run, options)
    return run


def _make_way(folder: pathlib.Path, wanted: dict[str, Any]) -> None:
    """Removes a training of other weights, another set or other settings from its folder."""
    mark, aside = folder / FINETUNE_MARK, folder.with_name(f".{folder.name}.replaced")
    text = json.dumps(wanted, sort_keys=True, indent=2, default=str) + "\n"
    shutil.rmtree(aside, ignore_errors=True)  # of a removal that was stopped
    if folder.exists() and not (mark.is_file() and mark.read_text() == text):
        logging.info(
            "%s: trained anew, for the weights, the set or the settings are others", folder
        )
        os.replace(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, text.encode())


def _measured(task: TrainingTask, subject: Subject, run: run_lib.Run, opened: Open) -> TaskResult:
    """Measures the checkpoint that was best on the validation split, or else the last one."""
    trained = models.of_run(run, step=None)  # of a fine-tuning this is the best one
    told = opened("train").split.manifest.image
    data = read_as_trained(subject.data, trained.data, told=told)
    trained = dataclasses.replace(trained, data=data)
    # Splits that are read alike are opened once for all trainings.
    splits = opened if data == subject.data else functools.cache(trained.open)
    found = measure(task.measured, trained.trained, subject=trained, opened=splits)
    settings = {**found.settings, "trained_step": trained.about["step"]}
    return dataclasses.replace(found, settings=settings)


def read_as_trained(
    own: pipeline.DataConfig, trained: pipeline.DataConfig, *, told: ImageStatistics
) -> pipeline.DataConfig:
    """Returns how a set is read to measure a training on it.

    Args:
      own: how the model that was trained from reads the set.
      trained: how the training read it; its images may differ, as by `task.finetune.overrides`, and
        it may read boxes or masks.
      told: statistics of the images of the set.

    Returns:
      `own` with the images and regions of the training; `own` itself if they are the same.
    """
    image = image_lib.with_statistics(own.image, mean=told.mean, std=told.std)
    if trained.image == image and trained.regions == own.regions:
        return own
    return dataclasses.replace(own, image=trained.image, regions=trained.regions)


def _about(
    task: TrainingTask, run: run_lib.Run, opened: Open, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Returns JSON values on the training, for the results file."""
    part = opened("train").part(run.data.trained)
    counts = learnt.counted(task, part, classes)
    positives = {near_names.slug(name): next(iter(each.values())) for name, each in counts.items()}
    return {
        "finetune": dataclasses.asdict(task.finetune),
        "steps": sum(stage.steps for stage in run.schedule),
        "train_batch": run.config.data.batch_size,
        "train_records": len(part.texts),
        "train_patients": len(set(part.patients.tolist())),
        "train_positives": positives,
    }
