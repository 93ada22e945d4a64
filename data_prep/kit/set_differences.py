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
        return "what it was made with is not recorded, or cannot be read"
    told = []
    if there.get("program") != wanted["program"]:
        told.append(f"made by {there.get('program')} there and by {wanted['program']} here")
    old, new = there.get("settings", {}), wanted["settings"]
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            told.append(f"--{name} is known only {'here' if name in new else 'there'}")
        elif old[name] != new[name]:
            told.append(f"--{name} is {_shown(old[name])} there and {_shown(new[name])} here")
    old, new = there.get("inputs", {}), wanted["inputs"]
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            told.append(f"{name} is read only {'here' if name in new else 'there'}")
        elif old[name] != new[name]:
            told.append(f"the content of {name} has changed")
    if len(told) > _MOST:
        told[_MOST:] = [f"and {len(told) - _MOST} more"]
    return ", ".join(told) or "the same settings and inputs, but shards of it are missing"


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else json.dumps(value)
    return text or "empty"
