"""The two encoders of a trained model as plain functions of arrays, ready for export."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from prior_jax.objectives.base import Objective

BATCH = "b"
"""Name of the one symbolic dimension: the images or reports of a batch, at least 1."""

IMAGE_OUTPUTS = ("local", "global_", "pooled")
"""Outputs of the tower "image": the fields of `types.ImageFeatures`, floats as float32."""

TEXT_OUTPUTS = ("local", "local_mask", "global_")
"""Outputs of the tower "text": the fields of `types.ReportFeatures`, floats as float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tower:
    """An encoder with its projections, in inference mode, weights included.

    Attributes:
      function: function that takes one array per input, in their order, and returns a dictionary of
        the outputs.
      inputs: name -> shape and dtype; the leading dimension of each is the batch, `BATCH`.
      outputs: names of the outputs; the leading dimension of each is the batch.
    """

    function: Callable[..., dict[str, jax.Array]]
    inputs: Mapping[str, jax.ShapeDtypeStruct]
    outputs: tuple[str, ...]


def towers(
    objective: Objective,
    model: nnx.Module,
    *,
    image_shape: Sequence[int],
    max_tokens: int,
    max_sentences: int,
) -> dict[str, Tower]:
    """Returns both towers of a model.

    Args:
      objective: the model's objective, without mesh axes: as `prior_jax.load` and `assemble` on one
        device make it.
      model: the model with its weights.
      image_shape: (H, W, C) of an image.
      max_tokens: number of tokens L of a report.
      max_sentences: number of sentences S of a report.

    Returns:
      "image" takes `image` float32[b, H, W, C], normalised. "text" takes `tokens` int32[b, L],
      `token_mask` bool[b, L], `sentence_index` int32[b, L] and `sentence_mask` bool[b, S], as the
      fields of `types.Batch`. The noise of a release at inference is drawn from the release's own
      seed and the report's position in the batch (quirk P8), as `encode_report` does without a key.

    Raises:
      ValueError: for a size that is not positive.
    """
    image_shape = tuple(image_shape)
    _check_sizes(image_shape=image_shape, max_tokens=(max_tokens,), max_sentences=(max_sentences,))
    graph, state = nnx.split(model)
    state = nnx.as_pure(state)

    def image_tower(image: jax.Array) -> dict[str, jax.Array]:
        whole = nnx.merge(graph, state, copy=True)
        return _fields(objective.encode_image(whole, image), IMAGE_OUTPUTS)

    def text_tower(*reports: jax.Array) -> dict[str, jax.Array]:
        whole = nnx.merge(graph, state, copy=True)
        return _fields(objective.encode_report(whole, *reports), TEXT_OUTPUTS)

    (batch,) = export.symbolic_shape(BATCH)
    image = _rows(batch, image=(image_shape, jnp.float32))
    text = _rows(
        batch, tokens=((max_tokens,), jnp.int32), token_mask=((max_tokens,), jnp.bool_),
        sentence_index=((max_tokens,), jnp.int32), sentence_mask=((max_sentences,), jnp.bool_),
    )  # fmt: skip
    return {
        "image": Tower(function=image_tower, inputs=image, outputs=IMAGE_OUTPUTS),
        "text": Tower(function=text_tower, inputs=text, outputs=TEXT_OUTPUTS),
    }


def _check_sizes(**sizes: tuple[int, ...]) -> None:
    """Refuses a size that is not positive, or an image's shape that is not (H, W, C), by name."""
    for name, size in sizes.items():
        if min(size, default=0) < 1 or len(size) != (3 if name == "image_shape" else 1):
            count = "3 positive integers (H, W, C)" if name == "image_shape" else "1 or more"
            raise ValueError(f"{name} is {size}. It must be {count}.")


def _rows(batch: Any, **rows: tuple[tuple[int, ...], Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the inputs of a tower: as many rows as the batch has, each of a shape and dtype."""
    return {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype) for name, (shape, dtype) in rows.items()
    }


def _fields(features: Any, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """Returns the named fields; floats of any width become float32, which every runtime reads."""
    found = {name: getattr(features, name) for name in names}
    return {
        name: value.astype(jnp.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value
        for name, value in found.items()
    }
