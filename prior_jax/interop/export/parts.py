"""The parts of weights that leave under other names: which arrays, which names, which files."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from prior_jax.errors import WeightsError
from prior_jax.interop.torch.names import Table, to_torch
from prior_jax.interop.weights_folder import Weights

# What transformers and timm look for before they read a file.
_METADATA = {"format": "pt"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A folder to be, without its card.

    Attributes:
      files: name -> content.
      example: Python that loads them, at most 15 lines, run with the folder as working directory.
      notes: paragraphs for the card: what the files hold.
    """

    files: Mapping[str, bytes]
    example: str
    notes: tuple[str, ...]


def part_of(weights: Weights, prefix: Mapping[str, str], *, wanted: str) -> dict[str, np.ndarray]:
    """The arrays of one encoder, by path below it.

    Args:
      weights: of an encoder or a whole model.
      prefix: part of the weights -> where the encoder's paths begin, a slash included.
      wanted: what is looked for, for errors.

    Raises:
      WeightsError: if the weights have no such encoder.
    """
    start = prefix.get(weights.part)
    found = {} if start is None else below(weights.arrays, start)
    if not found:
        raise WeightsError(
            f"weights of part {weights.part!r}", received=f"no {wanted}", accepted=f"a {wanted}"
        )
    return found


def below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays whose path begins so, by the rest of it."""
    return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}


def renamed(arrays: Mapping[str, np.ndarray], table: Table) -> dict[str, np.ndarray]:
    """Arrays by path as tensors by torch name.

    Raises:
      WeightsError: listing arrays that are not in the table, and entries without an array.
    """
    return to_torch(traverse_util.unflatten_dict(dict(arrays), sep="/"), table)


def picked(arrays: Mapping[str, np.ndarray], table: Table) -> dict[str, np.ndarray]:
    """As `renamed`, of those arrays that the table names."""
    paths = {"/".join(entry.path) for entry in table.entries}
    return renamed({name: x for name, x in arrays.items() if name in paths}, table)


def safetensors_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Tensors as the content of a safetensors file that torch's libraries accept."""
    # Transposed views would be written in the order of their memory.
    return save({name: np.asarray(x, order="C") for name, x in tensors.items()}, _METADATA)


def sha256(content: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


def section(model: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of the sizes in weights.

    Raises:
      WeightsError: if it is absent.
    """
    if name not in model:
        raise WeightsError(f"weights.model.{name}", received="nothing", accepted="a section")
    return model[name]
