"""A strict, two-way mapping between torch state dicts and pure trees of nnx parameters.

A `Table` lists, for every torch name, the path of the leaf it belongs to, how its layout changes
and, for layers stacked on a leading axis, its index. Tables of modules compose:

    table = (
        bert_table(config.text).under("text_encoder.encoder.", ("text_encoder",))
        + linear_table("predictor.0", ("predictor", "inner"))
    )
    tree = to_nnx(state_dict, table, abstract)        # a tree shaped like `abstract`
    state_dict = to_torch(tree, table)                # the exact inverse
    gradients = to_torch(grads, table, partial=True)  # a tree without batch statistics

A path is a tuple of attribute names and dictionary keys, as in `nnx.state(model)`. Every name
must be in a table: `WeightsError` lists all missing, extra and misshaped names at once. Names of
tensors without information (counters, position ids, layers a release never runs) are listed per
table as regular expressions in `ignored`.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from prior_jax.errors import WeightsError
from prior_jax.interop.torch.misfits import MisfitError, listed

Layout = Literal["same", "linear", "conv", "conv_transpose"]
Path = tuple[str, ...]

# Permutations of torch's axes to ours: [out, in] <-> [in, out], OIHW <-> HWIO, IOHW <-> HWIO.
_TO_NNX = {"linear": (1, 0), "conv": (2, 3, 1, 0), "conv_transpose": (2, 3, 0, 1)}
_TO_TORCH = {"linear": (1, 0), "conv": (3, 2, 0, 1), "conv_transpose": (2, 3, 0, 1)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One torch tensor and its place in our tree.

    Attributes:
      torch: name of the tensor in the state dict.
      path: path of the leaf.
      layout: "same", "linear" ([out, in] to [in, out]), "conv" (OIHW to HWIO) or
        "conv_transpose" (IOHW to HWIO).
      index: position on the leaf's leading axis if it stacks several tensors; None if not.
    """

    torch: str
    path: Path
    layout: Layout = "same"
    index: int | None = None

    def to_nnx(self, array: np.ndarray) -> np.ndarray:
        """Returns the torch tensor in our layout."""
        return array.transpose(_TO_NNX[self.layout]) if self.layout in _TO_NNX else array

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        """Returns this entry's part of the leaf, in torch's layout."""
        part = leaf if self.index is None else leaf[self.index]
        return part.transpose(_TO_TORCH[self.layout]) if self.layout in _TO_TORCH else part

    def torch_shape(self, leaf_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the torch tensor that fits a leaf of `leaf_shape`."""
        shape = leaf_shape if self.index is None else leaf_shape[1:]
        if self.layout not in _TO_TORCH:
            return shape
        axes = _TO_TORCH[self.layout]
        return tuple(shape[axis] for axis in axes) if len(shape) == len(axes) else shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Entries, and the names that may be present without an entry.

    Attributes:
      entries: entries, one per torch tensor; torch names are distinct.
      ignored: regular expressions, matched against whole torch names.
    """

    entries: tuple[Entry, ...]
    ignored: tuple[str, ...] = ()

    def __post_init__(self):
        """Refuses two entries for one tensor."""
        counts = collections.Counter(entry.torch for entry in self.entries)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"torch names listed twice: {twice}")

    def __add__(self, other: "Table") -> "Table":
        """Returns a table with the entries and ignored names of both."""
        return Table(entries=self.entries + other.entries, ignored=self.ignored + other.ignored)

    def under(self, torch_prefix: str, path: Path) -> "Table":
        """Returns this table for a module nested deeper.

        Args:
          torch_prefix: prefix of every torch name, its dot included ("text_encoder.").
          path: prefix of every path.

        Returns:
          The nested table.
        """
        entries = tuple(
            dataclasses.replace(entry, torch=torch_prefix + entry.torch, path=(*path, *entry.path))
            for entry in self.entries
        )
        ignored = tuple(re.escape(torch_prefix) + f"(?:{name})" for name in self.ignored)
        return Table(entries=entries, ignored=ignored)

    def ignores(self, name: str) -> bool:
        """Returns whether a torch name may be present without an entry."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def ignore(*patterns: str) -> Table:
    """Returns a table without entries that ignores torch names, given as regular expressions."""
    return Table(entries=(), ignored=patterns)


def array_table(torch: str, path: Path) -> Table:
    """Returns the table of a parameter of the same layout on both sides (embeddings, scales)."""
    return Table(entries=(Entry(torch=torch, path=path),))


def linear_table(torch: str, path: Path) -> Table:
    """Returns the table of a dense layer: torch's `weight` and `bias`, our `kernel` and `bias`."""
    return Table(
        entries=(
            Entry(torch=f"{torch}.weight", path=(*path, "kernel"), layout="linear"),
            Entry(torch=f"{torch}.bias", path=(*path, "bias")),
        )
    )


