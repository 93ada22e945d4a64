"""Finds the entry of a saved object that is the state dict.

A training program saves a dictionary: the state dict under a key of its own, and beside it a
second model (a moving average, a teacher), the optimizer and the epoch. One entry is taken, and
the tensors of all other entries are counted, so that none is skipped without notice.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.torch.tensors import TorchTensor

ENTRIES = ("state_dict", "model", "net", "model_state_dict", "module")
"""Keys under which training programs put the state dict; they may be nested in each other."""

GIVE_STATE_DICT = (
    "Give a safetensors file, or one that torch.save wrote (zip or older), with a state dict."
)
"""Remedy for a file without weights that can be read."""

_MAX_DEPTH = 4
_FEW = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A state dict within a saved object.

    Attributes:
      tensors: name -> tensor.
      key: keys that lead to the state dict, joined by "/"; None if the object itself is the state
        dict.
      left: key -> number of tensors under it, for all other entries that hold tensors.
    """

    tensors: dict[str, TorchTensor]
    key: str | None
    left: Mapping[str, int]


def find_entry(value: Any, *, field: str, wanted: str | None) -> Entry:
    """Finds the state dict.

    Args:
      value: object that was saved.
      field: name of the file, for errors.
      wanted: entry that a user named, keys joined by "/"; None takes the one under a key of
        `ENTRIES`, else the tensors of the object itself.

    Raises:
      WeightsError: if there is none, or several; it lists the keys that hold tensors.
      ConfigError: if the named entry holds no tensors of its own.
    """
    if not isinstance(value, dict):
        raise WeightsError(
            f"The file has a saved {type(value).__name__} and not a state dict.",
            GIVE_STATE_DICT,
            where=field,
        )
    key = _known(value, field=field) if wanted is None else _named(value, wanted, field=field)
    tensors = tensors_of(_under(value, key), field=field)
    if not tensors:
        raise WeightsError(_nothing(value), _remedy(value), where=field)
    return Entry(tensors=tensors, key="/".join(key) or None, left=_left(value, key))


def tensors_of(value: Any, *, field: str) -> dict[str, TorchTensor]:
    """Returns the tensors that a dictionary itself holds; none if the value is no dictionary."""
    if not isinstance(value, dict):
        return {}
    tensors = {key: entry for key, entry in value.items() if isinstance(entry, TorchTensor)}
    if not all(isinstance(key, str) for key in tensors):
        raise WeightsError(
            "The file has tensors under keys that are no text.",
            "Save the tensors in a dictionary of names.",
            where=field,
        )
    return tensors


def in_words(count: int) -> str:
    """Returns a number of tensors in words."""
    return "1 tensor" if count == 1 else f"{count} tensors"


def _known(value: dict, *, field: str) -> tuple[str, ...]:
    """Returns the keys of `ENTRIES` that lead to a state dict."""
    paths = _paths(value, field=field, depth=0)
    if len(paths) > 1:
        keys = ["/".join(path) for path in paths]
        raise WeightsError(
            f"The file has several state dicts, under {', '.join(keys)}.",
            f"Choose one of them with --entry={keys[0]}, or another of these keys.",
            where=field,
        )
    return paths[0] if paths else ()


def _paths(value: Any, *, field: str, depth: int) -> list[tuple[str, ...]]:
    if not isinstance(value, dict) or depth == _MAX_DEPTH:
        return []
    found = []
    for key in ENTRIES:
        if tensors_of(value.get(key), field=field):
            found.append((key,))
        else:
            below = _paths(value.get(key), field=field, depth=depth + 1)
            found += [(key, *path) for path in below]
    return found


def _named(value: dict, wanted: str, *, field: str) -> tuple[str, ...]:
    path = _way(value, wanted.strip("/"), field=field)
    if path is not None:
        return path
    raise ConfigError(
        f"{field} has no state dict under {wanted!r}.",
        f"Give a key of the file: {_holders(value)}.",
        where="--entry",
    )


def _way(value: dict, wanted: str, *, field: str) -> tuple[str, ...] | None:
    """Returns the keys that lead to a state dict, of which there may be several, or None."""
    for key, child in value.items():
        if not isinstance(key, str) or not isinstance(child, dict):
            continue
        if key == wanted and tensors_of(child, field=field):
            return (key,)
        if wanted.startswith(f"{key}/"):
            below = _way(child, wanted[len(key) + 1 :], field=field)
            if below is not None:
                return (key, *below)
    return None


def _under(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _dictionaries(value: dict) -> list[tuple[tuple[str, ...], dict]]:
    """Returns the dictionaries within a saved object, each once, with the keys that lead to it."""
    found, level, seen = [], [((), value)], {id(value)}
    for _ in range(_MAX_DEPTH + 1):
        found += level
        below = []
        for path, parent in level:
            for key, child in parent.items():
                if isinstance(key, str) and isinstance(child, dict) and id(child) not in seen:
                    seen.add(id(child))
                    below.append(((*path, key), child))
        level = below
    return found


def _count(value: Any) -> int:
    """Counts the tensors anywhere within a value; an object that contains itself counts once."""
    count, waiting, seen = 0, [value], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, TorchTensor):
            count += 1
        elif isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list | tuple | set | frozenset):
            waiting.extend(node)
    return count


def _left(value: dict, path: tuple[str, ...]) -> dict[str, int]:
    """Counts the tensors that are not taken, by the first key off the path to the state dict."""
    left: dict[str, int] = {}
    node = value
    for depth in range(len(path) + 1):
        # At the end of the path the node's own tensors are taken, before it only the next key.
        ends = depth == len(path)
        for key, child in node.items():
            taken = isinstance(child, TorchTensor) if ends else key == path[depth]
            if not taken and (count := _count(child)):
                left["/".join((*path[:depth], str(key)))] = count
        node = node if ends else node[path[depth]]
    return left


def _nothing(value: dict) -> str:
    if not _count(value):
        return "The file has no tensors."
    return f"The file has no state dict at its top, but tensors under {_holders(value)}."


def _holders(value: dict) -> str:
    """Returns in words the keys that hold tensors of their own, else those that hold any."""
    own = {
        "/".join(path): sum(isinstance(entry, TorchTensor) for entry in node.values())
        for path, node in _dictionaries(value)
        if path
    }
    counts = {key: count for key, count in own.items() if count}
    counts = counts or {str(key): n for key, child in value.items() if (n := _count(child))}
    shown = [f"{key!r} ({in_words(count)})" for key, count in list(counts.items())[:_FEW]]
    more = f" and {len(counts) - _FEW} more keys" if len(counts) > _FEW else ""
    return (", ".join(shown) or "no key holds tensors") + more


def _remedy(value: dict) -> str:
    own = [
        "/".join(path)
        for path, node in _dictionaries(value)
        if path and any(isinstance(entry, TorchTensor) for entry in node.values())
    ]
    if not own:
        return GIVE_STATE_DICT
    return (
        f"Choose one of these keys, for example --entry={own[0]}; without --entry, a state dict is "
        f"looked for under {', '.join(ENTRIES)}."
    )
