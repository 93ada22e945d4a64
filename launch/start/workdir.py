"""Checks of the folder of `--workdir` before anything is written to it."""

import pathlib

from absl import flags

from prior_jax.config import CONFIG_NAME
from prior_jax.errors import ConfigError

SWEEP_NAME = "sweep.json"
"""Name of the file that marks a folder of launch.sweep."""

_OF_A_RUN = (CONFIG_NAME, "checkpoints")


def from_flag(name: str = "workdir") -> pathlib.Path:
    """Returns the folder that a flag names.

    Raises:
      ConfigError: if the name is empty, as when a script's variable is not set.
    """
    value = flags.FLAGS[name].value
    if not value:
        raise ConfigError(
            "The name of the folder is empty, as when a variable of a script is not set.",
            "Give the path of a folder; the current folder is '.'.",
            where=f"--{name}",
        )
    return pathlib.Path(value)


def cache_of(workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of `--cache_dir`, or by default `cache` in the workdir."""
    given = flags.FLAGS.cache_dir
    return workdir / "cache" if given is None else pathlib.Path(given)


def check_for_run(folder: pathlib.Path) -> None:
    """Refuses to put a run into the folder of a sweep, whose trials have folders of their own.

    Raises:
      ConfigError: if it is a sweep's folder; the message names the file that marks it.
    """
    if (folder / SWEEP_NAME).exists() and not (folder / CONFIG_NAME).exists():
        raise _of_another(folder, SWEEP_NAME, kind="a sweep")


def check_for_sweep(folder: pathlib.Path) -> None:
    """Refuses to put a sweep into the folder of a run.

    Raises:
      ConfigError: if it is a run's folder; the message names the file that marks it.
    """
    found = [name for name in _OF_A_RUN if (folder / name).exists()]
    if found and not (folder / SWEEP_NAME).exists():
        raise _of_another(folder, found[0], kind="a run")


def _of_another(folder: pathlib.Path, mark: str, *, kind: str) -> ConfigError:
    return ConfigError(
        f"The folder {folder} belongs to {kind}: it holds {mark}.",
        "Give a new folder, or one that this program has made.",
        where="--workdir",
    )
