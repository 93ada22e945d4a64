"""Overrides that replace a whole setting: by None, or None by a section.

    --config.early_stopping=None --config.data.path=None
    "--config.early_stopping={'metric': 'validation_total_loss', 'patience': 10, ...}"

The parser of ml_collections refuses None for a section or a number, takes it as the text "None"
for a path, and refuses every value for a setting that its config leaves at None without a type.
So these overrides are taken out of the arguments before it reads them, and put into the config
afterwards. Whether a setting may be None is checked where the config is read, as any other value.
"""

import ast
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from launch.start import config_keys
from prior_jax.errors import ConfigError

NONE = "None"


@dataclasses.dataclass(frozen=True)
class Whole:
    """An override of a whole setting.

    Attributes:
      flag: name of the config's flag, e.g. "config".
      setting: dotted name of the setting, e.g. "early_stopping".
      value: None, or a section as a mapping.
    """

    flag: str
    setting: str
    value: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """Returns the name as the command line and the messages have it."""
        return f"{self.flag}.{self.setting}"


def take(
    argv: Sequence[str], flags: Iterable[str], config_of: Callable[[str], Any]
) -> tuple[list[str], tuple[Whole, ...]]:
    """Separates the overrides of whole settings from the other arguments.

    Args:
      argv: arguments of the program, its own name first.
      flags: names of the flags of configs.
      config_of: function from such a name to the config as its file makes it, or None where it is
        not given or cannot be read; called only if an argument may be a section.

    Returns:
      The other arguments, and the overrides. Of several overrides of one setting the last holds.

    Raises:
      ConfigError: if a setting is given within a section that another argument sets as a whole.
    """
    known = tuple(flags)
    kept, whole, others = [], {}, []
    for arguments, override in _overrides(argv, known):
        if override is None:
            kept += arguments
            continue
        flag, setting, text = override
        given = _given(flag, setting, text, config_of)
        whole.pop((flag, setting), None)
        if given is None:
            kept += arguments
            others.append((flag, setting))
        else:
            whole[flag, setting] = given
    _refuse_parts(tuple(whole.values()), others)
    return kept, tuple(whole.values())


def put(config: Any, whole: Whole, overrides: dict[str, Any]) -> None:
    """Puts an override into its config.

    Args:
      config: config that the command line has made, or None if its flag is not given.
      whole: override of one of its settings.
      overrides: setting -> value of all overrides of the config, which the override is added to.

    Raises:
      ConfigError: if there is no config or no such setting, naming the closest ones.
    """
    if config is None:
        raise ConfigError(
            f"--{whole.flag} is not given.",
            f"Give --{whole.flag}=FILE, or leave the setting out.",
            where=f"--{whole.name}",
        )
    unknown = config_keys.unknown_setting(whole.flag, config, [whole.setting])
    if unknown is not None:
        raise unknown
    value = whole.value
    config_path.set_value(
        whole.setting, config, value if value is None else ConfigDict(dict(value))
    )
    overrides[whole.setting] = value


def _overrides(
    argv: Sequence[str], known: Sequence[str]
) -> Iterator[tuple[Sequence[str], tuple[str, str, str] | None]]:
    """Yields arguments, with flag, setting and value where they override a setting of a config."""
    left, others = list(argv[1:]), list(argv[:1])
    while left:
        argument = left.pop(0)
        if argument == "--":
            others += [argument, *left]
            break
        name, equals, value = argument.partition("=")
        flag, dot, setting = name.lstrip("-").partition(".")
        if not dot or not name.startswith("-") or flag not in known:
            others.append(argument)
            continue
        yield others, None
        others, arguments = [], [argument]
        if not equals and left[:1] == [NONE]:
            value = left.pop(0)
            arguments.append(value)
        yield arguments, (flag, setting, value)
    yield others, None


def _given(flag: str, setting: str, text: str, config_of: Callable[[str], Any]) -> Whole | None:
    """Returns the override if it replaces a whole setting that the parser would refuse."""
    if text.strip() == NONE:
        return Whole(flag, setting, None)
    if not text.lstrip().startswith("{"):
        return None
    config = config_of(flag)
    try:
        if config is None or config_path.get_type(setting, config) is not type(None):
            return None
        value = ast.literal_eval(text.strip())
    except (KeyError, IndexError, ValueError, SyntaxError, TypeError, AttributeError):
        return None  # the parser that gets it says what is wrong with it
    return Whole(flag, setting, value) if isinstance(value, dict) else None


def _refuse_parts(whole: Sequence[Whole], others: Sequence[tuple[str, str]]) -> None:
    given = [*others, *((one.flag, one.setting) for one in whole)]
    for one in whole:
        for flag, setting in given:
            if flag == one.flag and setting.startswith((f"{one.setting}.", f"{one.setting}[")):
                what = NONE if one.value is None else "a section"
                raise ConfigError(
                    f"The setting lies within {one.name}, which another argument sets to {what} "
                    "as a whole.",
                    f"Leave out --{one.name} or --{flag}.{setting}.",
                    where=f"{flag}.{setting}",
                )
