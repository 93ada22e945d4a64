"""Steps that all exports share: selects arrays of one part, renames them and writes their files."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from prior_jax.errors import WeightsError
from prior_jax.interop.torch.names import Table, to_torch
from prior_jax.interop.weights_folder import About, Weights

# Metadata without which transformers and timm refuse a safetensors file.
_METADATA = {"format": "pt"}
# What an exported config.json tells of the weights' origin.
_ORIGIN = ("source", "run", "step", "data", "file", "sha256", "licence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """Content of an exported folder, without its model card.

    Attributes:
      files: file name -> content.
      example: Python that loads the files, at most 15 lines, run with the folder as working
        directory.
      notes: paragraphs for the model card that describe the files.
    """

    files: Mapping[str, bytes]
    example: str
    notes: tuple[str, ...]


def part_of(weights: Weights, prefix: Mapping[str, str], *, wanted: str) -> dict[str, np.ndarray]:
    """Returns the arrays of one encoder, keyed by their paths within it.

    Args:
      weights: weights of an encoder or a whole model.
      prefix: part of the weights -> prefix of the encoder's paths, final slash included.
      wanted: description of the encoder, for errors.

    Raises:
      WeightsError: if the weights have no such encoder.
    """
    start = prefix.get(weights.part)
    found = {} if start is None else below(weights.arrays, start)
    if not found:
        raise WeightsError(
            f"The weights are of part {weights.part!r} and have no {wanted}.",
            f"Give weights with {'an' if wanted[0] in 'aeiou' else 'a'} {wanted}.",
        )
    return found


def below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the arrays whose paths begin with a prefix, keyed by the path without the prefix."""
    return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}


def renamed(arrays: Mapping[str, np.ndarray], table: Table) -> dict[str, np.ndarray]:
    """Returns arrays that are keyed by path as tensors that are keyed by torch name.

    Raises:
      WeightsError: listing arrays that are not in the table, and entries without an array.
    """
    return to_torch(traverse_util.unflatten_dict(dict(arrays), sep="/"), table)


def picked(arrays: Mapping[str, np.ndarray], table: Table) -> dict[str, np.ndarray]:
    """Returns what `renamed` returns, for only those arrays that the table names."""
    paths = {"/".join(entry.path) for entry in table.entries}
    return renamed({name: x for name, x in arrays.items() if name in paths}, table)


def safetensors_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns tensors as the content of a safetensors file that torch's libraries accept."""
    # The writer copies memory as it is, so a transposed view has to be made contiguous first.
    return save({name: np.asarray(x, order="C") for name, x in tensors.items()}, _METADATA)


def sha256(content: bytes) -> str:
    """Returns the hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


def origin_of(about: About) -> dict[str, Any]:
    """Returns where weights come from and what licence binds, for `config.json`."""
    return {name: about.origin[name] for name in _ORIGIN if name in about.origin}


def upsample_of(about: About) -> int | None:
    """Returns the side in pixels to which the model itself resizes its images first, or None.

    GLoRIA has the setting in the section of its image encoder, a classifier in its own.
    """
    image = about.model.get("image") or {}
    return image.get("upsample", about.model.get("upsample"))


def section(model: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a section of the model's settings that a folder of weights keeps.

    Raises:
      WeightsError: if the section is absent.
    """
    if name not in model:
        raise WeightsError(
            "The description of the weights lacks this section.",
            "Import or export the weights again.",
            where=f"weights.model.{name}",
        )
    return model[name]
