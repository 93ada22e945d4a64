"""Writes towers as StableHLO: programs that need only jax to run, on a CPU, a GPU or a TPU."""

import importlib.util
from collections.abc import Sequence

import jax
from flax import nnx
from jax import export

from prior_jax.errors import ExportError
from prior_jax.interop.export.towers import Tower, towers
from prior_jax.objectives.base import Objective

PLATFORMS = ("cpu", "cuda", "tpu")

# A serialised program is one flatbuffer of at most 2 GiB, of which the code takes a little.
_MOST_WEIGHTS = 2**31 - 2**24


def export_towers(
    objective: Objective,
    model: nnx.Module,
    *,
    image_shape: Sequence[int],
    max_tokens: int,
    max_sentences: int,
    platforms: Sequence[str] = PLATFORMS,
) -> dict[str, bytes]:
    """Exports both encoders with their projections, in inference mode, for any batch size.

    Weights are part of the program: one file is the whole tower, and cannot be paired with
    another's weights. It computes in the model's dtype and returns float32.

    Args:
      objective: the model's objective, without mesh axes.
      model: the model with its weights; fewer than 2 GiB a tower.
      image_shape: (H, W, C) of an image.
      max_tokens: number of tokens L of a report.
      max_sentences: number of sentences S of a report.
      platforms: platforms to compile for: "cpu", "cuda", "rocm" or "tpu".

    Returns:
      "image" and "text", each for `jax.export.deserialize(...).call(*inputs)`, which returns a
      dictionary. Inputs, in their order, and outputs are those of `towers.towers`.

    Raises:
      ValueError: for a size that is not positive.
      ExportError: for more weights than fit into one program, or if flatbuffers, which jax writes
        programs with, is not installed.
    """
    found = towers(
        objective,
        model,
        image_shape=image_shape,
        max_tokens=max_tokens,
        max_sentences=max_sentences,
    )
    return {
        name: export_tower(tower, name=f"{name} tower", platforms=platforms)
        for name, tower in found.items()
    }


def export_tower(
    tower: Tower, *, name: str = "model", platforms: Sequence[str] = PLATFORMS
) -> bytes:
    """Exports one function of arrays, weights included, for any batch size.

    Args:
      tower: the function, see `towers.Tower`.
      name: what it is called in messages.
      platforms: platforms to compile for.

    Returns:
      The program, for `jax.export.deserialize(...).call(*inputs)`.

    Raises:
      ExportError: for more weights than fit into one program, or if flatbuffers is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ExportError(
            "The package flatbuffers, which jax writes programs with, is not installed.",
            "Run `pip install -e '.[export]'` in the project's folder.",
        )
    traced = export.export(jax.jit(tower.function), platforms=tuple(platforms))
    program = traced(*tower.inputs.values())
    size = len(program.mlir_module_serialized)
    if size > _MOST_WEIGHTS:
        raise ExportError(
            f"The StableHLO program of the {name} has {size} bytes with its weights, and at "
            f"most {_MOST_WEIGHTS} fit into one program.",
            "Export the weights instead, with --format=nnx or --format=image_safetensors.",
        )
    return bytes(program.serialize())
