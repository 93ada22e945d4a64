"""Writes towers as StableHLO: programs that jax alone runs, on a CPU, a GPU or a TPU."""

import importlib.util
from collections.abc import Sequence

import jax
from flax import nnx
from jax import export

from prior_jax.errors import ExportError
from prior_jax.interop.export.towers import Tower, towers
from prior_jax.objectives.base import Objective

PLATFORMS = ("cpu", "cuda", "tpu")

# A serialised program is one flatbuffer, which addresses 2 GiB; the program itself needs a little.
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
    """Both encoders with their projections, in inference mode, for any batch.

    Weights are part of the program: one file is the whole tower, and cannot be paired with
    another's weights. It computes in the model's dtype and gives float32.

    Args:
      objective: the model's, without mesh axes.
      model: with its weights; fewer than 2 GiB a tower.
      image_shape: (H, W, C) of an image.
      max_tokens: L.
      max_sentences: S.
      platforms: where it is to run: "cpu", "cuda", "rocm" or "tpu".

    Returns:
      "image" and "text", each for `jax.export.deserialize(...).call(*inputs)`, which gives a
      dictionary. Inputs, in their order, and outputs are those of `towers.towers`.

    Raises:
      ValueError: for a size that is not positive.
      ExportError: for more weights than fit into one program, or if flatbuffers, which jax writes
        programs with, is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        accepted = "pip install prior_jax[export]"
        raise ExportError("flatbuffers", received="not installed", accepted=accepted)
    found = towers(
        objective,
        model,
        image_shape=image_shape,
        max_tokens=max_tokens,
        max_sentences=max_sentences,
    )
    return {name: _write(tower, name, platforms) for name, tower in found.items()}


def _write(tower: Tower, name: str, platforms: Sequence[str]) -> bytes:
    traced = export.export(jax.jit(tower.function), platforms=tuple(platforms))
    program = traced(*tower.inputs.values())
    size = len(program.mlir_module_serialized)
    if size > _MOST_WEIGHTS:
        raise ExportError(
            f"StableHLO of the {name} tower",
            received=f"{size} bytes",
            accepted=f"at most {_MOST_WEIGHTS}: one program holds its weights",
        )
    return bytes(program.serialize())
