"""Runs a model over a data set: features on the host, similarities block by block."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import fine_regions
from prior_jax.evaluate.features import (
    Pooled,
    ReportTokens,
    Studies,
    blocks,
    finite,
    join,
    numbered,
    same_length,
    to_host,
)
from prior_jax.objectives.base import ComparesParts, Encodes, ShowsAttention, SimilarityKind
from prior_jax.types import Batch, ImageFeatures, ReportFeatures


class Encoder:
    """The compiled encoders and similarity of an objective, for all models of one structure."""

    def __init__(self, objective: Encodes, model: nnx.Module, *, place: Callable[[Any], Any]):
        """Prepares lazy compilation: nothing runs until the first batch.

        Args:
          objective: objective of the model.
          model: model that the objective's `init` built, trained or not.
          place: function that puts a tree of host arrays, the same on every process, on the devices
            (`jax.device_put` for one device; sharded over the batch on a mesh).
        """
        self._graph, state = nnx.split(model)
        self._state = nnx.as_pure(state)
        self._place = place
        graph = self._graph

        def revive(state):
            return nnx.merge(graph, state, copy=True)

        def images(state, image):
            return _to_float32(objective.encode_image(revive(state), image))

        def reports(state, *tokens):
            return _to_float32(objective.encode_report(revive(state), *tokens))

        def similarity(state, images, reports, *, kind):
            found = _compare(objective, revive(state), images, reports, kind=kind)
            return found.astype(jnp.float32)

        def attention(state, images, reports):
            looks = _looking(objective)
            return looks.text_attention(revive(state), images, reports).astype(jnp.float32)

        self._objective = objective
        self._images, self._reports = jax.jit(images), jax.jit(reports)
        self._similarity = jax.jit(similarity, static_argnames="kind")
        self._attention = jax.jit(attention)

    @property
    def patch_spacing(self) -> float:
        """Returns `ShowsAttention.patch_spacing`.

        Raises a ConfigError if the objective shows no attention.
        """
        return _looking(self._objective).patch_spacing

    def with_model(self, model: nnx.Module) -> "Encoder":
        """Returns the same compiled functions with other weights, e.g. untrained ones.

        Args:
          model: model of the same structure.

        Returns:
          A new encoder; this encoder is unchanged.

        Raises:
          ValueError: if the structure differs.
        """
        graph, state = nnx.split(model)
        if graph != self._graph:
            raise ValueError("the model's structure differs from the one compiled for")
        other = object.__new__(Encoder)
        other.__dict__.update(self.__dict__)
        other._state = nnx.as_pure(state)
        return other

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function of the model and arrays into a function of the arrays.

        Args:
          function: function to compile, e.g. a method of the objective, which takes the model
            first.

        Returns:
          The compiled function. The model's arrays are arguments, not constants, of the compiled
          program, so that one program serves every model of the same structure.
        """

        def run(state, *arguments):
            return function(nnx.merge(self._graph, state, copy=True), *arguments)

        return functools.partial(jax.jit(run), self._state)

    def studies(
        self,
        batches: Iterable[Batch],
        *,
        reports: bool,
        attention: fine_regions.AttentionConfig = fine_regions.OWN,
    ) -> Studies:
        """Encodes a split once.

        Args:
          batches: batches of one pass over the split, arrays in any form that `jax.jit` accepts
            (sharded or on the host); rows of weight 0 are dropped.
          reports: whether the reports are encoded as well as the images.
          attention: grid of the local features of images; a finer one than the encoder's own needs
            attention, and takes the square of its shifts in time and in memory.

        Returns:
          Features in the order of the batches.

        Raises:
          ConfigError: if a finer grid is asked of an objective that shows no attention, or does not
            fit the spacing of its regions.
          DataError: if no batch holds a real row, or a feature is not finite.
        """
        kept = [self._encode(batch, reports=reports, attention=attention) for batch in batches]
        kept = [part for part in kept if part.record.size]
        if not kept:
            raise _no_record()
        found = [part.reports for part in kept if part.reports is not None]
        return Studies(
            images=join([part.images for part in kept]),
            reports=join(same_length(found)) if reports else None,
            labels=np.concatenate([part.labels for part in kept]),
            record=np.concatenate([part.record for part in kept]),
        )

    def pooled(self, batches: Iterable[Batch]) -> Pooled:
        """Encodes the images of a split and keeps one pooled vector per image.

        Args:
          batches: batches of one pass over the split, see `studies`.

        Returns:
          Features in the order of the batches.

        Raises:
          DataError: for the reasons that `studies` lists.
        """
        kept = [
            Pooled(features=np.asarray(part.images.pooled), labels=part.labels, record=part.record)
            for part in (
                self._encode(batch, reports=False, attention=fine_regions.OWN) for batch in batches
            )
        ]
        if not any(part.record.size for part in kept):
            raise _no_record()
        return Pooled(
            features=np.concatenate([part.features for part in kept]),
            labels=np.concatenate([part.labels for part in kept]),
            record=np.concatenate([part.record for part in kept]),
        )

    def attention(
        self, images: ImageFeatures, reports: ReportFeatures, *, block: int
    ) -> np.ndarray:
        """Computes the attention of each report's text over the image of the same row.

        Args:
          images: image features on the host, N rows.
          reports: report features on the host, N rows.
          block: number of rows computed at once.

        Returns:
          Attention, float32[N, T, P], on the host, see `ShowsAttention.text_attention`.

        Raises:
          ConfigError: if the objective shows no attention.
          DataError: if a value is not finite.
        """
        found = self._in_blocks(self._attention, (images, reports), block)
        return finite(found, "attention")

    def images(self, image: np.ndarray, *, block: int) -> ImageFeatures:
        """Encodes images.

        Args:
          image: normalised images, float32[N, H, W, C].
          block: number of rows encoded at once, see `prompts`.

        Returns:
          Image features, float32, on the host, N rows.

        Raises:
          DataError: if a feature is not finite.
        """
        return finite(self._in_blocks(self._images, (image,), block), "images")

    def prompts(self, tokens: ReportTokens, *, block: int) -> ReportFeatures:
        """Encodes tokenised sentences.

        Args:
          tokens: tokens of N sentences.
          block: number of rows encoded at once; the last block is filled up with copies of its last
            row.

        Returns:
          Report features, float32, on the host, N rows.

        Raises:
          DataError: if a feature is not finite.
        """
        fields = (tokens.tokens, tokens.token_mask, tokens.sentence_index, tokens.sentence_mask)
        return finite(self._in_blocks(self._reports, fields, block), "prompts")

    def similarity_blocks(
        self,
        images: ImageFeatures,
        reports: ReportFeatures,
        *,
        block: int,
        columns: int | None = None,
        kind: SimilarityKind = "both",
    ) -> Iterator[tuple[int, int, jax.Array]]:
        """Compares every image with every report, a block of pairs at a time.

        Args:
          images: image features on the host, N rows.
          reports: report features on the host, M rows.
          block: number of rows and columns of a block; only one block is in memory at a time.
          columns: number of columns of a block, if it differs from the number of rows.
          kind: part of the similarity: "both" for the objective's similarity, "global" or "local"
            for one part of it.

        Yields:
          The tuple (first image, first report, float32[block, columns]); the last blocks are filled
          up with copies, which the caller must cut off or mask.

        Raises:
          ConfigError: for an unknown kind, or a part that the objective's similarity does not have.
        """
        across = block if columns is None else columns
        report_parts = [(start, part) for start, (_, part) in numbered(reports, across)]
        for row, (_, image_part) in numbered(images, block):
            placed = self._place(image_part)
            for column, report_part in report_parts:
                yield row, column, self._similarity(self._state, placed, report_part, kind=kind)

    def similarity(
        self,
        images: ImageFeatures,
        reports: ReportFeatures,
        *,
        block: int,
        columns: int | None = None,
        kind: SimilarityKind = "both",
    ) -> np.ndarray:
        """Computes the whole similarity matrix, for few reports or few images.

        Args:
          images: image features on the host, N rows.
          reports: report features on the host, M rows.
          block: number of rows and columns computed at once.
          columns: number of columns of a block, if it differs from the number of rows.
          kind: part of the similarity, see `similarity_blocks`.

        Returns:
          Similarities, float32[N, M], on the host; higher = closer.
        """
        found = np.empty((len(images.global_), len(reports.global_)), np.float32)
        found_blocks = self.similarity_blocks(
            images, reports, block=block, columns=columns, kind=kind
        )
        for row, column, scores in found_blocks:
            target = found[row : row + scores.shape[0], column : column + scores.shape[1]]
            target[:] = to_host(scores)[: target.shape[0], : target.shape[1]]
        return found

    def _in_blocks(self, compute, tree, block):
        """Computes rows a block at a time and joins them on the host."""
        parts = []
        for rows, part in blocks(tree, block):
            features = to_host(compute(self._state, *self._place(part)))
            parts.append(jax.tree.map(lambda x, rows=rows: x[:rows], features))
        return join(parts)

    def _encode(self, batch, *, reports, attention):
        weight, labels, record = to_host((batch.weight, batch.labels, batch.record))
        real = weight > 0
        image_features = to_host(self._images(self._state, batch.image))
        if not attention.own_grid:
            local = fine_regions.fine_regions(
                image_features.local,
                batch.image,
                encode=lambda image: to_host(self._images(self._state, image).local),
                config=attention,
                spacing=self.patch_spacing,
            )
            image_features = dataclasses.replace(image_features, local=local)
        report_features = None
        if reports:
            report_features = to_host(
                self._reports(
                    self._state,
                    batch.tokens,
                    batch.token_mask,
                    batch.sentence_index,
                    batch.sentence_mask,
                )
            )
        features = jax.tree.map(lambda x: x[real], (image_features, report_features))
        finite(features, f"records {record[real].tolist()}")
        return Studies(
            images=features[0], reports=features[1], labels=labels[real], record=record[real]
        )


