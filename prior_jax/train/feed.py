"""Transfers the host's batches to the mesh, and measures how long the devices waited for them."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from prior_jax.errors import DataError
from prior_jax.processes import activities
from prior_jax.sharding.mesh import batch_sharding, check_batch_size, process_part
from prior_jax.types import Batch, BatchPart


class TrainingData(Protocol):
    """The interface that training requires of the data."""

    def train_batches(self, *, start_step: int, part: BatchPart) -> Iterator[tuple[int, Batch]]:
        """Yields (step, batch of numpy arrays) from a step on.

        For data opened in the same way (the same set, tokenizer and settings) the batch of a step
        is always the same, from whatever step on it is asked for. The rows are those of `part`.
        """
        ...

    def record_id(self, index: int) -> str:
        """Returns the id of the record with this index in `Batch.record`."""
        ...


@dataclasses.dataclass(frozen=True)
class Fed:
    """One batch on the devices.

    Attributes:
      step: index of the step that uses the batch.
      batch: global arrays.
      records: int32[b], indices of this process's records, -1 for filling rows.
    """

    step: int
    batch: Batch
    records: np.ndarray


class Feed:
    """Iterates over the batches of steps start..stop-1, one step ahead of the loop.

    Attributes:
      waited_seconds: seconds in which the devices may have had nothing to do for want of a batch,
        so far. A wait counts in full unless the devices were still computing at its end.
    """

    def __init__(
        self, data: TrainingData, *, start: int, stop: int, mesh: Mesh, data_axes: Sequence[str]
    ):
        """Opens the data at a step.

        Args:
          data: source of the batches, see `TrainingData`.
          start: index of the first step.
          stop: one past the index of the last step.
          mesh: mesh that the batches are transferred to.
          data_axes: axes that the rows are split over.
        """
        self._data, self._stop = data, stop
        self._part = process_part(mesh, data_axes)
        self._mesh, self._axes = mesh, tuple(data_axes)
        self._sharding = batch_sharding(mesh, data_axes)
        self.waited_seconds = 0.0
        self._open(start)

    def _open(self, start: int) -> None:
        self._iterator = self._data.train_batches(start_step=start, part=self._part)
        self._next = start
        self._ready: Fed | None = None

    def skip_to(self, step: int) -> None:
        """Opens the data again at a later step."""
        self.close()
        self._open(step)

    def prefetch(self, *, computing: Any = None) -> None:
        """Fetches the next batch, if there is one and it has not been fetched yet.

        Args:
          computing: tree of the arrays that the devices compute meanwhile; None if they do nothing.
        """
        if self._ready is None and self._next < self._stop:
            began = time.monotonic()
            self._ready = self._load()
            if _computed(computing):
                self.waited_seconds += time.monotonic() - began

    def take(self) -> Fed:
        """Returns the next batch.

        Raises:
          DataError: if the data ends early, or is at another step.
          ConfigError: if the batch cannot be split over the data axes.
        """
        self.prefetch()
        fed = self._ready
        if fed is None:
            raise ValueError(
                f"The feed was opened for the steps before {self._stop} and has no further batch."
            )
        self._ready = None
        return fed

    def _load(self) -> Fed:
        try:
            with activities.doing(activities.INPUT, step=self._next):
                step, local = next(self._iterator)
        except StopIteration as error:
            raise DataError(
                f"The training data ended before step {self._next}, but the run has {self._stop} "
                "steps.",
                "Let train_batches yield a batch for every step of the run.",
            ) from error
        if step != self._next:
            raise DataError(
                f"The training data gave the batch of step {step} instead of step {self._next}.",
                "Let train_batches yield the batches in order, from start_step on.",
            )
        self._next += 1
        records = np.asarray(local.record)
        total = len(records) * self._part.count // len(self._part.blocks)
        check_batch_size(total, mesh=self._mesh, data_axes=self._axes)

        def place(rows: np.ndarray) -> jax.Array:
            rows = np.asarray(rows)
            # The shape is given, since it cannot be inferred where the blocks lie unevenly.
            return jax.make_array_from_process_local_data(
                self._sharding, rows, (total, *rows.shape[1:])
            )

        return Fed(step=step, batch=jax.tree.map(place, local), records=records)

    def close(self) -> None:
        """Stops the iterator's workers, if it has any."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


def _computed(arrays: Any) -> bool:
    """Tells whether all arrays of the tree are computed, without waiting for them."""
    return all(leaf.is_ready() for leaf in jax.tree.leaves(arrays))
