"""From a config to objects: the only reader of a `ConfigDict`.

Sections become the dataclasses that the parts of the program define (`strict.build`): a key that
nobody reads, a missing key or a value of another type is a `ConfigError` at start-up. What follows
from other sections (image size, vocabulary, length of the stages in steps) is derived here and
must not be given twice.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prior_jax.assemble_objectives import KINDS, Placement, derive, mapping
from prior_jax.data import pipeline
from prior_jax.errors import ConfigError, DataError
from prior_jax.interop.initial import InitConfig
from prior_jax.objectives.all_pairs import AllPairsConfig
from prior_jax.objectives.base import Objective
from prior_jax.processes.watchdog import WatchdogConfig
from prior_jax.sharding import mesh as mesh_lib
from prior_jax.sharding.fsdp import fsdp_rules
from prior_jax.sharding.rules import REPLICATED, Rule
from prior_jax.strict import build
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.metrics import LogConfig
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.options import TrainOptions
from prior_jax.train.patience import EarlyStoppingConfig
from prior_jax.train.stages import PlateauConfig, Stage
from prior_jax.vocabulary import Vocabulary

CONFIG_NAME = "config.json"
SECTIONS = (
    "name",
    "seed",
    "objective",
    "model",
    "data",
    "prepare",
    "init",
    "quick_compile",
    "stage_unit",
    "stages",
    "optimizer",
    "mesh",
    "checkpoint",
    "log",
    "watchdog",
    "validate_every",
    "early_stopping",
    "after",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A stage as a config gives it; `config.stage_unit` says what lengths count.

    Attributes:
      length: epochs or steps of the stage.
      warmup: epochs or steps of the linear warm-up, part of the length.
      schedule: "cosine", "constant" or "plateau".
      plateau: when "plateau" lowers the rate, or None; the other schedules do not read it.
      learning_rate: the peak.
      learning_rate_start: that of the first step.
      learning_rate_end: that of the last, with "cosine".
      weight_decay: see `OptimizerConfig.decay`.
    """

    length: float
    warmup: float
    schedule: str
    plateau: PlateauConfig | None
    learning_rate: float
    learning_rate_start: float
    learning_rate_end: float
    weight_decay: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSection:
    """The section `config.mesh`.

    Attributes:
      axes: axis name -> size; one size may be -1 and takes the devices that the others leave.
      data_axes: axes over which the rows of a batch are split.
      bank_axis: axis over which the prototype bank is split, or None to keep it whole.
      rules: (pattern of a parameter's path, axis or None for each leading dimension), tried in
        order behind the bank's own rule; () leaves them to `fsdp_axis`.
      all_pairs: how the losses over all pairs of a batch are computed.
      fsdp_axis: axis (or axes) over which large parameters and their moments are split by the
        table of `sharding/fsdp.py`, behind `rules`; None keeps them whole.
    """

    axes: Mapping[str, int]
    data_axes: tuple[str, ...]
    bank_axis: str | None
    rules: tuple[tuple[str, tuple[str | tuple[str, ...] | None, ...]], ...]
    all_pairs: AllPairsConfig
    fsdp_axis: str | tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Radiographs and reports to draw where no data set is given.

    Attributes:
      studies: how many, over all splits.
      seed: of the drawing.
      size: pixels of an image's shorter side.
      validate: share of the patients.
      test: share of the patients.
    """

    studies: int
    seed: int
    size: int
    validate: float
    test: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What the launcher makes where it is absent; the section `config.prepare`.

    Attributes:
      phantom: drawn and prepared under the workdir if `config.data.path` is None; None where a
        prepared set must be given.
      vocab_size: pieces of the sentencepiece model trained on the set's training reports if
        `config.data.tokenizer.path` is None.
    """

    phantom: PhantomConfig | None
    vocab_size: int


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config that a run was started with, as its folder keeps it.

    Raises:
      DataError: if the folder is not that of a run.
    """
    path = workdir / CONFIG_NAME
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            str(path), received=error.strerror, accepted="a file in the workdir of launch.train"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(str(path), received=str(error), accepted="the config as JSON") from error


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuses top-level keys that nobody reads, and missing ones, by name."""
    given = set(config.keys())
    for name in sorted(given - set(SECTIONS)):
        raise ConfigError(f"config.{name}", received=config[name], accepted=", ".join(SECTIONS))
    for name in SECTIONS:
        if name not in given:
            raise ConfigError(f"config.{name}", received="nothing", accepted="a value")
    _choice(config, "objective", tuple(KINDS))
    _choice(config, "stage_unit", ("epochs", "steps"))


