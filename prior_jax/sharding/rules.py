"""Sharding rules: tables from patterns of array paths to partition specs."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prior_jax.errors import ConfigError

Axis = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
      pattern: regular expression for the whole path, whose parts are joined by "/".
      spec: mesh axis (or axes) that each leading dimension is split over, or None; dimensions
        beyond the spec's length are not split. A leading `...` stands for all dimensions that the
        other entries leave: `(..., "fsdp")` splits the last dimension.
      at_least: elements of the smallest array that the rule applies to; smaller arrays go on to the
        next rule.
      gathered: whether a step first gathers the whole array on every device, once, and gives each
        device its shard of the gradient; False leaves the communication to the compiler.
    """

    pattern: str
    spec: tuple[Axis | EllipsisType, ...]
    at_least: int = 0
    gathered: bool = False

    def __post_init__(self):
        """Refuses patterns that do not compile."""
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(
                f"The pattern {self.pattern!r} is not a regular expression: {error}.",
                "Correct the pattern.",
                where="config.mesh.rules",
            ) from error

    def matches(self, path: str, shape: Sequence[int]) -> bool:
        """Returns whether the rule applies to an array."""
        return math.prod(shape) >= self.at_least and bool(re.fullmatch(self.pattern, path))

    def axes(self, dimensions: int) -> tuple[Axis, ...]:
        """Returns the spec for an array of so many dimensions, with its `...` expanded."""
        named = tuple(axis for axis in self.spec if not isinstance(axis, EllipsisType))
        left = len(self.spec) - len(named)
        return (None,) * (left * max(dimensions - len(named), 0)) + named


REPLICATED = (Rule(".*", ()),)
"""Rules that replicate every array on every device: plain data parallelism."""


def spec_for(
    path: str, shape: Sequence[int], *, rules: Sequence[Rule], mesh: Mesh
) -> PartitionSpec:
    """Returns the spec of one array: that of the first rule that matches its path.

    Args:
      path: the parameter's path, parts joined by "/".
      shape: global shape of the parameter.
      rules: rules, tried in order.
      mesh: mesh whose axes the specs name.

    Returns:
      The spec, at most as long as the shape.

    Raises:
      ConfigError: if no rule matches, or the one that does names an unknown axis, has more
        entries than the array dimensions, or splits a dimension unevenly.
    """
    rule = _rule_for(path, shape, rules)
    if rule is None:
        raise ConfigError(
            f"No rule matches the array {path} {tuple(shape)}; the patterns are "
            f"{[r.pattern for r in rules]}.",
            "Add a rule whose pattern matches it, e.g. ('.*', ()) as the last.",
            where="config.mesh.rules",
        )
    where = f"config.mesh.rules[{rule.pattern!r}]"
    spec = rule.axes(len(shape))
    if len(spec) > len(shape):
        raise ConfigError(
            f"The rule has {len(spec)} axes {spec} for the array {path} {tuple(shape)}.",
            f"Give the rule at most {len(shape)} axes.",
            where=where,
        )
    for dimension, axis in zip(shape, spec, strict=False):
        size = _parts(axis, mesh=mesh, where=where)
        if dimension % size:
            raise ConfigError(
                f"The array {path} {tuple(shape)} has a dimension of {dimension}, which the axis "
                f"{axis!r} of size {size} does not divide.",
                "Write None for that dimension in the rule, or change the size of the axis.",
                where=where,
            )
    return PartitionSpec(*spec)


def _parts(axis: str | Sequence[str] | None, *, mesh: Mesh, where: str) -> int:
    """Returns into how many parts the entry of a spec splits a dimension."""
    names = () if axis is None else (axis,) if isinstance(axis, str) else tuple(axis)
    unknown = [name for name in names if name not in mesh.shape]
    if unknown:
        raise ConfigError(
            f"The mesh has no axis {unknown[0]!r}.",
            f"Use the axes {tuple(mesh.shape)}.",
            where=where,
        )
    return math.prod(mesh.shape[name] for name in names)


def _rule_for(path: str, shape: Sequence[int], rules: Sequence[Rule]) -> Rule | None:
    return next((rule for rule in rules if rule.matches(path, shape)), None)


def gathered_names(arrays: Mapping[str, Any], *, rules: Sequence[Rule]) -> frozenset[str]:
    """Returns the paths of the arrays whose rule says `gathered`.

    Args:
      arrays: path -> anything with a `shape`.
      rules: rules, tried in order; the first match wins.
    """
    found = {path: _rule_for(path, array.shape, rules) for path, array in arrays.items()}
    return frozenset(path for path, rule in found.items() if rule is not None and rule.gathered)


def shardings_for(
    arrays: Mapping[str, Any], *, rules: Sequence[Rule], mesh: Mesh
) -> dict[str, NamedSharding]:
    """Returns the sharding of each array of a flat dictionary.

    Args:
      arrays: path -> anything with a `shape` (arrays, or shapes alone).
      rules: rules, tried in order; the first match wins.
      mesh: mesh that the arrays are sharded over.

    Returns:
      path -> sharding.

    Raises:
      ConfigError: see `spec_for`.
    """
    return {
        path: NamedSharding(mesh, spec_for(path, array.shape, rules=rules, mesh=mesh))
        for path, array in arrays.items()
    }


def optimizer_shardings(
    optimizer_state: Any,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, NamedSharding],
    mesh: Mesh,
) -> Any:
    """Returns shardings that place each optimizer array like the parameter that it belongs to.

    Args:
      optimizer_state: any tree whose arrays that belong to a parameter are in dictionaries keyed
        by the parameter's path (as optax keeps moments of a flat dictionary).
      shapes: parameter path -> global shape.
      parameters: parameter path -> sharding.
      mesh: mesh on which arrays that belong to no parameter (counts) are replicated.

    Returns:
      A tree of the same structure with a sharding at each leaf.

    Raises:
      ConfigError: if an array belongs to a parameter but has another shape, so that the parameter's
        sharding would not fit it.
    """

    def place(path, leaf):
        names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        name = next((name for name in reversed(names) if name in parameters), None)
        if name is None:
            return NamedSharding(mesh, PartitionSpec())
        if tuple(leaf.shape) != tuple(shapes[name]):
            raise ConfigError(
                f"The optimizer has a state of shape {tuple(leaf.shape)} for the parameter {name} "
                f"of shape {tuple(shapes[name])}.",
                "Use an optimizer whose states have the shapes of their parameters.",
                where="config.optimizer",
            )
        return parameters[name]

    return jax.tree_util.tree_map_with_path(place, optimizer_state)
