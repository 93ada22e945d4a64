"""The variants that a sweep compares: every arm at every point of its space, with its config."""

import dataclasses
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any

import numpy as np

from launch.sweeps.config import Budget, Overrides, Source, Sweep
from launch.sweeps.flat_settings import flat
from prior_jax.config import read_config
from prior_jax.errors import ConfigError

# Settings that the sweep itself gives to every trial -> what gives them.
_OWN = {
    "seed": "sweep.seeds",
    "after": "sweep.tasks",
    "data.path": "sweep.data",
    "data.tokenizer.path": "sweep.data",
}
_OF_BUDGET = {"stage_unit": "sweep.budget", "data.batch_size": "sweep.budget"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """An arm at one point of the space; its trials differ only in their seed.

    Attributes:
      name: name of the arm, with the number of the point if there is a space.
      arm: name of the arm.
      config: file of the config.
      point: overrides of the point in the space.
      overrides: all overrides: shared, the arm's, the point's, the budget's and the tasks.
      resolved: flat config with the overrides, without seed and data, for comparisons.
    """

    name: str
    arm: str
    config: str
    point: Overrides
    overrides: Overrides
    resolved: Mapping[str, Any]


def variants(sweep: Sweep) -> list[Variant]:
    """Returns every arm at every point, after checking each config with its overrides.

    Raises:
      ConfigError: if a config lacks an overridden setting, if the sweep itself sets it in every
        trial, or if a stage may end before its budget; the message names arm and key.
    """
    _check_own(sweep)
    points = sweep.space.points() if sweep.space else [()]
    found = []
    for arm in sweep.arms:
        for number, point in enumerate(points):
            where = f"sweep.arms.{arm.name}"
            overrides = (*sweep.shared, *arm.overrides, *point, ("after", sweep.tasks))
            config = resolve(Source(config=arm.config, overrides=overrides), where=where)
            if sweep.budget is not None:
                spent = _budget(config, sweep.budget, where=where)
                overrides = (*overrides, *spent)
                apply(config, spent, where=where)
            read_config(config, workdir=pathlib.Path())
            found.append(
                Variant(
                    name=f"{arm.name}_{number}" if sweep.space else arm.name,
                    arm=arm.name,
                    config=arm.config,
                    point=point,
                    overrides=overrides,
                    resolved=flat(config),
                )
            )
    return found


def _check_own(sweep: Sweep) -> None:
    """Refuses overrides that would have no effect, as the sweep sets them in every trial."""
    own = _OWN if sweep.budget is None else {**_OWN, **_OF_BUDGET}
    keys = [("sweep.shared", key) for key, _ in sweep.shared]
    for arm in sweep.arms:
        keys += [(f"sweep.arms.{arm.name}.overrides", key) for key, _ in arm.overrides]
    keys += [
        ("sweep.space.choices", one.key) for one in (sweep.space.choices if sweep.space else ())
    ]
    for where, key in keys:
        if key in own:
            raise ConfigError(
                f"{own[key]} sets {key!r} in every trial, so that this value would have no effect.",
                f"Leave it out, or change {own[key]}.",
                where=f"{where}.{key}",
            )


def resolve(source: Source, *, where: str) -> Any:
    """Returns a config with its overrides applied.

    Raises:
      ConfigError: if the file is no config, or if an override names no setting of the config or
        has another type.
    """
    path, _, argument = source.config.partition(":")
    if not pathlib.Path(path).is_file():
        raise ConfigError(
            f"{path} does not exist.", "Give a file of configs.", where=f"{where}.config"
        )
    make = runpy.run_path(path)["get_config"]
    config = make(argument) if argument else make()
    config.lock()
    return apply(config, source.overrides, where=where)


def apply(config: Any, overrides: Overrides, *, where: str) -> Any:
    """Sets values in place; every key must exist already."""
    for key, value in overrides:
        try:
            _check_readable(config, key)
            config.update_from_flattened_dict({key: value})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"The config has no setting {key!r} that the value {value!r} can override "
                f"({' '.join(str(error).split())}).",
                "Correct the name or the value of the override.",
                where=f"{where}.overrides.{key}",
            ) from error
    return config


def _check_readable(config: Any, key: str) -> None:
    """Refuses a key that a command line cannot set, since trials get their overrides by flags."""
    *way, last = key.split(".")
    for name in way:
        config = config[name]
    if config.get_type(last) is type(None):
        raise TypeError("it is None and of no type, which a command line cannot change")


def _budget(config: Any, budget: Budget, *, where: str) -> Overrides:
    """Returns overrides that divide the steps among the stages in proportion to their lengths."""
    if config.early_stopping is not None:
        raise ConfigError(
            f"Early stopping is {flat(config.early_stopping)}, but with a budget every trial does "
            "all its steps.",
            "Add ('early_stopping', None) to the overrides, or set budget=None in the sweep.",
            where=f"{where}.early_stopping",
        )
    lengths = {name: float(stage.length) for name, stage in config.stages.items()}
    # In the order of the stages; the ends are rounded, so the steps of the stages add up.
    ends = np.cumsum(list(lengths.values())) / sum(lengths.values()) * budget.steps
    steps = np.diff(np.rint(ends).astype(int), prepend=0)
    if steps.min() < 1:
        raise ConfigError(
            f"The budget is {budget.steps} steps, which leaves a stage without a step.",
            f"Raise it to at least one step for each of the stages {', '.join(lengths)}.",
            where="sweep.budget.steps",
        )
    found: list[tuple[str, Any]] = [
        ("stage_unit", "steps"),
        ("data.batch_size", budget.batch_size),
    ]
    for (name, length), count in zip(lengths.items(), steps.tolist(), strict=True):
        stage = config.stages[name]
        found.append((f"stages.{name}.length", type(stage.length)(count)))
        warmup = round(stage.warmup * count / length)
        found.append((f"stages.{name}.warmup", type(stage.warmup)(warmup)))
    return tuple(found)
