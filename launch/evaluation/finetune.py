"""Runs the task "finetune": trains classifiers with the one training loop, and measures them."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from launch.evaluation import finetune_config, models, too_few
from launch.evaluation.classify import VALIDATION, measure_classification
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.tasks import ClassificationTask, FinetuneTask
from launch.start import run as run_lib
from prior_jax.config import read_config
from prior_jax.data import image as image_lib
from prior_jax.data import pipeline
from prior_jax.data.schema import write_atomically
from prior_jax.evaluate import prompts
from prior_jax.evaluate.results import TaskResult
from prior_jax.interop.initial import EncoderInit
from prior_jax.processes import distributed, lock
from prior_jax.train.measured_step import FINETUNE_MARK

FOLDER = "finetune"
"""Folder of the trainings under the folder of the results: `finetune/<result>/<model>`."""
TRAINED, RANDOM = "model", "random"

Open = Callable[[str], Opened]


def measure_trainings(
    task: FinetuneTask, subject: Subject, opened: Open, *, folder: pathlib.Path, beside: bool = True
) -> tuple[TaskResult, TaskResult]:
    """Trains and measures a classifier from the model's encoder, and one from random weights.

    A training that is done is not repeated, and one that was stopped goes on.

    Args:
      task: the task.
      subject: model on the set that is learnt.
      opened: function from the name of a split of the set to the split; it should cache it.
      folder: folder of the trainings of this task, model and set, for the task alone.
      beside: whether the classifier from random weights is wanted.

    Returns:
      Both results; those of the model without weights to start from are the random one's twice.
      The second has no metrics if it is not wanted.
    """
    classes, left_out = finetune_config.learnable(
        task, train=opened("train"), test=opened(task.split)
    )

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


def left_out(task: FinetuneTask, opened: Open) -> list[str]:
    """Returns a sentence on every label that cannot be learnt or measured."""
    _, reasons = finetune_config.learnable(task, train=opened("train"), test=opened(task.split))
    return too_few.sentences(reasons)


def _trained(
    task: FinetuneTask,
    subject: Subject,
    opened: Open,
    *,
    start: EncoderInit | None,
    classes: tuple[str, ...],
    folder: pathlib.Path,
) -> run_lib.Run:
    """Trains a classifier to its end and returns its run.

    This is what `launch.train` does with the config that the folder then holds.
    """
    from launch.train import train  # it imports this package, for the tasks after a training

    config = finetune_config.config_of(task, subject, start=start, classes=classes)
    data = read_config(config, workdir=folder).data
    data = dataclasses.replace(data, batch_size=1)
    records = pipeline.open_split(data, "train", cache_dir=subject.cache_dir).pairs
    counts = opened("train").split.manifest.splits.get(VALIDATION)
    validation = opened(VALIDATION) if counts is not None and counts.studies else None
    config = finetune_config.in_steps(
        config, task, records=records, validates=finetune_config.validates(validation, classes)
    )
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


def _measured(task: FinetuneTask, subject: Subject, run: run_lib.Run, opened: Open) -> TaskResult:
    """Measures the checkpoint that was best on the validation split, or else the last one."""
    classifier = models.of_run(run, step=None)  # of a fine-tuning this is the best one
    opened = as_trained(subject, classifier.data.image, opened)
    classifier = dataclasses.replace(classifier, data=subject.data)
    plain = ClassificationTask(
        task="classification",
        data=task.data,
        split=task.split,
        batch_size=task.batch_size,
        classes=(),
        exclude=(),
        min_positives=0,
        bootstrap=task.bootstrap,
        classification=task.classification,
    )
    found = measure_classification(plain, classifier.trained, classifier, opened)
    settings = {**found.settings, "trained_step": classifier.about["step"]}
    return dataclasses.replace(found, settings=settings)


def as_trained(subject: Subject, image: image_lib.ImageConfig, opened: Open) -> Open:
    """Returns a function that opens a split with the images that a classifier was trained on.

    They are the model's own, `opened` itself, unless `task.finetune.overrides` made others of them.
    """
    told = opened("train").split.manifest.image
    own = image_lib.with_statistics(subject.data.image, mean=told.mean, std=told.std)
    if image == own:
        return opened
    data = dataclasses.replace(subject.data, image=image)
    return functools.cache(dataclasses.replace(subject, data=data).open)


def _about(
    task: FinetuneTask, run: run_lib.Run, opened: Open, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Returns JSON values on the training, for the results file."""
    train, names = opened("train"), opened("train").split.label_names
    labels, patients = train.labels[run.data.trained], train.patients[run.data.trained]
    positives = {
        prompts.slug(name): int((labels[:, names.index(name)] == 1).sum()) for name in classes
    }
    return {
        "finetune": dataclasses.asdict(task.finetune),
        "steps": sum(stage.steps for stage in run.schedule),
        "train_batch": run.config.data.batch_size,
        "train_records": len(labels),
        "train_patients": len(set(patients.tolist())),
        "train_positives": positives,
    }
