"""Refuses flags of launch.bench before anything is measured."""

import math
import pathlib
from collections.abc import Sequence

from absl import flags

from launch.benchmarks.alone import UNTIMED
from launch.benchmarks.catalogue import BENCHMARKS, CHOICES
from launch.benchmarks.turns import check_peer
from launch.start import output_file
from prior_jax.errors import ConfigError


def check(values: flags.FlagValues) -> None:
    """Refuses flags that do not fit together, and what cannot be started or written.

    Raises:
      ConfigError: naming the flag.
    """
    _check_pairs(values)
    if values.peer is not None:
        check_peer(values.peer)
    if values.out is not None:
        output_file.check_file(pathlib.Path(values.out), where="--out")


def check_read(values: flags.FlagValues, names: Sequence[str]) -> None:
    """Refuses flags that none of the benchmarks reads.

    Args:
      values: the flags.
      names: names of the benchmarks that are to be measured.

    Raises:
      ConfigError: naming the flag, and the benchmarks that read it.
    """
    for flag in CHOICES:
        readers = [name for name, one in BENCHMARKS.items() if flag in one.reads]
        if values[flag].present and not {*readers} & {*names}:
            raise ConfigError(
                f"None of the benchmarks {', '.join(names)} reads it.",
                f"Leave out --{flag}, or choose one of {', '.join(readers)}.",
                where=f"--{flag}",
            )


def _check_pairs(values: flags.FlagValues) -> None:
    """Refuses flags that do not fit together."""
    suite, mode = values.suite, values.mode
    refused = {
        "only": suite is not None and "A suite chooses its benchmarks.",
        "batch": suite == "gpu" and "The suite gpu chooses the batches.",
        "dtype": suite == "gpu" and "The suite gpu chooses the dtypes.",
        "peer": (suite == "gpu" or mode != "alone") and "A peer needs processes that take turns.",
        "against": mode != "alone" and f"With --mode={mode} nothing is compared.",
        "threshold": values.against is None and "Only a comparison, with --against, reads it.",
        "seconds": suite != "gpu" and "Only --suite=gpu has a budget.",
        "trace": values.peer is not None and "Programs that take turns leave no trace.",
    }
    for name in UNTIMED.get(mode, ()):
        refused[name] = f"With --mode={mode} no blocks are timed."
    for name, problem in refused.items():
        if values[name].present and problem:
            raise ConfigError(problem, f"Leave out --{name}.", where=f"--{name}")
    for name in ("threshold", "seconds"):
        if not math.isfinite(values[name].value):
            raise ConfigError.of_value(f"--{name}", values[name].value, "a finite number")
    if suite is not None and mode != "alone":
        raise ConfigError(
            "A suite starts processes of its own.", "Leave out --mode.", where="--mode"
        )
    if suite == "gpu_beside" and values.peer is None:
        raise ConfigError(
            "The suite gpu_beside needs a program to take turns with.",
            "Give --peer=COMMAND.",
            where="--peer",
        )
    if mode == "turns" and len(values.only) != 1:
        raise ConfigError(
            f"{len(values.only)} benchmarks are named, and one can take turns.",
            "Give --only once.",
            where="--only",
        )
    if values.steps == 1 and (values.peer is not None):
        raise ConfigError(
            "The first step of a turn is left out.", "Give 2 or more.", where="--steps"
        )
