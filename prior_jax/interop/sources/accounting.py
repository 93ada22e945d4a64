"""A table of how every tensor of a checkpoint was handled: imported, kept or left."""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence

from prior_jax.interop.torch.names import Table

IMPORTED, KEPT, LEFT = "imported", "kept", "left"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unused:
    """Tensors that have no place in our model.

    Attributes:
      pattern: regular expression of whole torch names.
      reason: reason why the tensors are not used, in words.
      keep: whether the tensors are kept beside the weights, so that an export can write them; False
        for tensors of another part of the checkpoint.
      shape: the only accepted shape, a number or the name of a size for each axis; None for any
        shape.
    """

    pattern: str
    reason: str
    keep: bool = True
    shape: tuple[str | int, ...] | None = None

    def matches(self, name: str) -> bool:
        """Returns whether this rule applies to a torch name."""
        return re.fullmatch(self.pattern, name) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Tensors of a checkpoint that were handled in the same way.

    Attributes:
      names: torch names of the tensors; "*" stands for numbers.
      count: number of tensors.
      fate: "imported", "kept" or "left".
      where: paths of our leaves, or the reason why there are none.
    """

    names: str
    count: int
    fate: str
    where: str


def account(
    names: Iterable[str], table: Table, unused: Callable[[str], Unused | None]
) -> tuple[Row, ...]:
    """Returns rows that contain every name exactly once.

    Args:
      names: torch names of a checkpoint.
      table: table of the names that are imported.
      unused: function from a name that is not imported to its rule, or None if there is none.

    Raises:
      KeyError: for a name without an entry in the table and without a rule.
    """
    paths = {entry.torch: "/".join(entry.path) for entry in table.entries}
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = collections.defaultdict(list)
    for name in names:
        stem, _, last = _starred(name).rpartition(".")
        if name in paths:
            path, _, leaf = _starred(paths[name]).rpartition("/")
            groups[stem, IMPORTED, path].append((last, leaf))
        else:
            rule = unused(name)
            if rule is None:
                raise KeyError(name)
            groups[stem, KEPT if rule.keep else LEFT, rule.reason].append((last, ""))
    return tuple(
        _row(stem, fate, where, members) for (stem, fate, where), members in groups.items()
    )


def outside(names: Iterable[str], reason: str) -> tuple[Row, ...]:
    """Returns rows of names that were not requested, one row for each first part of the names.

    Args:
      names: torch names.
      reason: reason why the tensors are left.
    """
    counts = collections.Counter(name.split(".")[0] for name in map(_starred, names))
    return tuple(
        Row(names=f"{first}.*" if count > 1 else first, count=count, fate=LEFT, where=reason)
        for first, count in counts.items()
    )


def summary(rows: Sequence[Row]) -> str:
    """Returns one line with the total count and the count of each fate."""
    counts = collections.Counter()
    for row in rows:
        counts[row.fate] += row.count
    parts = [f"{counts[IMPORTED]} imported"]
    parts += [f"{counts[KEPT]} kept beside the model, which has no place for them"]
    if counts[LEFT]:
        parts += [f"{counts[LEFT]} left to other parts"]
    return f"{counts.total()} keys: " + ", ".join(parts)


def render(rows: Sequence[Row]) -> str:
    """Returns the table for a terminal: kept and left tensors last, then the summary line."""
    order = (IMPORTED, KEPT, LEFT)
    cells = [
        (
            row.names,
            str(row.count),
            row.where if row.fate == IMPORTED else f"{row.fate}: {row.where}",
        )
        for row in sorted(rows, key=lambda row: order.index(row.fate))
    ]
    head = ("in the checkpoint", "keys", "in the weights")
    wide = max(len(cell[0]) for cell in [head, *cells])
    lines = [f"{name:<{wide}}  {count:>4}  {where}" for name, count, where in [head, *cells]]
    return "\n".join([*lines, "", summary(rows)])


def _row(stem: str, fate: str, where: str, members: Sequence[tuple[str, str]]) -> Row:
    names = ".".join(part for part in (stem, _braced(last for last, _ in members)) if part)
    leaves = _braced(leaf for _, leaf in members)
    if fate == IMPORTED:
        where = "/".join(part for part in (where, leaves) if part)
    return Row(names=names, count=len(members), fate=fate, where=where)


def _braced(parts: Iterable[str]) -> str:
    distinct = [part for part in dict.fromkeys(parts) if part]
    return distinct[0] if len(distinct) == 1 else f"{{{','.join(distinct)}}}" if distinct else ""


def _starred(name: str) -> str:
    return re.sub(r"\d+", "*", name)
