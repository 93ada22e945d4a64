"""The folder of `--workdir`, looked at before anything is written to it."""

import pathlib

from absl import flags

from prior_jax.config import CONFIG_NAME
from prior_jax.errors import ConfigError

SWEEP_NAME = "sweep.json"
"""What marks the folder of launch.sweep."""

_OF_A_RUN = (CONFIG_NAME, "checkpoints")


def from_flag(name: str = "workdir") -> pathlib.Path:
    """The folder that a flag names.

    Raises:
      ConfigError: for an empty name, as a script gives whose variable is not set.
    """
    value = flags.FLAGS[name].value
    if not value:
        accepted = "the path of a folder; . is the current one"
        raise ConfigError(f"--{name}", received=value, accepted=accepted)
    return pathlib.Path(value)


def check_for_run(folder: pathlib.Path) -> None:
    """Refuses the folder of a sweep, whose trials have folders of their own, to a run.

    Raises:
      ConfigError: naming the file that marks the folder.
    """
    if (folder / SWEEP_NAME).exists() and not (folder / CONFIG_NAME).exists():
        raise _of_another(folder, SWEEP_NAME, kind="a sweep")


def check_for_sweep(folder: pathlib.Path) -> None:
    """Refuses the folder of a run to a sweep.

    Raises:
      ConfigError: naming what marks the folder.
    """
    found = [name for name in _OF_A_RUN if (folder / name).exists()]
    if found and not (folder / SWEEP_NAME).exists():
        raise _of_another(folder, found[0], kind="a run")


def _of_another(folder: pathlib.Path, mark: str, *, kind: str) -> ConfigError:
    return ConfigError(
        "--workdir",
        received=f"{folder}, which holds {mark} of {kind}",
        accepted="a new folder, or one that this program has made",
    )
