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
from prior_jax.evaluate.while_training import EvaluateConfig
from prior_jax.interop.initial import InitConfig
from prior_jax.near_names import no_config
from prior_jax.objectives.kinds import KINDS
from prior_jax.processes.watchdog import WatchdogConfig
from prior_jax.run_config import MeshSection, PrepareConfig, RunConfig
from prior_jax.strict import build
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.metrics import LogConfig
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.options import TrainOptions
from prior_jax.train.patience import EarlyStoppingConfig
from prior_jax.train.stages import StageConfig
from prior_jax.vocabulary import Vocabulary

CONFIG_NAME = "config.json"
STAGE_UNITS = ("epochs", "steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sections:
    """The sections of a config as they are written; mappings are read by what they need."""

    name: str
    seed: int
    objective: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    prepare: PrepareConfig
    init: InitConfig
    quick_compile: bool
    stage_unit: str
    stages: Mapping[str, Any]
    optimizer: OptimizerConfig
    mesh: MeshSection
    checkpoint: CheckpointConfig
    log: LogConfig
    watchdog: WatchdogConfig
    validate_every: int | None
    early_stopping: EarlyStoppingConfig | None
    after: tuple[str, ...]
    validate_unit: str = "steps"
    evaluate_every: int | None = 0
    evaluate: EvaluateConfig | None = None


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
    _check_tasks(sections.after)
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
        evaluate=sections.evaluate,
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
    encoder = dict(_section(model["image"], name=f"{name}.image"))
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
    try:
        return build(KINDS[objective].settings, model, name=name)
    except ConfigError as error:
        if error.where != f"{name}.image.image_size":
            raise
        # The encoder has the size from the section of the data, where alone it can be set.
        remedy = f"{error.remedy} Images are squares of this side."
        raise ConfigError(error.problem, remedy, where="config.data.image.size") from error


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
    _check_named(sections)
    if not _reads_reports(sections):
        section = _derived(section, no_text.SECTION, name="config.data")
        made_tokenizer = ""
    for key in ("path", "tokenizer"):
        if key not in section:
            raise ConfigError(
                "The setting is missing.", "Add it to the config.", where=f"config.data.{key}"
            )
    tokenizer = dict(_section(section["tokenizer"], name="config.data.tokenizer"))
    section["path"] = section["path"] or made_set
    section["tokenizer"] = tokenizer | {"path": tokenizer.get("path") or made_tokenizer}
    section = _derived(section, {"seed": sections.seed}, name="config.data")
    section["regions"] = _read_regions(sections)
    return build(DataConfig, section, name="config.data")


def _check_named(sections: _Sections) -> None:
    """Refuses empty paths, as when a variable of a script is not set: None alone makes the file."""
    if sections.data.get("path") == "":
        must_be = "the folder of a prepared set, or None"
        raise ConfigError.of_value("config.data.path", "", must_be)
    tokenizer = sections.data.get("tokenizer")
    if _reads_reports(sections) and isinstance(tokenizer, Mapping) and tokenizer.get("path") == "":
        raise ConfigError.of_value("config.data.tokenizer.path", "", "a file, or None")


def _read_regions(sections: _Sections) -> dict[str, Any] | None:
    """Returns the section on boxes and masks, with what the objective makes of them."""
    where = "config.data.regions"
    kind, given = KINDS[sections.objective].regions, sections.data.get("regions")
    if kind is None and given is not None:
        raise ConfigError(
            f"The objective {sections.objective!r} reads neither boxes nor masks.",
            "Leave the section out.",
            where=where,
        )
    if kind is None:
        return None
    if given is None:
        raise ConfigError("The section is missing.", "Add it to the config.", where=where)
    learnt = {"kind": kind, "classes": sections.model.get("classes", ())}
    return _derived(given, learnt, name=where)


def _reads_reports(sections: _Sections) -> bool:
    return KINDS[sections.objective].reads_reports


def _check_tasks(after: tuple[str, ...]) -> None:
    """Refuses a task, `FILE.py` or `FILE.py:ARGUMENT`, whose file does not exist."""
    for index, task in enumerate(after):
        file, argument, _ = task.partition(".py:")
        path = f"{file}.py" if argument else task
        if not pathlib.Path(path).is_file():
            raise ConfigError(
                no_config(path), "Give a file of configs/eval.", where=f"config.after[{index}]"
            )


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
            validate_every=sections.validate_every or 0,
            evaluate_every=sections.evaluate_every or 0,
            evaluation={} if sections.evaluate is None else dataclasses.asdict(sections.evaluate),
            early_stopping=sections.early_stopping,
            log=sections.log,
            checkpoint=sections.checkpoint,
            watchdog=sections.watchdog,
        )


def _derived(section: Mapping[str, Any], values: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Adds what follows from other sections; giving it as well is an error."""
    section = _section(section, name=name)
    for key, value in values.items():
        if key in section:
            raise ConfigError(
                f"The value is {section[key]!r}, but the setting follows from others and is "
                f"{value!r}.",
                "Remove it from the config.",
                where=f"{name}.{key}",
            )
    return {**section, **values}


def _section(value: Any, *, name: str) -> Mapping[str, Any]:
    """Returns a section; refuses any other value."""
    if not isinstance(value, Mapping):
        raise ConfigError.of_value(name, value, "a section: names, each with a value")
    return value


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        known = ", ".join(map(repr, accepted))
        raise ConfigError.of_value(f"config.{name}", value, f"one of {known}")
