"""Reads JSON without losing anything: a repeated key is an error, and not its last value."""

import json
from typing import Any


def loads(content: bytes | str) -> Any:
    """Returns the value of a JSON text.

    Args:
      content: text, or its bytes in UTF-8, with or without a byte-order mark.

    Raises:
      ValueError: if it is no JSON or not UTF-8, if an object has a key twice, or if it is nested
        too deeply to be read.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the pairs as a dictionary; raises ValueError if a key stands twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} stands twice in one object")
        found[name] = value
    return found