def _looking(objective: Encodes) -> ShowsAttention:
    """Returns the objective if it shows attention; raises a ConfigError otherwise."""
    if not isinstance(objective, ShowsAttention):
        raise ConfigError(
            f"The objective {type(objective).__name__} has no attention of text over the image.",
            "Choose a model of an objective that has it, such as prior or gloria.",
            where="config.objective",
        )
    return objective


def _no_record() -> DataError:
    return DataError(
        "The batches contain no record, so that there is nothing to encode.",
        "Choose a split that has records.",
    )


def _compare(objective, model, images, reports, *, kind: SimilarityKind) -> jax.Array:
    """Computes a similarity or one part of it: float32[Bi, Br].

    The similarity of an objective without parts counts as its global part.
    """
    if kind not in get_args(SimilarityKind):
        raise ConfigError.of_value("kind", kind, f"one of {', '.join(get_args(SimilarityKind))}")
    parts = isinstance(objective, ComparesParts)
    if kind == "local" and not parts:
        raise ConfigError(
            f"The objective {type(objective).__name__} compares only whole images and reports, so "
            "that it has no similarity of the kind 'local'.",
            "Choose the kind 'both' or 'global'.",
            where="kind",
        )
    if kind == "both" or not parts:
        return objective.similarity(model, images, reports)
    whole, local = objective.similarity_parts(model, images, reports)
    return whole if kind == "global" else local


def _to_float32(features):
    def convert(x):
        return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, features)
