"""A run's config, read once: every section as a frozen dataclass, checked.

Programs read a config at their door with `read_config` and hand `RunConfig` or one of its sections
on; nothing after that sees an `ml_collections.ConfigDict`. A key that nobody reads, a missing key
or a value of another type is a `ConfigError` that names it. What follows from other sections (image
size, channels, seed of the data) is filled in here and must not be given twice.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.data import no_text
from prior_jax.data.pipeline import DataConfig
from prior_jax.data.tokenizer import unknown_vocabulary
from prior_jax.errors import ConfigError, DataError, in_section
from prior_jax.interop.initial import InitConfig
from prior_jax.objectives.all_pairs import AllPairsConfig
from prior_jax.objectives.kinds import KINDS
from prior_jax.processes.watchdog import WatchdogConfig
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.strict import build
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.metrics import LogConfig
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.options import TrainOptions
from prior_jax.train.patience import EarlyStoppingConfig
from prior_jax.train.stages import Stage, StageConfig
from prior_jax.vocabulary import Vocabulary

CONFIG_NAME = "config.json"
STAGE_UNITS = ("epochs", "steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSection(MeshConfig):
    """The section `config.mesh`: a config has to say what `MeshConfig` leaves to defaults.

    Attributes:
      all_pairs: how the losses over all pairs of a batch are computed.
    """

    bank_axis: str | None = dataclasses.field()
    rules: tuple[tuple[str, tuple[str | tuple[str, ...] | None, ...]], ...] = dataclasses.field()
    all_pairs: AllPairsConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Radiographs and reports to draw where no data set is given.

    Attributes:
      studies: number of studies over all splits.
      seed: seed of the drawing.
      size: pixels of an image's shorter side.
      validate: share of the patients in the split "validate".
      test: share of the patients in the split "test".
    """

    studies: int
    seed: int
    size: int
    validate: float
    test: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What a run makes where it is absent; the section `config.prepare`.

    Attributes:
      phantom: drawn and prepared under the workdir if `config.data.path` is None; None where a
        prepared set must be given.
      vocab_size: pieces of the sentencepiece model trained on the set's training reports if
        `config.data.tokenizer.path` is None; not to be given where no reports are read.
    """

    phantom: PhantomConfig | None
    vocab_size: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a run is told.

    Attributes:
      given: the config as it was given, JSON values; a run keeps it and is known by it.
      name: name of the run, for people.
      objective: which objective is trained, a key of `objectives.kinds.KINDS`.
      model: settings of the objective, the dataclass `KINDS[objective].settings`. What only the
        tokenizer knows is that of a tokenizer of `prepare.vocab_size` pieces; `assemble.objective`
        puts the opened tokenizer's in its place.
      data: the section `config.data`; paths that were not given are those under the workdir.
      makes_set: whether the prepared set is drawn and made by the run.
      makes_tokenizer: whether the tokenizer is trained by the run.
      prepare: what the run makes where it is absent.
      init: weights that the run starts from.
      quick_compile: whether compiling is to be quick rather than its result; rounding may differ.
      stage_unit: what the lengths of the stages count, "epochs" or "steps".
      stages: stages in the order of the objective.
      optimizer: settings of the optimizer that the stages share.
      mesh: how the devices are laid out.
      train: seed, logging, checkpoints, validation and watchdog; `options` has the steps between
        validations.
      validate_unit: what `config.validate_every` counts, "steps" or "epochs" (which needs stages in
        epochs).
      after: paths of the evaluation configs to run once training has ended.
    """

    given: Mapping[str, Any]
    name: str
    objective: str
    model: Any
    data: DataConfig
    makes_set: bool
    makes_tokenizer: bool
    prepare: PrepareConfig
    init: InitConfig
    quick_compile: bool
    stage_unit: str
    stages: tuple[StageConfig, ...]
    optimizer: OptimizerConfig
    mesh: MeshSection
    train: TrainOptions
    after: tuple[str, ...]
    validate_unit: str = "steps"

    def __post_init__(self):
        """Refuses sections that do not fit together."""
        if not self.stages:
            known = KINDS[self.objective].stages
            raise ConfigError(
                "The config has no stage, so there is nothing to train.",
                f"Give one or more of the stages {', '.join(known)}.",
                where="config.stages",
            )
        if self.validate_unit == "epochs" and self.stage_unit != "epochs":
            raise ConfigError(
                "Validations are counted in epochs, and stages in steps.",
                "Count both in epochs, or validations in steps.",
                where="config.validate_unit",
            )
        rows = self.data.batch_size // self.optimizer.accumulate_steps
        with in_section("config.model"):
            KINDS[self.objective].check_rows(self.model, rows)

    @property
    def repeats_release(self) -> bool:
        """Returns whether the run repeats the authors' release of PRIOR throughout.

        That is, in its model, text and tokenizer. A run that departs from the release in any of
        these compares fidelities, as the arm of `configs/sweeps/objectives.py` does.
        """
        return (
            self.objective == "prior"
            and self.model.fidelity == "release"
            and self.data.text_mode == "release"
            and self.data.tokenizer.kind == "wordpiece"
        )

    def check_data(self) -> None:
        """Refuses a config that names no data set or tokenizer, and cannot make one.

        Raises:
          ConfigError: naming the flag to give.
        """
        if self.makes_set and self.prepare.phantom is None:
            raise ConfigError(
                "There is no data set: the path is None, and config.prepare.phantom, which would "
                "be drawn instead, is None too.",
                "Give --config.data.path=DIR, the folder of a prepared set.",
                where="config.data.path",
            )
        if self.makes_tokenizer and self.data.tokenizer.kind != "sentencepiece":
            raise ConfigError(
                "There is no tokenizer: the path is None, and a run cannot make a tokenizer of "
                f"the kind {self.data.tokenizer.kind!r}.",
                "Give --config.data.tokenizer.path=FILE, a vocab.txt or tokenizer.json.",
                where="config.data.tokenizer.path",
            )

    def options(self, *, steps_per_epoch: int) -> TrainOptions:
        """Returns the options of training, with the steps between validations."""
        every = self.train.validate_every
        if self.validate_unit == "epochs":
            every *= steps_per_epoch
        return dataclasses.replace(self.train, validate_every=every)

    def schedule(self, *, steps_per_epoch: int) -> tuple[Stage, ...]:
        """Returns the stages in steps.

        Args:
          steps_per_epoch: steps of an epoch of the training split; lengths in steps ignore it.

        Raises:
          ConfigError: for a stage without a step, or without one after its warm-up.
        """
        found = []
        for stage in self.stages:
            with in_section(f"config.stages.{stage.name}"):
                found.append(stage.in_steps(steps_per_epoch))
        return tuple(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sections:
    """The sections of a config as they are written; those of `Any` are read by what they need."""

    name: str
    seed: int
    objective: str
    model: Any
    data: Any
    prepare: PrepareConfig
    init: InitConfig
    quick_compile: bool
    stage_unit: str
    stages: Any
    optimizer: OptimizerConfig
    mesh: MeshSection
    checkpoint: CheckpointConfig
    log: LogConfig
    watchdog: WatchdogConfig
    validate_every: int
    early_stopping: EarlyStoppingConfig | None
    after: tuple[str, ...]
    validate_unit: str = "steps"


def read_config(given: Any, *, workdir: pathlib.Path) -> RunConfig:
    """Reads and checks a whole config.

    Args:
      given: a `ConfigDict` or a mapping with all sections.
      workdir: folder of the run, in which it makes a prepared set and a tokenizer where none is
        given; it need not exist.

    Raises:
      ConfigError: naming what is unknown, missing, of another type or does not fit the rest.
    """
    plain = to_json(given)
    sections = build(_Sections, plain, name="config")
    _check_choice("objective", sections.objective, tuple(KINDS))
    _check_choice("stage_unit", sections.stage_unit, STAGE_UNITS)
    _check_choice("validate_unit", sections.validate_unit, STAGE_UNITS)
    for index, task in enumerate(sections.after):
        if not pathlib.Path(task).is_file():
            raise ConfigError(
                f"There is no file {task}.",
                "Give a file of configs/eval.",
                where=f"config.after[{index}]",
            )
    _check_vocab_size(sections)
    data = _read_data(sections, workdir=workdir)
    return RunConfig(
        given=plain,
        name=sections.name,
        objective=sections.objective,
        model=read_model(
            sections.objective,
            sections.model,
            image={"channels": data.image.channels, "size": data.image.size},
            vocabulary=unknown_vocabulary(sections.prepare.vocab_size),
        ),
        data=data,
        makes_set=not sections.data["path"],
        makes_tokenizer=_reads_reports(sections) and not sections.data["tokenizer"]["path"],
        prepare=sections.prepare,
        init=sections.init,
        quick_compile=sections.quick_compile,
        stage_unit=sections.stage_unit,
        stages=_read_stages(sections),
        optimizer=sections.optimizer,
        mesh=sections.mesh,
        train=_read_options(sections),
        after=sections.after,
        validate_unit=sections.validate_unit,
    )


def read_kept_config(workdir: pathlib.Path) -> RunConfig:
    """Reads the config that a run was started with, as its folder keeps it.

    Raises:
      DataError: if the folder is not that of a run.
      ConfigError: if the config is not one of this version.
    """
    return read_config(kept_json(workdir), workdir=workdir)


def kept_json(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the config that a run's folder keeps, as JSON values.

    Raises:
      DataError: if the folder is not that of a run.
    """
    path = workdir / CONFIG_NAME
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            f"{workdir} is not the folder of a run: {CONFIG_NAME} cannot be read "
            f"({error.strerror}).",
            "Give the --workdir of a launch.train run.",
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"The file is damaged: it is not JSON ({error}).",
            "Restore it from a copy, or train in a new --workdir.",
            where=str(path),
        ) from error


def read_model(
    objective: str, section: Mapping[str, Any], *, image: Mapping[str, Any], vocabulary: Vocabulary
) -> Any:
    """Reads the section `config.model` as the settings of an objective.

    Args:
      objective: key of `KINDS`.
      section: the section.
      image: "size" in pixels and "channels" of the images that the model sees.
      vocabulary: vocabulary of the tokenizer.

    Returns:
      An instance of `KINDS[objective].settings`.

    Raises:
      ConfigError: naming what is unknown, missing, given twice or does not fit.
    """
    name, model = "config.model", dict(section)
    reads_reports = KINDS[objective].reads_reports
    for part in ("image", "text") if reads_reports else ("image",):
        if part not in model:
            raise ConfigError(
                "The section is missing.", "Add it to the config.", where=f"{name}.{part}"
            )
    encoder = dict(model["image"])
    encoder["resnet"] = _derived(
        encoder.get("resnet", {}),
        {"in_channels": image["channels"]},
        name=f"{name}.image.resnet",
    )
    model["image"] = _derived(encoder, {"image_size": image["size"]}, name=f"{name}.image")
    if reads_reports:
        model["text"] = _derived(
            model["text"],
            {"vocab_size": vocabulary.size, "pad_token": vocabulary.pad},
            name=f"{name}.text",
        )
    for part, values in KINDS[objective].derived.items():
        model[part] = _derived(model.get(part, {}), values, name=f"{name}.{part}")
    return build(KINDS[objective].settings, model, name=name)


def made_in(workdir: pathlib.Path) -> tuple[str, str]:
    """Returns the paths of the prepared set and the tokenizer that a run makes for itself."""
    return str(workdir / "data" / "set"), str(workdir / "tokenizer" / "tokenizer.model")


def to_json(given: Any) -> dict[str, Any]:
    """Returns a config, or a section of one, as JSON values."""
    plain = given.to_dict() if hasattr(given, "to_dict") else given
    return json.loads(json.dumps(plain))


def _read_data(sections: _Sections, *, workdir: pathlib.Path) -> DataConfig:
    made_set, made_tokenizer = made_in(workdir)
    section = dict(sections.data)
    if not _reads_reports(sections):
        section = _derived(section, no_text.SECTION, name="config.data")
        made_tokenizer = ""
    for key in ("path", "tokenizer"):
        if key not in section:
            raise ConfigError(
                "The setting is missing.", "Add it to the config.", where=f"config.data.{key}"
            )
    tokenizer = dict(section["tokenizer"])
    section["path"] = section["path"] or made_set
    section["tokenizer"] = tokenizer | {"path": tokenizer.get("path") or made_tokenizer}
    section = _derived(section, {"seed": sections.seed}, name="config.data")
    return build(DataConfig, section, name="config.data")


def _reads_reports(sections: _Sections) -> bool:
    return KINDS[sections.objective].reads_reports


def _check_vocab_size(sections: _Sections) -> None:
    """Refuses a run that reads reports without a size for the tokenizer it may make."""
    if _reads_reports(sections) and sections.prepare.vocab_size < 1:
        raise ConfigError.of_value(
            "config.prepare.vocab_size", sections.prepare.vocab_size, "a positive integer"
        )


def _read_stages(sections: _Sections) -> tuple[StageConfig, ...]:
    known = KINDS[sections.objective].stages
    for name in sections.stages:
        if name not in known:
            raise ConfigError(
                f"The objective {sections.objective!r} has no stage {name!r}.",
                f"Use the stages {', '.join(known)}.",
                where=f"config.stages.{name}",
            )
    return tuple(
        build(
            StageConfig,
            _derived(
                sections.stages[name],
                {"name": name, "unit": sections.stage_unit},
                name=f"config.stages.{name}",
            ),
            name=f"config.stages.{name}",
        )
        for name in known
        if name in sections.stages
    )


def _read_options(sections: _Sections) -> TrainOptions:
    with in_section("config"):
        return TrainOptions(
            seed=sections.seed,
            validate_every=sections.validate_every,
            early_stopping=sections.early_stopping,
            log=sections.log,
            checkpoint=sections.checkpoint,
            watchdog=sections.watchdog,
        )


def _derived(section: Mapping[str, Any], values: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Adds what follows from other sections; giving it as well is an error."""
    for key, value in values.items():
        if key in section:
            raise ConfigError(
                f"The value is {section[key]!r}, but the setting follows from others and is "
                f"{value!r}.",
                "Remove it from the config.",
                where=f"{name}.{key}",
            )
    return {**section, **values}


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        known = ", ".join(map(repr, accepted))
        raise ConfigError.of_value(f"config.{name}", value, f"one of {known}")
