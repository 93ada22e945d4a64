"""The iterator over batches that wraps grain's, and says which step a killed worker was reading."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from prior_jax.errors import DataError
from prior_jax.types import Batch, Boxes

_KILLED = "terminated unexpectedly"  # grain's message for a worker process that was killed
_BOX_FIELDS = tuple(field.name for field in dataclasses.fields(Boxes))


class BatchIterator(Iterator[tuple[int, Batch]]):
    """Iterator of (step, Batch of numpy arrays), and a context manager that closes it."""

    def __init__(self, source: Any, *, start: int):
        """Wraps grain's iterator."""
        self._source = source
        self._step = start

    def __next__(self) -> tuple[int, Batch]:
        """Returns the next batch.

        Raises:
          DataError: if a record of the batch is damaged (names record and shard), or a worker
            process was killed.
        """
        try:
            row = next(self._source)
        except RuntimeError as error:
            if _KILLED not in str(error):
                raise
            raise DataError(
                f"A data worker was killed while it read step {self._step}, probably for lack of "
                "memory.",
                "Lower config.data.workers and run the same command to resume.",
            ) from error
        # Worker processes pass shared memory; a copy stays valid after they end.
        rows: dict[str, Any] = {name: np.array(value) for name, value in row.items()}
        boxes = {name: rows.pop(name) for name in _BOX_FIELDS if name in rows}
        batch = Batch(**rows, boxes=Boxes(**boxes) if boxes else None)
        step, self._step = self._step, self._step + 1
        return step, batch

    def close(self) -> None:
        """Stops threads and worker processes."""
        self._source.close()

    def __enter__(self) -> "BatchIterator":
        """Returns the iterator itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the iterator."""
        self.close()
