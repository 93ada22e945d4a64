"""Containers of features on the host, and functions that cut rows into blocks and join them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from prior_jax.errors import DataError
from prior_jax.types import ImageFeatures, ReportFeatures


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportTokens:
    """Tokenised reports or prompts, on the host.

    Attributes:
      tokens: token ids, int32[N, L].
      token_mask: mask of the real tokens, bool[N, L].
      sentence_index: sentence that owns each token, int32[N, L], -1 where no sentence owns it.
      sentence_mask: mask of the real sentences, bool[N, S].
    """

    tokens: np.ndarray
    token_mask: np.ndarray
    sentence_index: np.ndarray
    sentence_mask: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studies:
    """Features of N studies on the host, without the rows that only fill a batch.

    Attributes:
      images: image features, float32, one row per study.
      reports: report features, float32, padded to the longest report; None if they were not
        requested.
      labels: label states, int8[N, C].
      record: index of each record in its split, int32[N].
    """

    images: ImageFeatures
    reports: ReportFeatures | None
    labels: np.ndarray
    record: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooled:
    """Inputs of a linear probe for N studies, on the host.

    Attributes:
      features: pooled image features, float32[N, F], see `ImageFeatures.pooled`.
      labels: label states, int8[N, C].
      record: index of each record in its split, int32[N].
    """

    features: np.ndarray
    labels: np.ndarray
    record: np.ndarray


def to_host(tree: Any) -> Any:
    """Copies device arrays, including those sharded over processes, to every host.

    Args:
      tree: tree of device arrays.

    Returns:
      The same tree of numpy arrays.
    """

    def fetch(x):
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
        return np.asarray(x)

    return jax.tree.map(fetch, tree)


def finite(features: Any, where: str) -> Any:
    """Returns the features; raises a DataError that names `where` if a value is not finite."""
    for leaf in jax.tree.leaves(features):
        if leaf.dtype != bool and not np.isfinite(leaf).all():
            raise not_finite("The features", where=where)
    return features


def not_finite(what: str, *, where: str = "") -> DataError:
    """Returns the error for values of a model that are not finite.

    Args:
      what: beginning of a sentence, e.g. "The features".
      where: name of the inputs, e.g. "records [4, 5]".
    """
    return DataError(
        f"{what} contain NaN or infinity.",
        "Use other weights, such as an earlier checkpoint of the run.",
        where=where,
    )


def same_length(parts: Sequence[ReportFeatures]) -> list[ReportFeatures]:
    """Pads every part to the length of the longest, so that they can be joined."""
    longest = max(part.local_mask.shape[1] for part in parts)

    def pad(x):
        return np.pad(x, [(0, 0), (0, longest - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])

    return [
        dataclasses.replace(part, local=pad(part.local), local_mask=pad(part.local_mask))
        for part in parts
    ]


def join(parts: Sequence[Any]) -> Any:
    """Concatenates the rows of several trees."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def fitting(block: int, count: int) -> int:
    """Returns a size of blocks that few rows do not fill up with copies by the thousand.

    Args:
      block: size that is asked for.
      count: number of rows.

    Returns:
      `block`, or the least power of two that holds all rows, if that is smaller: sizes differ
      little, so that few programs are compiled.
    """
    return min(block, 1 << max(count - 1, 0).bit_length())


def blocks(tree: Any, block: int) -> Iterator[tuple[int, Any]]:
    """Cuts the leading axis into blocks of one size: (real rows, block filled with copies)."""
    count = len(jax.tree.leaves(tree)[0])
    if block < 1:
        raise ValueError(f"block must be >= 1, got {block}")
    for start in range(0, count, block):
        taken = np.minimum(np.arange(start, start + block), count - 1)
        yield min(block, count - start), jax.tree.map(lambda x, taken=taken: x[taken], tree)


def numbered(tree: Any, block: int) -> Iterator[tuple[int, tuple[int, Any]]]:
    """Yields the blocks, each with the number of its first row."""
    for index, part in enumerate(blocks(tree, block)):
        yield index * block, part
