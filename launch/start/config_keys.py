"""Explains settings on the command line that a config does not have."""

from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from prior_jax.errors import ConfigError
from prior_jax.near_names import meant


def unknown_setting(name: str, config: ConfigDict, given: Sequence[str]) -> ConfigError | None:
    """Returns the error of the first override that names nothing in the config.

    Args:
      name: name of the config's flag, e.g. "config".
      config: the config as its file makes it.
      given: overridden settings, dotted, without the flag's name, e.g. "data.batch_size".

    Returns:
      An error that names the setting, the closest names and all settings of its section; None if
      the config has every setting.
    """
    for setting in given:
        try:
            parts = config_path.split(setting)
        except ValueError:
            return ConfigError(
                "The name of the setting cannot be read.",
                "Write it as the names of its sections and its own, with dots between.",
                where=f"{name}.{setting}",
            )
        found = _first_absent(name, config, parts)
        if found is not None:
            return ConfigError(*found, where=f"{name}.{setting}")
    return None


def overridden(name: str, argv: Sequence[str]) -> Iterator[str]:
    """Yields the settings that the arguments override in `--name`, without values.

    Args:
      name: name of the config's flag.
      argv: arguments of the program, its own name first.
    """
    for argument in argv[1:]:
        if argument == "--":
            return
        flag, dot, setting = argument.partition("=")[0].partition(".")
        if dot and flag in (f"-{name}", f"--{name}", f"-no{name}", f"--no{name}"):
            yield setting


def _first_absent(name: str, config: ConfigDict, parts: Sequence[Any]) -> tuple[str, str] | None:
    """Returns problem and remedy of the first part of a setting's path that is not there."""
    section: Any = config
    for part in parts:
        if isinstance(section, ConfigDict):
            if part not in section:
                return _no_setting(part, name, list(section.keys()))
        elif not isinstance(section, list | tuple):
            return (
                f"{name} is not a section; its value is {section!r}.",
                f"Set --{name} as a whole, or change it in the config's file.",
            )
        elif part not in range(-len(section), len(section)):
            return (
                f"{name} has {len(section)} values, and none at [{part}].",
                f"Set --{name} as a whole, as a tuple in quotation marks.",
            )
        section = section[part]
        name = f"{name}[{part}]" if isinstance(part, int) else f"{name}.{part}"
    return None


def _no_setting(key: Any, section: str, known: list[str]) -> tuple[str, str]:
    return (
        f"There is no setting {key!r} in {section}.{meant(str(key), known)}",
        f"Use one of {', '.join(sorted(known))}." if known else "The section is empty; leave it.",
    )
