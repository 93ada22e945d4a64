"""Settings as one flat mapping, to compare those of two sweeps."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prior_jax.data import pipeline

_SPEED_SETTINGS = tuple(f"data.{name}" for name in pipeline.SPEED_SETTINGS)


def flat(config: Any) -> dict[str, Any]:
    """Returns dotted name -> JSON value of every setting of a config or a dataclass."""
    given = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config.to_dict()
    plain = json.loads(json.dumps(given, default=lambda section: section.to_dict()))

    def walk(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            return {name: value}
        parts = (walk(inner, f"{name}.{key}" if name else key) for key, inner in value.items())
        return {key: inner for part in parts for key, inner in part.items()}

    return walk(plain, "")


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Returns the alphabetically first name at which two flat mappings differ, or None.

    Settings of the input that change no number may differ, with or without the variant's name
    before them ("paper: config.data.threads").
    """
    absent = object()
    known = {*ours, *theirs}
    names: Sequence[str] = sorted(
        n for n in known if n.split(": config.")[-1] not in _SPEED_SETTINGS
    )
    return next(
        (name for name in names if ours.get(name, absent) != theirs.get(name, absent)), None
    )
