"""Plans the records of each step's global batch, as a function of the step.

Fixed are the arguments of `BatchPlan`: the seed, the records to use and their numbers of tokens
(so the set, the tokenizer, the caption and the longest report), the batch size, the buckets and the
window. With any other of these the batches differ.

The plan is index arithmetic only. A process requests any step and loads its own rows, so the global
batches do not depend on the number of processes, workers or devices, and resuming at a step costs
nothing.
"""

import collections
import dataclasses
import threading

import numpy as np

from prior_jax.errors import ConfigError

FILLER = -1  # the record of a row that only fills the batch
_EPOCHS_KEPT = 2  # prefetching threads work on two epochs at their border
# First words of the seeds: the order of an epoch and the draws of a record never share a stream.
_ORDER_STREAM, _RECORD_STREAM = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """One global batch.

    Attributes:
      records: index of each record in the split, int64[B]; FILLER where the row only fills the
        batch.
      length: number L of tokens that every report of the batch is padded to.
      epoch: number of complete passes over the data before this one.
    """

    records: np.ndarray
    length: int
    epoch: int


@dataclasses.dataclass(frozen=True)
class _Epoch:
    records: np.ndarray  # int64[steps, B]
    lengths: np.ndarray  # int64[steps]


class BatchPlan:
    """Random access to the batches of an endless run over one split."""

    def __init__(
        self,
        *,
        token_counts: np.ndarray,
        candidates: np.ndarray,
        batch_size: int,
        seed: int,
        buckets: tuple[int, ...],
        window: int,
        shuffle: bool,
        drop_last: bool,
    ):
        """Checks and keeps the arguments.

        Args:
          token_counts: number of tokens of each record's report, int32[N], including special
            tokens.
          candidates: indices of the records to use, e.g. those that have text, int64[M]; ascending.
          batch_size: number B of rows of the global batch.
          seed: seed of the order, 0 to 2**32 - 1.
          buckets: accepted padded lengths, ascending; the last is at least as long as the longest
            report.
          window: number W of batches that are sorted together by length, cut into batches and
            shuffled as batches; 1 leaves every batch as drawn.
          shuffle: whether the order is drawn for each epoch; otherwise it is ascending.
          drop_last: whether records that do not fill a whole batch are left out of the epoch (each
            epoch leaves out others); otherwise the last batch is filled up with FILLER.

        Raises:
          ConfigError: if a value is not accepted, or no batch can be built.
        """
        self._counts = np.asarray(token_counts, np.int64)
        self._candidates = np.asarray(candidates, np.int64)
        self.batch_size = batch_size
        self._seed = seed
        self._buckets = np.asarray(buckets, np.int64)
        self._window = window
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._check()
        count = len(self._candidates)
        self.steps_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        self._epochs: collections.OrderedDict[int, _Epoch] = collections.OrderedDict()
        self._lock = threading.Lock()

    def _check(self) -> None:
        if self.batch_size < 1:
            raise ConfigError.of_value("config.data.batch_size", self.batch_size, "1 or more")
        if not 0 <= self._seed < 2**32:  # one word of a SeedSequence
            raise ConfigError.of_value("config.data.seed", self._seed, "from 0 to 2**32 - 1")
        if self._window < 1:
            raise ConfigError.of_value("config.data.bucket_window", self._window, "1 or more")
        if not len(self._candidates):
            raise ConfigError(
                "The split has no usable record, so that no batch can be made.",
                "Choose a split or a set with records; for training and retrieval, they need text "
                "from one of config.data.text_sources.",
                where="config.data.path",
            )
        if self._drop_last and len(self._candidates) < self.batch_size:
            raise ConfigError(
                f"A batch of {self.batch_size} records is larger than the split, which has "
                f"{len(self._candidates)} usable records.",
                f"Set config.data.batch_size to {len(self._candidates)} or less.",
                where="config.data.batch_size",
            )
        self._check_buckets()

    def _check_buckets(self) -> None:
        longest = int(self._counts[self._candidates].max())
        ascending = len(self._buckets) > 0 and bool((np.diff(self._buckets) > 0).all())
        if not ascending or self._buckets[-1] < longest:
            raise ConfigError.of_value(
                "config.data.buckets",
                tuple(self._buckets.tolist()),
                f"ascending lengths, the last at least {longest}, the longest report in tokens",
            )

    def __getstate__(self):
        """Leaves out the caches, which a worker process computes again."""
        return {**self.__dict__, "_epochs": None, "_lock": None}

    def __setstate__(self, state):
        """Starts with empty caches."""
        self.__dict__.update(state, _epochs=collections.OrderedDict(), _lock=threading.Lock())

    def batch(self, step: int) -> PlannedBatch:
        """Returns the global batch of a step, counted from 0 over all epochs."""
        number, position = divmod(step, self.steps_per_epoch)
        epoch = self._epoch(number)
        return PlannedBatch(
            records=epoch.records[position], length=int(epoch.lengths[position]), epoch=number
        )

    def has_text(self, record: int) -> bool:
        """Returns whether the record's report has any token."""
        return bool(self._counts[record] > 0)

    def _epoch(self, number: int) -> _Epoch:
        with self._lock:
            if number not in self._epochs:
                self._epochs[number] = self._make_epoch(number)
                while len(self._epochs) > _EPOCHS_KEPT:
                    self._epochs.popitem(last=False)
            self._epochs.move_to_end(number)
            return self._epochs[number]

    def _make_epoch(self, number: int) -> _Epoch:
        rng = np.random.default_rng((_ORDER_STREAM, self._seed, number))
        order = rng.permutation(self._candidates) if self._shuffle else self._candidates
        total = self.steps_per_epoch * self.batch_size
        filling = np.full(max(0, total - len(order)), FILLER, np.int64)
        batches = np.concatenate([order[:total], filling]).reshape(-1, self.batch_size)
        if self._window > 1:
            for start in range(0, len(batches), self._window):
                part = batches[start : start + self._window]  # a view: written in place
                part[:] = self._sorted_window(part, rng)
        counts = np.where(batches == FILLER, 0, self._counts[batches])
        lengths = self._buckets[np.searchsorted(self._buckets, counts.max(axis=1))]
        return _Epoch(records=batches, lengths=lengths)

    def _sorted_window(self, batches: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        records = batches.reshape(-1)
        counts = np.where(records == FILLER, 0, self._counts[records])
        by_length = records[np.argsort(counts, kind="stable")].reshape(batches.shape)
        return rng.permutation(by_length, axis=0)


def record_rng(*, seed: int, epoch: int, record: int) -> np.random.Generator:
    """Returns the random generator of one record in one epoch.

    Its numbers depend on nothing else: not on the row, the process, the worker or the batch size.
    """
    return np.random.default_rng((_RECORD_STREAM, seed, epoch, record))
