"""From a prepared set to batches: for training without end, for evaluation in order.

The position in the run is the step: `train_batches(start_step=k)` goes on exactly as an iterator
that has given k batches, on any number of processes, workers and threads.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Literal

import grain
import numpy as np

from prior_jax.data import image as image_lib
from prior_jax.data import plan as plan_lib
from prior_jax.data import set_statistics as measure_lib
from prior_jax.data import text as text_lib
from prior_jax.data import workers as workers_lib
from prior_jax.data.loader import RowLoader, RowOptions
from prior_jax.data.manifest import Manifest
from prior_jax.data.reader import RecordReader
from prior_jax.data.schema import TEXT_SOURCES, Record
from prior_jax.data.tokenizer import Tokenizer, TokenizerConfig, open_tokenizer
from prior_jax.errors import ConfigError, DataError
from prior_jax.types import Batch

_KILLED = "terminated unexpectedly"  # what grain says of a worker process that was killed
_ENDLESS = 2**40  # steps; an iterator has a length for grain only


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The section `config.data`.

    Attributes:
      path: the prepared set, as a program of `data_prep` wrote it.
      image: what the image encoder sees.
      augment: random changes of training images.
      tokenizer: of the reports.
      caption: what training reads of a report: "report" for all of it, "sentence" for one
        sentence, drawn again in each epoch (GLoRIA's release). Evaluation reads all of it.
      text_mode: "paper" or "release", see text.py.
      text_sources: records used for training and retrieval, by where their text is from:
        "report", "labels" or both.
      shuffle_sentences: whether training reads a report's sentences in random order (release,
        mimiccxr.py); False with caption "sentence".
      max_tokens: longest report, [CLS] and [SEP] included (release: 256).
      max_sentences: S of every batch; the rest of a report is left out.
      buckets: accepted padded lengths, ascending, the last = max_tokens. Each costs one
        compilation. Mode "release" pads everything to max_tokens, because its index can own
        padding.
      bucket_window: batches sorted together by length; 1 for none (release).
      batch_size: pairs in the global batch (release: 98 x 6).
      seed: of order, augmentation and sentence order; 0 to 2**32 - 1.
      workers: processes that load; 0 loads in threads of the main process.
      threads: threads that load, in the main process or in each worker.
      prefetch: batches ready ahead, in the main process or in each worker. Memory holds about
        prefetch x max(workers, 1) batches of this process.
    """

    path: str
    image: image_lib.ImageConfig
    augment: image_lib.AugmentConfig
    tokenizer: TokenizerConfig
    caption: Literal["report", "sentence"]
    text_mode: Literal["paper", "release"]
    text_sources: tuple[str, ...]
    shuffle_sentences: bool
    max_tokens: int
    max_sentences: int
    buckets: tuple[int, ...]
    bucket_window: int
    batch_size: int
    seed: int
    workers: int
    threads: int
    prefetch: int

    def __post_init__(self):
        """Raises ConfigError for values outside what is accepted; batch and buckets: plan.py."""
        least = {
            "max_tokens": text_lib.SPECIALS + 1,
            "max_sentences": 1,
            "workers": 0,
            "threads": 1,
            "prefetch": 1,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise _refused(name, getattr(self, name), f">= {bound}")
        if self.text_mode not in text_lib.MODES:
            raise _refused("text_mode", self.text_mode, f"{text_lib.MODES}")
        if self.caption not in text_lib.CAPTIONS:
            raise _refused("caption", self.caption, f"{text_lib.CAPTIONS}")
        if self.caption == "sentence" and self.shuffle_sentences:
            raise _refused("shuffle_sentences", True, "False with caption 'sentence'")
        usable = TEXT_SOURCES[:2]
        if not self.text_sources or not set(self.text_sources) <= set(usable):
            raise _refused("text_sources", self.text_sources, f"one or both of {usable}")
        if not self.buckets or self.buckets[-1] != self.max_tokens:
            raise _refused("buckets", self.buckets, f"ascending lengths up to {self.max_tokens}")
        if self.text_mode == "release" and len(self.buckets) > 1:
            raise _refused("buckets", self.buckets, f"({self.max_tokens},) in mode 'release'")


def _refused(field: str, received: Any, accepted: str) -> ConfigError:
    return ConfigError(f"config.data.{field}", received=received, accepted=accepted)


def open_split(
    config: DataConfig, split: Literal["train", "validate", "test"], *, cache_dir: str | os.PathLike
) -> "Split":
    """Opens one split; measures its reports on the first call with this tokenizer.

    Args:
      config: the section `config.data`.
      split: which one.
      cache_dir: keeps the measurements; on a shared disk all processes may use one.

    Raises:
      DataError: if set, split or tokenizer are absent or damaged.
      ConfigError: if the config asks what this set cannot give.
    """
    reader = RecordReader(config.path, split)
    tokenizer = open_tokenizer(config.tokenizer)
    measured = measure_lib.measure(
        reader,
        tokenizer=tokenizer,
        cache_dir=cache_dir,
        workers=config.workers,
        threads=config.threads,
    )
    return Split(config, reader=reader, tokenizer=tokenizer, measured=measured)


class Split:
    """One split of a prepared set, ready to be read.

    Attributes:
      tokenizer: of the reports.
      manifest: what the set says of itself.
      label_names: order of the last axis of a batch's labels.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        reader: RecordReader,
        tokenizer: Tokenizer,
        measured: measure_lib.Measurements,
    ):
        """See `open_split`."""
        self._config = config
        self._reader = reader
        self.tokenizer = tokenizer
        self.manifest: Manifest = reader.manifest
        self.label_names = self.manifest.label_names
        # In mode "release" lengths only tell who has text: everything is padded to max_tokens.
        self._counts = np.minimum(measured.tokens, config.max_tokens)
        # What training reads of a report, at most: a batch is padded to no more than this.
        read = measured.tokens if config.caption == "report" else measured.sentence
        self._train_counts = np.minimum(read, config.max_tokens)
        wanted = [TEXT_SOURCES.index(source) for source in config.text_sources]
        usable = (measured.tokens > 0) & np.isin(measured.source, wanted)
        self._with_text = np.flatnonzero(usable)

    def __len__(self) -> int:
        """Returns the number of records, with text or without."""
        return len(self._reader)

    @property
    def pairs(self) -> int:
        """The number of records with text of the wanted sources."""
        return len(self._with_text)

    def steps_per_epoch(self) -> int:
        """Returns the training batches of one epoch; an unfilled last one is left out."""
        return self._train_plan().steps_per_epoch

    def record(self, index: int) -> Record:
        """Returns a whole record: texts, labels, encoded images."""
        return self._reader.read(int(index))

    def record_id(self, index: int) -> str:
        """Returns the study id of a record, for reports; "" for a filling row."""
        return "" if index == plan_lib.FILLER else self._reader.read(int(index)).study_id

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32[C] mean and std that images are normalised with, on a 0 to 1 scale."""
        stored = self.manifest.image
        return image_lib.statistics(self._config.image, mean=stored.mean, std=stored.std)

    def train_batches(
        self, *, start_step: int = 0, process_index: int = 0, process_count: int = 1
    ) -> "BatchIterator":
        """Iterates over training batches, without end.

        Args:
          start_step: the first step to give.
          process_index: which rows of each global batch are given, see `plan.rows_of_process`.
          process_count: the global batch size must divide by it.

        Returns:
          iterator of (step, Batch of numpy arrays with batch_size / process_count rows).
        """
        rows = plan_lib.rows_of_process(
            self._config.batch_size, process_index=process_index, process_count=process_count
        )
        return self._batches(
            self._train_plan(), rows=rows, train=True, start=start_step, stop=_ENDLESS
        )

    def eval_batches(
        self,
        *,
        batch_size: int,
        require_text: bool,
        process_index: int = 0,
        process_count: int = 1,
    ) -> "BatchIterator":
        """Iterates once over the records in order, without chance: first image, sentences as read.

        Args:
          batch_size: rows of the global batch; the last one is filled up with rows of weight 0
            and record -1.
          require_text: whether records without text of the wanted sources are left out (for
            retrieval); otherwise they have no sentence.
          process_index: which rows of each global batch are given.
          process_count: `batch_size` must divide by it.

        Returns:
          iterator of (number, Batch of numpy arrays); shapes vary with the bucket only.
        """
        candidates = self._with_text if require_text else np.arange(len(self))
        plan = self._plan(
            candidates,
            token_counts=self._counts,
            batch_size=batch_size,
            window=1,
            shuffle=False,
            drop_last=False,
        )
        rows = plan_lib.rows_of_process(
            batch_size, process_index=process_index, process_count=process_count
        )
        return self._batches(plan, rows=rows, train=False, start=0, stop=plan.steps_per_epoch)

    def _train_plan(self) -> plan_lib.BatchPlan:
        return self._plan(
            self._with_text,
            token_counts=self._train_counts,
            batch_size=self._config.batch_size,
            window=self._config.bucket_window,
            shuffle=True,
            drop_last=True,
        )

    def _plan(self, candidates: np.ndarray, **options: Any) -> plan_lib.BatchPlan:
        return plan_lib.BatchPlan(
            candidates=candidates,
            seed=self._config.seed,
            buckets=self._config.buckets,
            **options,
        )

    def _batches(
        self, plan: plan_lib.BatchPlan, *, rows: slice, train: bool, start: int, stop: int
    ) -> "BatchIterator":
        config = self._config
        mean, std = self.statistics()
        options = RowOptions(
            size=config.image.size,
            mean=mean,
            std=std,
            augment=config.augment if train else None,
            shuffle_sentences=train and config.shuffle_sentences,
            caption=config.caption if train else "report",
            text_mode=config.text_mode,
            max_tokens=config.max_tokens,
            max_sentences=config.max_sentences,
            seed=config.seed,
        )
        loader = RowLoader(
            reader=self._reader, tokenizer=self.tokenizer, plan=plan, rows=rows, options=options
        )
        count = rows.stop - rows.start
        dataset = grain.MapDataset.range(start * count, stop * count).map(loader).batch(count)
        source = workers_lib.start(
            dataset, workers=config.workers, threads=config.threads, prefetch=config.prefetch
        )
        return BatchIterator(source, start=start)


class BatchIterator(Iterator[tuple[int, Batch]]):
    """Gives (step, Batch of numpy arrays); also a context manager that closes it."""

    def __init__(self, source: Any, *, start: int):
        """Takes grain's iterator over."""
        self._source = source
        self._step = start

    def __next__(self) -> tuple[int, Batch]:
        """Returns the next batch.

        Raises:
          DataError: naming record and shard, if a record of the batch is damaged; or if a worker
            process was killed.
        """
        try:
            row = next(self._source)
        except RuntimeError as error:
            if _KILLED not in str(error):
                raise
            raise DataError(
                "config.data.workers",
                received=f"a worker process that was killed while it read step {self._step}",
                accepted="workers that live; fewer of them if memory was short. Run again to go on",
            ) from error
        # Worker processes hand over shared memory; a copy of it owes nothing to their life.
        rows: dict[str, Any] = {name: np.array(value) for name, value in row.items()}
        batch = Batch(**rows)
        step, self._step = self._step, self._step + 1
        return step, batch

    def close(self) -> None:
        """Ends threads and worker processes."""
        self._source.close()

    def __enter__(self) -> "BatchIterator":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()
