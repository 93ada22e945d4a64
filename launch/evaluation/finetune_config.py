"""The config of a training that the task "finetune" runs, from the model and the set."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from launch.evaluation import too_few
from launch.evaluation.finetune_settings import classifier_config, override
from launch.evaluation.models import IMAGE_ALONE
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.tasks import FinetuneTask
from prior_jax.data.fractions import FractionConfig
from prior_jax.errors import ConfigError
from prior_jax.evaluate.labels import select_columns
from prior_jax.evaluate.prompts import canonical
from prior_jax.interop.initial import EncoderInit
from prior_jax.train.state import define_model

_ENCODER = "image_encoder/"
_EMBEDDERS = ("new_embedders", "drop_embedders")


def config_of(
    task: FinetuneTask, subject: Subject, *, start: EncoderInit | None, classes: Sequence[str]
) -> ConfigDict:
    """Returns the task's config with all that belongs to the model and the set but the steps.

    Args:
      task: the task.
      subject: model on the set that is learnt; its image encoder and its images are the
        classifier's.
      start: weights that the encoder starts from; None for random weights.
      classes: labels that are learnt.

    Raises:
      ConfigError: if the config is of another objective.
    """
    config, wanted = classifier_config(task.finetune), task.finetune
    names = _names(subject)
    with config.unlocked():
        config.name = task.result
        config.seed = wanted.seed
        config.quick_compile = bool(subject.given.get("quick_compile", False))
        config.model.update(_model(subject, attends=any(n.startswith("pool/") for n in names)))
        config.model.classes = tuple(classes)
        config.data.path = subject.data.path
        config.data.threads = subject.data.threads
        config.data.image = ConfigDict(dataclasses.asdict(subject.data.image))
        config.data.fraction = _fraction(wanted.fraction, wanted.seed)
        config.init = ConfigDict(dict(image=_start(start, names), text=None))
        config.after = ()
    return config


def in_steps(
    config: ConfigDict, task: FinetuneTask, *, records: int, validates: bool
) -> ConfigDict:
    """Fills in the batch, the steps and the validations of a labelled part; returns the config.

    The batch is the largest power of two that is neither above the config's nor above the labelled
    part, so that different draws of about the same size run the same compiled program.

    Args:
      config: config from `config_of`; it is changed in place.
      task: the task, whose overrides are applied last.
      records: number of records whose labels are learnt.
      validates: whether the set can be validated on.
    """
    wanted = task.finetune
    batch = 1 << (min(config.data.batch_size, records).bit_length() - 1)
    epoch = records // batch
    with config.unlocked():
        config.data.batch_size = batch
        lengths = {name: float(stage.length) for name, stage in config.stages.items()}
        total = max(min(round(wanted.epochs * epoch), wanted.max_steps), len(lengths))
        for name, length in lengths.items():
            share = total * length / sum(lengths.values())
            config.stages[name].update(dict(length=max(round(share), 1), warmup=0))
        config.stage_unit = config.validate_unit = "steps"
        config.validate_every = max(total // wanted.validations, 1) if validates else 0
        config.checkpoint.every_steps = max(total, 1)
        if not validates:
            config.early_stopping = None
            config.checkpoint.update(dict(keep_best=0, best_metric=None))
    override(config, wanted.overrides)
    return config


def learnable(
    task: FinetuneTask, *, train: Opened, test: Opened
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the classes that are learnt and measured, and the reason for each that is left out.

    Args:
      task: the task, with its classes; () asks for every label of the set that is not excluded.
      train: split whose labels are learnt; the classes are the same for each part of it.
      test: split that is measured.

    Raises:
      ConfigError: if a class is no label of the set, or no class is left.
    """
    names = train.split.label_names
    excluded = {canonical(name) for name in task.exclude}
    asked = task.classes or tuple(name for name in names if canonical(name) not in excluded)
    left_out: dict[str, str] = {}
    for split, data, least in (("train", train, 1), (task.split, test, task.min_positives)):
        columns = select_columns(
            data.labels, label_names=names, classes=asked, field="task.classes"
        )
        for name, column in zip(asked, columns.T, strict=True):
            positive, negative = _counts(column)
            counts = {"positive": positive, "negative": negative}
            if reason := too_few.reason(counts, least=least, split=split):
                left_out.setdefault(name, reason)
    kept = tuple(name for name in asked if name not in left_out)
    if not kept:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(
            f"No class can be learnt and measured ({reasons or 'the set has no labels'}).",
            "Set --task.classes, or lower --task.min_positives.",
            where="task.classes",
        )
    return kept, left_out


def validates(data: Opened | None, classes: Sequence[str]) -> bool:
    """Returns whether a validation split has a class with positives and negatives."""
    if data is None:
        return False
    columns = select_columns(
        data.labels, label_names=data.split.label_names, classes=classes, field="task.classes"
    )
    return any(min(_counts(column)) > 0 for column in columns.T)


def _counts(column: np.ndarray) -> tuple[int, int]:
    """Returns the numbers of positives and negatives; what is not mentioned is a negative."""
    return int((column == 1).sum()), int(((column == 0) | (column == -2)).sum())


def _names(subject: Subject) -> list[str]:
    """Returns the paths of the arrays of the subject's image encoder."""
    defined = define_model(subject.objective.init)
    names = [*defined.params, *defined.rest]
    if subject.objective_name == IMAGE_ALONE:
        return names
    return [name.removeprefix(_ENCODER) for name in names if name.startswith(_ENCODER)]


def _model(subject: Subject, *, attends: bool) -> dict[str, Any]:
    """Returns what the section `config.model` takes over from the subject."""
    model: Mapping[str, Any] = subject.given["model"]
    whole = subject.objective_name != IMAGE_ALONE
    image = model["image"] if whole else model
    resnet = {"remat": "none", **image["resnet"]}
    resnet.pop("in_channels", None)  # it follows from the images
    own = model.get("upsample") if whole else None
    return {
        "dtype": model.get("dtype", "float32"),
        "image": {
            "resnet": resnet,
            "pool": "attention" if attends else "mean",
            "pool_heads": image.get("pool_heads", 1) if attends else 1,
        },
        "upsample": image.get("upsample", own),
    }


def _fraction(share: float, seed: int) -> ConfigDict | None:
    """Returns the section `config.data.fraction`, a share of the patients; None for all."""
    if share == 1:
        return None
    return ConfigDict(dataclasses.asdict(FractionConfig(share=share, rule="patients", seed=seed)))


def _start(start: EncoderInit | None, names: Sequence[str]) -> ConfigDict | None:
    """Returns the section `config.init.image`; GLoRIA's embedders are no part of a classifier."""
    if start is None:
        return None
    adapt = tuple(name for name in start.adapt if name not in _EMBEDDERS)
    if any(name.startswith("global_embedder/") for name in names):
        adapt = (*adapt, "drop_embedders")
    return ConfigDict(dict(path=start.path, step=start.step, adapt=adapt))
