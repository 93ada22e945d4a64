"""Removes the parts that wrappers add to the names of tensors.

    plain = unwrapped(["module._orig_mod.conv1.weight", "module._orig_mod.bn1.bias"])
    plain.names                                # ("conv1.weight", "bn1.bias")
    under_prefix(names, "backbone.", ...)      # the names that have a prefix
    prefixes(names, begins)                    # {"backbone.": 122}: prefixes of a model's names

A wrapper holds the wrapped module as its one attribute, so every name beside it has the
attribute's name in it. The attribute is removed only where that is so: a part "module" that some
of the names lack belongs to the name.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from prior_jax.errors import ConfigError

WRAPPERS: Mapping[str, str] = {
    "module": "DataParallel, DistributedDataParallel, DeepSpeed or AveragedModel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
    "_fpw_module": "FullyShardedDataParallel before torch 1.12",
}
"""Attribute that holds the wrapped module -> wrapper that has the attribute."""

COUNTER = "n_averaged"
"""Name of the counter that torch's AveragedModel keeps beside its module."""

_FEW = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unwrapped:
    """Names without wrappers.

    Attributes:
      names: plain names, in the order of the given ones; all are distinct. The counters of
        AveragedModel keep their names, since each of several wrappers has its own counter.
      wrappers: attribute of `WRAPPERS` that was removed -> number of names.
    """

    names: tuple[str, ...]
    wrappers: Mapping[str, int]


def unwrapped(names: Sequence[str]) -> Unwrapped:
    """Removes every wrapper's attribute, in any order and at any depth.

    Args:
      names: distinct torch names.

    Returns:
      The plain names; the same ones where no wrapper is found.
    """
    children: dict[tuple[str, ...], set[tuple[str, bool]]] = collections.defaultdict(set)
    split = [tuple(name.split(".")) for name in names]
    for parts in split:
        for index, part in enumerate(parts):
            if part != COUNTER or index < len(parts) - 1:
                children[parts[:index]].add((part, index < len(parts) - 1))
    found: collections.Counter[str] = collections.Counter()
    plain = []
    for parts in split:
        if parts[-1] == COUNTER:
            plain.append(".".join(parts))
            continue
        # The last part is the name of the tensor itself, never of a module.
        wrapping = [
            index
            for index, part in enumerate(parts[:-1])
            if part in WRAPPERS and children[parts[:index]] == {(part, True)}
        ]
        found.update({parts[index] for index in wrapping})
        plain.append(".".join(part for i, part in enumerate(parts) if i not in wrapping))
    return Unwrapped(names=tuple(plain), wrappers=dict(found))


def prefixes(names: Iterable[str], begins: Callable[[str], bool]) -> dict[str, int]:
    """Finds the prefixes of a model's names in a file.

    Args:
      names: torch names, with or without wrappers.
      begins: function that returns whether a plain name begins like one of the model's names.

    Returns:
      prefix -> number of names that have it. The prefix is the shortest, final dot included, after
      which a name begins like one of the model's; "" means no prefix. The prefix with most names
      comes first.
    """
    names = list(names)
    found = set()
    for name in names:
        parts = name.split(".")
        for index in range(len(parts)):
            if parts[index] in WRAPPERS:
                continue
            rest = ".".join(part for part in parts[index:-1] if part not in WRAPPERS)
            if begins(f"{rest}.{parts[-1]}" if rest else parts[-1]):
                found.add("".join(f"{part}." for part in parts[:index]))
                break
    counts = {prefix: sum(name.startswith(prefix) for name in names) for prefix in found}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def under_prefix(names: Iterable[str], prefix: str, found: Mapping[str, int]) -> list[str]:
    """Returns the names that have a prefix given by the user.

    Args:
      names: torch names.
      prefix: prefix as the user gave it, with or without its final dot.
      found: prefixes that `prefixes` finds, for the error.

    Returns:
      The names, with the prefix.

    Raises:
      ConfigError: if no name has the prefix, listing the prefixes that do occur.
    """
    names = list(names)
    chosen = [name for name in names if prefix and name.startswith(dotted(prefix))]
    if not chosen:
        occurring = {key: count for key, count in found.items() if key} or first_parts(names)
        raise ConfigError(
            f"No name in the file has the prefix {prefix!r}.",
            f"Give a prefix that names of the file have: {listed(occurring)}.",
            where="--prefix",
        )
    return chosen


def dotted(prefix: str) -> str:
    """Returns a prefix with its final dot."""
    return prefix if prefix.endswith(".") else f"{prefix}."


def first_parts(names: Iterable[str]) -> dict[str, int]:
    """Returns the first part of each name that has several, with the number of its names."""
    counts = collections.Counter(f"{name.split('.')[0]}." for name in names if "." in name)
    return dict(counts.most_common())


def listed(counts: Mapping[str, int]) -> str:
    """Returns prefixes and their counts in words; only the first few of many."""
    shown = [f"{prefix!r} ({count} names)" for prefix, count in list(counts.items())[:_FEW]]
    more = f" and {len(counts) - _FEW} more" if len(counts) > _FEW else ""
    return (", ".join(shown) or "none") + more
