"""Nested mappings become frozen dataclasses, field by field.

A key that nobody reads, a missing key or a value of another type is a `ConfigError` that names
it, at start-up. The dataclasses know their fields but not where they lie in the config: what their
own checks refuse (`errors.check_field`) gets the name of the section here.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from prior_jax.errors import ConfigError, in_section

T = TypeVar("T")


def build(kind: type[T], section: Mapping[str, Any], *, name: str) -> T:
    """Maps a config section strictly onto a dataclass.

    Args:
      kind: a dataclass; its nested dataclass fields are built from nested sections.
      section: a mapping with exactly the fields of `kind` that have no default,
        and any of those that have one.
      name: dotted name of the section, for errors, e.g. `config.model`.

    Returns:
      The dataclass, every value checked against its field's type.

    Raises:
      ConfigError: for an unknown key, a missing key, a value of another type, or a value that the
        dataclass refuses; the message has the dotted name of the key.
    """
    if not isinstance(section, Mapping) and not hasattr(section, "items"):
        raise ConfigError.of_value(name, section, f"a section with the settings {_names(kind)}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    values = dict(section.items())
    for key in values:
        if key not in fields:
            raise ConfigError(
                f"There is no setting {key!r} in {name}.",
                f"Use one of {_names(kind)}.",
                where=f"{name}.{key}",
            )
    arguments = {}
    for key, field in fields.items():
        if key in values:
            arguments[key] = _convert(hints[key], values[key], name=f"{name}.{key}")
        elif _required(field):
            raise ConfigError(
                "The setting is missing.",
                f"Give it a value of the type {_words(hints[key])}.",
                where=f"{name}.{key}",
            )
    # The values of nested sections exist already, so an error of this call is one of this section.
    with in_section(name):
        return kind(**arguments)


def _required(field: dataclasses.Field) -> bool:
    absent = dataclasses.MISSING
    return field.default is absent and field.default_factory is absent


def _names(kind: type) -> str:
    return ", ".join(field.name for field in dataclasses.fields(kind) if field.init)


def _words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _convert(hint: Any, value: Any, *, name: str) -> Any:
    """Checks one value against a type hint; sections become dataclasses, lists tuples."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, name=name)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, hint, name=name)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ConfigError.of_value(name, value, f"one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        return _convert_tuple(arguments, value, hint, name=name)
    if origin is not None and issubclass(origin, Mapping):
        if not hasattr(value, "items"):
            raise ConfigError.of_value(name, value, "a section: names, each with a value")
        return {k: _convert(arguments[1], v, name=f"{name}.{k}") for k, v in value.items()}
    return _convert_plain(hint, value, name=name)


def _convert_union(choices: tuple, value: Any, hint: Any, *, name: str) -> Any:
    if value is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) == 1:
        return _convert(rest[0], value, name=name)
    for choice in rest:
        kind = typing.get_origin(choice) or choice
        # A config that has been JSON has lists in place of tuples.
        if isinstance(value, list | tuple if kind is tuple else kind):
            return _convert(choice, value, name=name)
    raise ConfigError.of_value(name, value, f"of the type {_words(hint)}")


def _convert_tuple(items: tuple, value: Any, hint: Any, *, name: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise ConfigError.of_value(name, value, f"of the type {_words(hint)}")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(
            _convert(items[0], item, name=f"{name}[{index}]") for index, item in enumerate(value)
        )
    if len(items) != len(value):
        raise ConfigError.of_value(name, tuple(value), f"a list of {len(items)} values")
    return tuple(
        _convert(item_hint, item, name=f"{name}[{index}]")
        for index, (item_hint, item) in enumerate(zip(items, value, strict=True))
    )


def _convert_plain(hint: Any, value: Any, *, name: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and hint is not bool
    if wrong_bool or not isinstance(value, hint):
        raise ConfigError.of_value(name, value, f"of the type {_words(hint)}")
    return value
