"""The containers that data flows through: records -> Batch -> features -> loss terms."""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar, dataclass_transform

import flax.struct
import jax
import numpy as np

_Kind = TypeVar("_Kind")

Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""Width and height in pixels of the anchor boxes of each scale of a detector."""


@dataclass_transform(frozen_default=True)
def _container(kind: type[_Kind]) -> type[_Kind]:
    """Makes a class a frozen dataclass whose fields are arrays to JAX."""
    # Flax gives its options no types.
    return flax.struct.dataclass(kind)  # pyright: ignore[reportUnknownMemberType]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPart:
    """The part of every global batch that one process loads.

    Attributes:
      blocks: numbers of the blocks that the process loads, ascending.
      count: number of equal blocks that the rows of a global batch are cut into.
    """

    blocks: tuple[int, ...]
    count: int

    def rows(self, batch_size: int) -> np.ndarray:
        """Returns the rows of a global batch that the process loads: int64[R], ascending.

        Raises:
          ValueError: if the batch cannot be cut into so many equal blocks.
        """
        if batch_size % self.count:
            raise ValueError(f"{batch_size} rows cannot be cut into {self.count} equal blocks")
        return np.arange(batch_size).reshape(self.count, -1)[list(self.blocks)].reshape(-1)


WHOLE_BATCH = BatchPart(blocks=(0,), count=1)
"""The part of a process that is alone."""


@_container
class Boxes:
    """Boxes of findings on the images of a batch, padded to a common number N for each image.

    Attributes:
      corners: float32[B, N, 4], x1, y1, x2, y2 in pixels of `Batch.image`; 0 in rows of no box.
      classes: int32[B, N], class of each box, counted from 0; 0 in rows of no box.
      real: bool[B, N], True where row n is a box.
    """

    corners: jax.Array
    classes: jax.Array
    real: jax.Array


@_container
class Detections:
    """Boxes that a detector finds on the images of a batch, from the highest score on.

    Attributes:
      corners: float32[B, M, 4], x1, y1, x2, y2 in pixels of the model's image; 0 in rows of no box.
      classes: int32[B, M], class of each box, counted from 0; 0 in rows of no box.
      scores: float32[B, M], score of each box; 0 in rows of no box.
      real: bool[B, M], True where row m is a box.
      found: int32[B], number of boxes that were found on each image, of which M are kept at most.
    """

    corners: jax.Array
    classes: jax.Array
    scores: jax.Array
    real: jax.Array
    found: jax.Array


@_container
class Batch:
    """One global batch of image-report pairs, padded to fixed shapes.

    Attributes:
      image: float32[B, H, W, C], normalised by the data set's mean and standard deviation.
      tokens: int32[B, L], token ids, the tokenizer's pad id behind the report's end.
      token_mask: bool[B, L], True on real tokens, [CLS] and [SEP] included.
      sentence_index: int32[B, L], which sentence owns the token, counted from 0; -1 on
        [CLS], [SEP] and padding.
      sentence_mask: bool[B, S], True where sentence s of the report exists.
      labels: int8[B, C], 1 positive, 0 negative, -1 uncertain, -2 not mentioned.
      weight: float32[B], 1 for a real pair, 0 for a row that only fills the batch.
      record: int32[B], the record's index in its split; -1 for a filling row.
      masks: bool[B, H, W, K], the pixels of each class's findings; None where no masks are read.
      boxes: boxes of findings; None where no boxes are read.
    """

    image: jax.Array
    tokens: jax.Array
    token_mask: jax.Array
    sentence_index: jax.Array
    sentence_mask: jax.Array
    labels: jax.Array
    weight: jax.Array
    record: jax.Array
    masks: jax.Array | None = None
    boxes: Boxes | None = None


@_container
class ImageFeatures:
    """What an image encoder gives.

    Attributes:
      local: [B, P, D], one row a patch, row-major over the feature grid.
      global_: [B, D], the image as one vector, not normalised.
      pooled: [B, F], the encoder's own vector, before any projection: what a linear probe sees.
    """

    local: jax.Array
    global_: jax.Array
    pooled: jax.Array


@_container
class ReportFeatures:
    """What a report encoder gives.

    Attributes:
      local: [B, T, D], one row a sentence or a word, as the objective has it; rows where
        `local_mask` is False are 0.
      local_mask: bool[B, T].
      global_: [B, D], the report as one vector, not normalised.
    """

    local: jax.Array
    local_mask: jax.Array
    global_: jax.Array


@_container
class LossTerms:
    """Named, unweighted loss terms of one batch, and what is logged beside them.

    Attributes:
      terms: name -> float32[]; the weighted sum of these is minimised.
      metrics: name -> float32[]; logged, never differentiated.
    """

    terms: Mapping[str, jax.Array]
    metrics: Mapping[str, jax.Array]
