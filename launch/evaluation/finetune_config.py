"""The config of a training that a task runs, from the model and the set."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from launch.evaluation import labelled_part
from launch.evaluation.finetune_settings import (
    FRACTION_RULE,
    FinetuneConfig,
    override,
    training_config,
)
from launch.evaluation.subject import Subject
from launch.evaluation.training_tasks import TrainingTask
from launch.evaluation.weights_model import IMAGE_ALONE
from prior_jax.data.fractions import FractionConfig
from prior_jax.interop.initial import EncoderInit
from prior_jax.train.state import define_model

_ENCODER = "image_encoder/"
_EMBEDDERS = ("new_embedders", "drop_embedders")
_POOL = ("new_pool", "drop_pool")
PLATEAU = "plateau"
POOLS = "classification"
"""The objective that reads the pooled vector of the encoder; the others read its maps."""


def config_of(
    task: TrainingTask, subject: Subject, *, start: EncoderInit | None, classes: Sequence[str]
) -> ConfigDict:
    """Returns the task's config with all that belongs to the model and the set but the steps.

    Args:
      task: the task.
      subject: model on the set that is learnt; its image encoder is that of the trained model,
        and so are its images, unless the task keeps those of the config.
      start: weights that the encoder starts from; None for random weights.
      classes: classes that are learnt.

    Raises:
      ConfigError: if the config is of another objective.
    """
    config, wanted = training_config(task.finetune, task.OBJECTIVE), task.finetune
    names = _names(subject)
    attends = any(name.startswith("pool/") for name in names)
    pooled = task.OBJECTIVE == POOLS
    with config.unlocked():
        config.name = task.result
        config.seed = wanted.seed
        config.quick_compile = bool(subject.given.get("quick_compile", False))
        config.model.update(_model(subject, attends=attends, pooled=pooled))
        config.model.classes = tuple(classes)
        _fit_decoder(config, task)
        config.data.path = subject.data.path
        config.data.threads = subject.data.threads
        config.data.memory_cache = subject.data.memory_cache
        config.data.image = _images(config, subject, own="images" in wanted.keeps)
        if "fraction" not in wanted.keeps:
            config.data.fraction = _fraction(wanted.fraction, wanted.seed)
        elif config.data.get("fraction") is not None:
            config.data.fraction.ids = labelled_part.ids_of(task, subject.data.path)
        start_section = _start(start, names, drop_pool=attends and not pooled)
        config.init = ConfigDict(dict(image=start_section, text=None))
        config.after = ()
    override(config, wanted.overrides)  # they may change which records are learnt
    return config


def in_steps(
    config: ConfigDict, task: TrainingTask, *, records: int, validates: bool
) -> ConfigDict:
    """Fills in the batch, the steps and the validations of a labelled part; returns the config.

    The batch is the config's, or for a smaller labelled part the largest power of two in it, so
    that different draws of about the same size run the same compiled program.

    Args:
      config: config from `config_of`; it is changed in place.
      task: the task, whose overrides are applied once more, over what is filled in.
      records: number of records whose labels are learnt.
      validates: whether the set can be validated on. If it cannot, rates that wait for validations
        stay where they are, and no stage ends early.
    """
    wanted, batch = task.finetune, _batch(config, records)
    with config.unlocked():
        config.data.batch_size = batch
        if "length" not in wanted.keeps or is_cut(config, wanted, records=records):
            _scale(config, wanted, epoch=records // batch)
        if not validates:
            config.validate_every = 0
            config.early_stopping = None
            config.checkpoint.update(dict(keep_best=0, best_metric=None))
            for stage in config.stages.values():
                if stage.schedule == PLATEAU:
                    stage.schedule = "constant"
    override(config, wanted.overrides)
    return config


def is_cut(config: ConfigDict, wanted: FinetuneConfig, *, records: int) -> bool:
    """Tells whether the config's own stages have more steps than the task allows."""
    return wanted.max_steps is not None and own_steps(config, records=records) > wanted.max_steps


def own_steps(config: ConfigDict, *, records: int) -> float:
    """Returns the number of steps of a config's own stages on a labelled part.

    Args:
      config: config from `config_of`.
      records: number of records whose labels are learnt.
    """
    unit = records // _batch(config, records) if config.stage_unit == "epochs" else 1
    return sum(stage.length * unit for stage in config.stages.values())


def waits(config: ConfigDict) -> list[str]:
    """Returns what of a training waits for validations, in words."""
    found = []
    if any(stage.schedule == PLATEAU for stage in config.stages.values()):
        found.append("lowering its rate")
    if config.get("early_stopping") is not None:
        found.append("ending early")
    return found


def _batch(config: ConfigDict, records: int) -> int:
    """Returns the batch size, see `in_steps`."""
    batch = config.data.batch_size
    return batch if records >= batch else 1 << (records.bit_length() - 1)