def conv_table(torch: str, path: Path, *, bias: bool) -> Table:
    """Returns the table from torch.nn.Conv2d `<torch>.weight`, [`.bias`] to `kernel`, [`bias`]."""
    entries = [Entry(torch=f"{torch}.weight", path=(*path, "kernel"), layout="conv")]
    if bias:
        entries.append(Entry(torch=f"{torch}.bias", path=(*path, "bias")))
    return Table(entries=tuple(entries))


def layer_norm_table(torch: str, path: Path) -> Table:
    """Returns the table from torch.nn.LayerNorm `<torch>.weight`, `.bias` to `scale`, `bias`."""
    return Table(
        entries=(
            Entry(torch=f"{torch}.weight", path=(*path, "scale")),
            Entry(torch=f"{torch}.bias", path=(*path, "bias")),
        )
    )


def batch_norm_table(torch: str, path: Path) -> Table:
    """Returns the table from torch.nn.BatchNorm to `scale`, `bias`, `mean`, `var`.

    The counter of torch is ignored.
    """
    statistics = Table(
        entries=(
            Entry(torch=f"{torch}.running_mean", path=(*path, "mean")),
            Entry(torch=f"{torch}.running_var", path=(*path, "var")),
        ),
        ignored=(re.escape(f"{torch}.num_batches_tracked"),),
    )
    return layer_norm_table(torch, path) + statistics


def stacked_table(count: int, layer: Callable[[int], Table]) -> Table:
    """Returns the table of layers that share leaves with a leading [count] axis.

    Args:
      count: number of layers.
      layer: function from i to the table of layer i; its paths are the same for every i.

    Returns:
      All layers' entries, each with its index.
    """
    table = concatenate(layer(index) for index in range(count))
    entries = tuple(
        dataclasses.replace(entry, index=index)
        for index in range(count)
        for entry in layer(index).entries
    )
    return Table(entries=entries, ignored=table.ignored)


def concatenate(tables: Iterable[Table]) -> Table:
    """Returns the sum of any number of tables."""
    return sum(tables, start=Table(entries=()))


def to_nnx(state_dict: Mapping[str, Any], table: Table, abstract: Any) -> Any:
    """Fills a tree with the tensors of a torch state dict.

    Args:
      state_dict: torch name -> array (anything numpy can read).
      table: the mapping; every leaf of `abstract` and every name must be in it.
      abstract: a pure tree (nested dicts or nnx.State of arrays or ShapeDtypeStructs), with or
        without the batch statistics.

    Returns:
      A tree of `abstract`'s structure and dtypes, of numpy arrays; arrays that were neither stacked
      nor converted are views of the state dict's.

    Raises:
      WeightsError: listing every missing, extra and misshaped name.
    """
    problems = find_problems(state_dict, table, abstract)
    if problems:
        raise MisfitError.of(problems, "Use weights of a model of exactly the same sizes.")
    leaves, treedef = _flatten(abstract)
    by_path = _by_path(table)
    filled = []
    for path, leaf in leaves.items():
        entries = sorted(by_path[path], key=lambda entry: entry.index or 0)
        arrays = [entry.to_nnx(np.asarray(state_dict[entry.torch])) for entry in entries]
        array = arrays[0] if entries[0].index is None else np.stack(arrays)
        filled.append(array.astype(leaf.dtype, copy=False))
    return jax.tree.unflatten(treedef, filled)


