"""Describes how one set differs from another in program, settings and inputs."""

import json
from collections.abc import Mapping
from typing import Any

_MOST = 8


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns the differences between the existing set and the wanted set.

    Args:
      there: `program`, `settings` and `inputs` (name -> sha256) of the existing set; empty if they
        are not known.
      wanted: `program`, `settings` and `inputs` of the wanted set.
    """
    if not there:
        return "the settings and inputs of that set are not recorded, or cannot be read"
    told = []
    if there.get("program") != wanted["program"]:
        told.append(f"made by {there.get('program')} there and by {wanted['program']} here")
    told += settings_differences(there.get("settings", {}), wanted["settings"])
    old, new = there.get("inputs", {}), wanted["inputs"]
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            told.append(f"{name} is read only {'here' if name in new else 'there'}")
        elif old[name] != new[name]:
            told.append(f"the content of {name} has changed")
    if len(told) > _MOST:
        told[_MOST:] = [f"and {len(told) - _MOST} more"]
    return ", ".join(told) or "the same settings and inputs, but shards of it are missing"


def settings_differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns a description of each flag that differs.

    Args:
      there: flag -> value of the existing set.
      wanted: flag -> value of the wanted set.
    """
    told = []
    for name in sorted({*there, *wanted}):
        if name not in there or name not in wanted:
            told.append(f"--{name} is known only {'here' if name in wanted else 'there'}")
        elif there[name] != wanted[name]:
            told.append(f"--{name} is {_shown(there[name])} there and {_shown(wanted[name])} here")
    return told


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else json.dumps(value)
    return text or "empty"
