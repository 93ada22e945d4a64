"""Similarities of every query to every candidate, some queries at a time.

A strip is the number of its first query, and the similarities of consecutive queries to all of the
other side, float[Q, N]. Only one strip is in memory, so that what is needed grows with the number
of records and not with its square.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import blocks, to_host
from prior_jax.objectives.base import SimilarityKind
from prior_jax.types import ImageFeatures, ReportFeatures

Strip = tuple[int, np.ndarray]
_CELLS = 2**23  # similarities that are sorted at once


def of_matrix(similarity: np.ndarray, *, cells: int = _CELLS) -> Iterator[Strip]:
    """Cuts a matrix that is in memory, float[M, N], into strips of about so many cells."""
    return _cut([(0, np.asarray(similarity))], cells=cells)


def of_images(
    encoder: Encoder,
    images: ImageFeatures,
    reports: ReportFeatures,
    *,
    block: int,
    kind: SimilarityKind,
    cells: int = _CELLS,
) -> Iterator[Strip]:
    """Compares every image with every report; the images ask.

    Args:
      encoder: encoder of the model that computed the features.
      images: features of N images, on the host.
      reports: features of their N reports, on the host.
      block: number of rows and columns compared at once.
      kind: part of the similarity, see `Encoder.similarity_blocks`.
      cells: largest number of similarities in a strip, unless a single query has more.

    Yields:
      Strips of float32[Q, N]: the numbers that `Encoder.similarity` has, to the last bit.
    """
    return _cut(_rows(encoder, images, reports, block=block, kind=kind), cells=cells)


def of_reports(
    encoder: Encoder,
    images: ImageFeatures,
    reports: ReportFeatures,
    *,
    block: int,
    kind: SimilarityKind,
    cells: int = _CELLS,
) -> Iterator[Strip]:
    """Compares every report with every image; the reports ask. For the rest see `of_images`."""
    return _cut(_columns(encoder, images, reports, block=block, kind=kind), cells=cells)


def _rows(encoder: Encoder, images, reports, *, block, kind) -> Iterator[Strip]:
    count = len(images.global_)
    strip = np.empty((min(block, count), count), np.float32)
    pairs = encoder.similarity_blocks(images, reports, block=block, kind=kind)
    for row, column, scores in pairs:
        part = strip[: count - row, column : column + block]
        part[:] = to_host(scores)[: part.shape[0], : part.shape[1]]
        if column + block >= count:
            yield row, strip[: count - row]


def _columns(encoder: Encoder, images, reports, *, block, kind) -> Iterator[Strip]:
    count = len(images.global_)
    for number, (real, part) in enumerate(blocks(reports, block)):
        strip = np.empty((real, count), np.float32)
        pairs = encoder.similarity_blocks(images, part, block=block, kind=kind)
        for row, _, scores in pairs:
            target = strip[:, row : row + block]
            target[:] = np.asarray(to_host(scores)).T[:real, : target.shape[1]]
        yield number * block, strip


def _cut(strips: Iterable[Strip], *, cells: int) -> Iterator[Strip]:
    for start, strip in strips:
        rows = max(cells // max(strip.shape[1], 1), 1)
        for first in range(0, len(strip), rows):
            yield start + first, strip[first : first + rows]