def _scale(config: ConfigDict, wanted: FinetuneConfig, *, epoch: int) -> None:
    """Gives the stages the length that the task asks for, in the config's proportions."""
    lengths = {name: float(stage.length) for name, stage in config.stages.items()}
    limits = [wanted.max_steps] if wanted.max_steps is not None else []
    if "length" not in wanted.keeps:
        limits.append(round(wanted.epochs * epoch))
    total = max(min(limits), len(lengths))
    for name, length in lengths.items():
        stage, factor = config.stages[name], total / sum(lengths.values())
        stage.update(dict(length=max(round(factor * length), 1), warmup=0))
        if stage.get("schedule_steps") is not None:
            unit = 1 if config.stage_unit == "steps" else epoch  # of a length; the plan is in steps
            stage.schedule_steps = max(round(factor * stage.schedule_steps / unit), 1)
    config.stage_unit = config.validate_unit = "steps"
    config.validate_every = max(total // wanted.validations, 1)
    config.checkpoint.every_steps = max(total, 1)


def _names(subject: Subject) -> list[str]:
    """Returns the paths of the arrays of the subject's image encoder."""
    defined = define_model(subject.objective.init)
    names = [*defined.params, *defined.rest]
    if subject.objective_name == IMAGE_ALONE:
        return names
    return [name.removeprefix(_ENCODER) for name in names if name.startswith(_ENCODER)]


def _fit_decoder(config: ConfigDict, task: TrainingTask) -> None:
    """Leaves a U-Net the finest of its blocks, one for each doubling of a small encoder's map.

    The decoder of a protocol stays as it is.
    """
    decoder = config.model.get("decoder")
    if decoder is not None and decoder.kind.startswith("unet") and not task.protocol:
        resnet = config.model.image.resnet
        doublings = len(resnet.depths) + bool(resnet.stem_pool)
        decoder.channels = tuple(decoder.channels)[-doublings:]


def _images(config: ConfigDict, subject: Subject, *, own: bool) -> ConfigDict:
    """Returns the section `config.data.image`: the subject's, or the config's own.

    The number of channels is the subject's, for it belongs to the encoder.
    """
    if not own:
        return ConfigDict(dataclasses.asdict(subject.data.image))
    channels = subject.data.image.channels
    found = {**config.data.image, "channels": channels}
    for name in ("mean", "std"):
        if found[name] is not None:
            found[name] = (found[name][0],) * channels
    return ConfigDict(found)


def _model(subject: Subject, *, attends: bool, pooled: bool) -> dict[str, Any]:
    """Returns what the section `config.model` takes over from the subject.

    Args:
      subject: model on the set that is learnt.
      attends: whether its encoder has an attention pool.
      pooled: whether the trained model reads the pooled vector, or else the maps alone.
    """
    model: Mapping[str, Any] = subject.given["model"]
    whole = subject.objective_name != IMAGE_ALONE
    image = model["image"] if whole else model
    resnet = {"remat": "none", **image["resnet"]}
    resnet.pop("in_channels", None)  # it follows from the images
    own = model.get("upsample") if whole else None
    pools = attends and pooled
    found = {
        "dtype": model.get("dtype", "float32"),
        "image": {
            "resnet": resnet,
            "pool": "attention" if pools else "mean",
            "pool_heads": image.get("pool_heads", 1) if pools else 1,
        },
    }
    return found | {"upsample": image.get("upsample", own)} if pooled else found


def _fraction(share: float, seed: int) -> ConfigDict | None:
    """Returns the section `config.data.fraction`, a share of the patients; None for all.

    One per cent of a small set is some twenty patients, of whom a draw may leave out a finding.
    """
    if share == 1:
        return None
    return ConfigDict(
        dataclasses.asdict(FractionConfig(share=share, rule=FRACTION_RULE, seed=seed))
    )


def _start(
    start: EncoderInit | None, names: Sequence[str], *, drop_pool: bool
) -> ConfigDict | None:
    """Returns the section `config.init.image`; GLoRIA's embedders are no part of what is trained.

    Args:
      start: weights that the encoder starts from.
      names: paths of the arrays of the subject's image encoder.
      drop_pool: whether its attention pool is left out as well.
    """
    if start is None:
        return None
    left = (*_EMBEDDERS, *_POOL) if drop_pool else _EMBEDDERS
    adapt = tuple(name for name in start.adapt if name not in left)
    if drop_pool:
        adapt = (*adapt, "drop_pool")
    if any(name.startswith("global_embedder/") for name in names):
        adapt = (*adapt, "drop_embedders")
    return ConfigDict(dict(path=start.path, step=start.step, adapt=adapt))