def prepare_config(config: Mapping[str, Any]) -> PrepareConfig:
    """The section `config.prepare`."""
    return build(PrepareConfig, config["prepare"], name="config.prepare")


def data_config(
    config: Mapping[str, Any], *, path: str | None = None, tokenizer: str | None = None
) -> pipeline.DataConfig:
    """The section `config.data`, with what the launcher prepared.

    Args:
      config: the whole config.
      path: of the prepared set, where `config.data.path` is None.
      tokenizer: path of the tokenizer, where `config.data.tokenizer.path` is None.
    """
    section = mapping(config["data"])
    section["path"] = section.get("path") or path
    section["tokenizer"] = mapping(section["tokenizer"])
    section["tokenizer"]["path"] = section["tokenizer"].get("path") or tokenizer
    section = derive(section, {"seed": config["seed"]}, name="config.data")
    return build(pipeline.DataConfig, section, name="config.data")


def made_in(workdir: pathlib.Path) -> tuple[str, str]:
    """Paths of the prepared set and of the tokenizer that a run makes where none is given."""
    return str(workdir / "data" / "set"), str(workdir / "tokenizer" / "tokenizer.model")


def placement(config: Mapping[str, Any], *, devices: Sequence[Any] | None = None) -> Placement:
    """The section `config.mesh` on the devices at hand."""
    section = build(MeshSection, config["mesh"], name="config.mesh")
    if section.bank_axis is not None and section.bank_axis not in section.axes:
        raise ConfigError(
            "config.mesh.bank_axis",
            received=section.bank_axis,
            accepted=f"one of {tuple(section.axes)}, or None",
        )
    axes = mesh_lib.MeshConfig(axes=section.axes, data_axes=section.data_axes)
    rules = tuple(Rule(pattern, spec) for pattern, spec in section.rules)
    if section.fsdp_axis is not None:
        rules += fsdp_rules(section.fsdp_axis)
    rules = rules or REPLICATED
    if section.bank_axis is not None:
        rules = (Rule("sentence_bank/.*", (section.bank_axis,)), *rules)
    return Placement(
        mesh=mesh_lib.make_mesh(axes, devices=devices),
        data_axes=section.data_axes,
        bank_axis=section.bank_axis,
        rules=rules,
        pairs=section.all_pairs,
    )


def stages(config: Mapping[str, Any], *, steps_per_epoch: int) -> tuple[Stage, ...]:
    """The section `config.stages` in steps, in the order of the objective's stages.

    Args:
      config: the whole config.
      steps_per_epoch: of the training split; used with `config.stage_unit` "epochs".

    Raises:
      ConfigError: for a stage that the objective does not have, or one without a step.
    """
    known = KINDS[config["objective"]].stages
    section = mapping(config["stages"])
    for name in section:
        if name not in known:
            raise ConfigError(f"config.stages.{name}", received=name, accepted=f"one of {known}")
    unit = steps_per_epoch if config["stage_unit"] == "epochs" else 1
    found = []
    for name in (name for name in known if name in section):
        where = f"config.stages.{name}"
        stage = build(StageConfig, section[name], name=where)
        steps, warmup_steps = round(stage.length * unit), round(stage.warmup * unit)
        _check_lengths(stage, steps, warmup_steps, unit=config["stage_unit"], where=where)
        found.append(
            Stage(
                name=name,
                steps=steps,
                schedule=stage.schedule,
                plateau=stage.plateau,
                learning_rate=stage.learning_rate,
                learning_rate_start=stage.learning_rate_start,
                learning_rate_end=stage.learning_rate_end,
                warmup_steps=warmup_steps,
                schedule_steps=None,
                weight_decay=stage.weight_decay,
            )
        )
    return tuple(found)