def find_problems(
    state_dict: Mapping[str, Any], table: Table, abstract: Any
) -> dict[str, list[str]]:
    """Finds the names that keep a state dict from filling a tree.

    Args:
      state_dict: state dict as `to_nnx` takes it.
      table: the mapping.
      abstract: tree as `to_nnx` takes it.

    Returns:
      "missing", "extra" and "misshaped" -> names, with an explanation where needed; kinds without a
      name are left out, so an empty dictionary means that all fits.
    """
    leaves, _ = _flatten(abstract)
    by_path = _by_path(table)
    known = {entry.torch for entry in table.entries}
    missing = sorted(known - set(state_dict))
    extra = sorted(name for name in set(state_dict) - known if not table.ignores(name))
    extra.extend(f"{_dotted(path)} (in the model)" for path in leaves if path not in by_path)
    misshaped = []
    for path, entries in by_path.items():
        leaf = leaves.get(path)
        if leaf is None:
            missing.append(f"{_dotted(path)} (in the model, for {entries[0].torch})")
            continue
        stack = len(entries) if entries[0].index is not None else None
        if stack is not None and leaf.shape[:1] != (stack,):
            misshaped.append(f"{_dotted(path)}: {stack} layers, the model has {leaf.shape[:1]}")
            continue
        for entry in (entry for entry in entries if entry.torch in state_dict):
            found = tuple(np.shape(state_dict[entry.torch]))
            wanted = entry.torch_shape(tuple(leaf.shape))
            if found != wanted:
                misshaped.append(f"{entry.torch}: {found}, the model needs {wanted}")
    problems = {"missing": missing, "extra": extra, "misshaped": misshaped}
    return {kind: names for kind, names in problems.items() if names}


def _by_path(table: Table) -> dict[Path, list[Entry]]:
    by_path: dict[Path, list[Entry]] = collections.defaultdict(list)
    for entry in table.entries:
        by_path[entry.path].append(entry)
    return by_path


def to_torch(tree: Any, table: Table, *, partial: bool = False) -> dict[str, np.ndarray]:
    """Converts parameters, statistics or gradients to a torch state dict: the inverse of `to_nnx`.

    Args:
      tree: a pure tree of arrays.
      table: the mapping.
      partial: whether entries without a leaf are left out (a tree of gradients has no batch
        statistics); otherwise they are an error.

    Returns:
      torch name -> array in torch's layout, in the table's order.

    Raises:
      WeightsError: listing leaves that have no entry and, unless `partial`, entries that have
        no leaf.
    """
    leaves, _ = _flatten(tree)
    paths = {entry.path for entry in table.entries}
    extra = [_dotted(path) for path in leaves if path not in paths]
    missing = [] if partial else [e.torch for e in table.entries if e.path not in leaves]
    if extra or missing:
        problems = {"missing": missing, "extra": extra}
        raise WeightsError(
            f"The parameters are not those of the table of torch's names ({listed(problems)}).",
            "Use the table of the model that the parameters belong to.",
            where="parameters",
        )
    arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    return {
        entry.torch: entry.to_torch(arrays[entry.path])
        for entry in table.entries
        if entry.path in arrays
    }


def _flatten(tree: Any) -> tuple[dict[Path, Any], Any]:
    """Returns leaves by path, in the order of the tree's structure."""
    found, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(_name(key) for key in path): leaf for path, leaf in found}, treedef


def _name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"a tree of dicts and lists is needed, found the key {key!r}")


def _dotted(path: Path) -> str:
    return ".".join(path)
