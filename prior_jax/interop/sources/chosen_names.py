"""Selects the names of the model in a file, and finds prefixes that a user may have to give."""

import collections
import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.table import Recipe
from prior_jax.interop.sources.wrapped_names import (
    COUNTER,
    WRAPPERS,
    dotted,
    listed,
    prefixes,
    under_prefix,
    unwrapped,
)
from prior_jax.interop.torch.misfits import restated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """The names of the model in a file.

    Attributes:
      names: plain name -> name in the file.
      outer: prefix of nearly every plain name in the file.
      renamed: plain name -> name in the file, where that is not `outer` and the plain name.
      outside: names of the file outside the prefix that a user named.
      notes: sentences on the prefixes that were taken off.
    """

    names: Mapping[str, str]
    outer: str
    renamed: Mapping[str, str]
    outside: tuple[str, ...]
    notes: tuple[str, ...]


def choose(tensors: Mapping[str, Any], prefix: str | None, recipes: Mapping[str, Recipe]) -> Chosen:
    """Finds the model's names.

    Args:
      tensors: name in the file -> tensor.
      prefix: prefix of the model's names as the user gave it; None takes every name.
      recipes: part -> recipe that describes the names of the part.

    Raises:
      ConfigError: if no name has the prefix.
    """
    names, start = list(tensors), ""
    if prefix is not None:
        names, start = under_prefix(names, prefix, _prefixes(tensors, recipes)), dotted(prefix)
    plain = unwrapped([name.removeprefix(start) for name in names])
    pairs = dict(zip(plain.names, names, strict=True))
    befores = collections.Counter(
        name.removesuffix(short) for short, name in pairs.items() if name.endswith(short)
    )
    outer = befores.most_common(1)[0][0] if befores else ""
    taken = set(names)
    return Chosen(
        names=pairs,
        outer=outer,
        renamed={short: name for short, name in pairs.items() if name != outer + short},
        outside=tuple(name for name in tensors if name not in taken),
        notes=tuple(
            f"{count} names have the {part!r} of {WRAPPERS[part]} in them, which was taken off"
            for part, count in plain.wrappers.items()
        ),
    )


def _prefixes(names: Iterable[str], recipes: Mapping[str, Recipe]) -> dict[str, int]:
    """Returns the prefixes in a file after which names look as the recipes describe."""
    probes = "|".join(
        re.escape(layout.prefix) + recipe.probe(layout)
        for recipe in recipes.values()
        for layout in recipe.layouts
        if not layout.numbered  # the names of any torch.nn.Sequential begin with "0."
    )
    return prefixes(names, lambda name: re.match(probes, name) is not None)


@contextlib.contextmanager
def naming_prefixes(names: Iterable[str], recipes: Mapping[str, Recipe]) -> Iterator[None]:
    """Extends an error on names that do not fit, see `with_prefixes`."""
    try:
        yield
    except WeightsError as error:
        raise with_prefixes(error, names, recipes) from error


def with_prefixes(
    error: WeightsError, names: Iterable[str], recipes: Mapping[str, Recipe]
) -> WeightsError:
    """Returns the error, extended by the prefixes after which names of the model were found.

    Args:
      error: error that says which names do not fit.
      names: every name of the file.
      recipes: part -> recipe that describes the names of the part.
    """
    names = [name for name in names if name.split(".")[-1] != COUNTER]
    # Wrappers around all names have been removed already: giving them as a prefix would not help.
    plain = {
        prefix: count
        for prefix, count in _prefixes(names, recipes).items()
        if prefix and not (_only_wrappers(prefix) and count == len(names))
    }
    if not plain:
        return error
    best = next(iter(plain))
    words = f"Such names stand under {listed(plain)}; for example --prefix={best} reads those."
    return restated(error, remedy=f"{error.remedy} {words}")


def refuse_dilated(tensors: Mapping[str, Any], prefix: str | None) -> None:
    """Refuses the ResNet of torchvision's models of segmentation, which no name tells apart.

    Their last stages are dilated in place of having strides (torchvision, models/segmentation,
    `replace_stride_with_dilation`), so that the same tensors compute other maps. Their classifiers
    are convolutions; a linear `classifier` stands beside a `backbone` of any other kind.

    Args:
      tensors: name in the file -> tensor.
      prefix: prefix of the model's names as the user gave it.

    Raises:
      WeightsError: if the prefix is `backbone.` and such a classifier stands beside it.
    """
    before, _, last = (prefix or "").removesuffix(".").rpartition(".")
    start = f"{before}." if before else ""
    if last != "backbone":
        return
    pattern = re.compile(rf"{re.escape(start)}(aux_)?classifier\..*weight")
    for name, tensor in tensors.items():
        if pattern.fullmatch(name) and len(tensor.shape) == 4:
            raise WeightsError(
                f"Beside {prefix!r} there is a classifier of convolutions, as in torchvision's "
                "models of segmentation, whose ResNet is dilated: the same weights compute other "
                "features than in a ResNet.",
                "Give weights of a plain ResNet, such as torchvision's resnet50.",
                where=name,
            )


def _only_wrappers(prefix: str) -> bool:
    return all(part in WRAPPERS for part in prefix.rstrip(".").split("."))