def _check_lengths(
    stage: StageConfig, steps: int, warmup_steps: int, *, unit: str, where: str
) -> None:
    """Refuses a stage without a step, or without one behind its warm-up."""
    if not stage.length > 0:
        raise ConfigError(
            f"{where}.length", received=stage.length, accepted=f"a number of {unit} above 0"
        )
    mend = f"lower --{where}.warmup or raise --{where}.length"
    if not 0 <= stage.warmup < stage.length:
        raise ConfigError(
            f"{where}.warmup",
            received=stage.warmup,
            accepted=f"0 or more, and less than the stage's length of {stage.length:g} {unit}: "
            f"{mend}",
        )
    if steps < 1:
        raise ConfigError(
            f"{where}.length",
            received=stage.length,
            accepted=f"{unit} that make at least one step: raise --{where}.length",
        )
    if warmup_steps >= steps:
        raise ConfigError(
            f"{where}.warmup",
            received=stage.warmup,
            accepted=f"{unit} that leave a step behind them: rounded, the warm-up takes "
            f"{warmup_steps} of the stage's {steps} steps; {mend}",
        )


def objective(
    config: Mapping[str, Any],
    *,
    vocabulary: Vocabulary,
    schedule: Sequence[Stage],
    place: Placement,
) -> Objective:
    """The section `config.model` as the objective that `config.objective` names.

    Args:
      config: the whole config.
      vocabulary: of the tokenizer.
      schedule: the stages, in steps.
      place: where the bank and the batch lie.
    """
    return KINDS[config["objective"]].make(config, vocabulary, schedule, place)


def init_config(config: Mapping[str, Any]) -> InitConfig:
    """The section `config.init`."""
    return build(InitConfig, config["init"], name="config.init")


def train_options(config: Mapping[str, Any], *, identity: Mapping[str, Any]) -> TrainOptions:
    """How the run is run; `identity` must be the same when it is resumed."""
    return TrainOptions(
        seed=_plain(config, "seed", int),
        validate_every=_plain(config, "validate_every", int),
        early_stopping=_plain(config, "early_stopping", EarlyStoppingConfig | None),
        log=build(LogConfig, config["log"], name="config.log"),
        checkpoint=checkpoint_config(config),
        watchdog=build(WatchdogConfig, config["watchdog"], name="config.watchdog"),
        identity=identity,
    )


def checkpoint_config(config: Mapping[str, Any]) -> CheckpointConfig:
    """The section `config.checkpoint`; its `folder` is where a run's checkpoints are found."""
    return build(CheckpointConfig, config["checkpoint"], name="config.checkpoint")


def quick_compile(config: Mapping[str, Any]) -> bool:
    """Whether compiling is to be quick rather than what it gives; rounding may differ."""
    return _plain(config, "quick_compile", bool)


def optimizer(config: Mapping[str, Any]) -> OptimizerConfig:
    """The section `config.optimizer`."""
    return build(OptimizerConfig, config["optimizer"], name="config.optimizer")


def after(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The evaluation configs to run once training has ended."""
    tasks = _plain(config, "after", tuple[str, ...])
    for index, task in enumerate(tasks):
        if not pathlib.Path(task).is_file():
            raise ConfigError(f"config.after[{index}]", received=task, accepted="an existing file")
    return tasks


def _choice(config: Mapping[str, Any], name: str, accepted: tuple[str, ...]) -> None:
    if config[name] not in accepted:
        raise ConfigError(f"config.{name}", received=config[name], accepted=", ".join(accepted))


def _plain(config: Mapping[str, Any], name: str, kind: Any) -> Any:
    holder = dataclasses.make_dataclass("Holder", [(name, kind)])
    return getattr(build(holder, {name: config[name]}, name="config"), name)
