"""Says in words what tells one set from another: program, settings and inputs."""

import json
from collections.abc import Mapping
from typing import Any

_MOST = 8


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns what differs between the set that is there and the one that is wanted.

    Args:
      there: `program`, `settings` and `inputs` (name -> sha256), empty where they are not known.
      wanted: the same of the set that is wanted.
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
