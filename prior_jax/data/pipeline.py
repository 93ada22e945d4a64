"""Batches of a prepared set: endless for training, one ordered pass for evaluation.

The position in the run is the step: `train_batches(start_step=k)` continues exactly like an
iterator that has yielded k batches, for any number of processes, workers and threads.
"""

import dataclasses
import os
from typing import Any, Literal

import grain
import numpy as np

from prior_jax.data import fractions, no_text, region_counts, region_targets
from prior_jax.data import image as image_lib
from prior_jax.data import plan as plan_lib
from prior_jax.data import set_statistics as measure_lib
from prior_jax.data import text as text_lib
from prior_jax.data import workers as workers_lib
from prior_jax.data.batch_iterator import BatchIterator
from prior_jax.data.loader import RowLoader, RowOptions
from prior_jax.data.manifest import Manifest
from prior_jax.data.memory_cache import MemoryCache
from prior_jax.data.reader import RecordReader
from prior_jax.data.schema import TEXT_SOURCES, Record
from prior_jax.data.tokenizer import Tokenizer, TokenizerConfig, open_tokenizer
from prior_jax.errors import ConfigError, check_choice, check_field, check_least
from prior_jax.types import WHOLE_BATCH, BatchPart

_ENDLESS = 2**40  # steps; grain requires a length of every iterator

SPEED_SETTINGS = ("workers", "threads", "prefetch", "memory_cache")
"""Settings of `DataConfig` that change no batch, only how soon it is there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Configuration of the data pipeline, the section `config.data`.

    Attributes:
      path: directory of the prepared set, as a program of `data_prep` wrote it.
      image: settings of the image encoder's input.
      augment: random augmentation of training images.
      tokenizer: settings of the tokenizer of the reports.
      caption: part of a report that training reads: "report" for all of it, "sentence" for one
        sentence, drawn again in each epoch (GLoRIA's release). Evaluation reads whole reports.
      text_mode: mode of text processing, "paper" or "release", see text.py.
      text_sources: sources of text; only records with text from these sources are used for training
        and retrieval: "report", "labels" or both.
      shuffle_sentences: whether training reads a report's sentences in random order (release,
        mimiccxr.py); False with caption "sentence".
      max_tokens: longest report in tokens, including [CLS] and [SEP] (release: 256).
      max_sentences: number S of sentences of every batch; the rest of a report is left out.
      buckets: accepted padded lengths, ascending; the last is max_tokens. Each costs one
        compilation. Mode "release" pads everything to max_tokens, because its sentence index can
        own padding.
      bucket_window: number of batches that are sorted together by length; 1 for no sorting
        (release).
      batch_size: number of pairs in the global batch (release: 98 x 6).
      seed: seed of the order, augmentation and sentence order; 0 to 2**32 - 1.
      workers: number of worker processes that load; 0 loads in threads of the main process.
      threads: number of threads that load, in the main process or in each worker.
      prefetch: number of batches loaded ahead, in the main process or in each worker. About
        prefetch x max(workers, 1) batches of this process are in memory.
      memory_cache: MiB of memory in which this process, or each worker, keeps records and decoded
        images of each split for later epochs; 0 reads and decodes them each time.
      fraction: part of the training records that is trained on; None for all of them.
      regions: boxes or masks of findings that are read; None for none.
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
    memory_cache: int = 0
    fraction: fractions.FractionConfig | None = None
    regions: region_targets.RegionConfig | None = None

    def __post_init__(self):
        """Raises ConfigError for unaccepted values; plan.py checks batch and buckets."""
        least = {
            "max_tokens": text_lib.SPECIALS + 1,
            "max_sentences": 1,
            "workers": 0,
            "threads": 1,
            "prefetch": 1,
            "memory_cache": 0,
        }
        check_least(self, **least)
        check_choice(self, "text_mode", text_lib.MODES)
        check_choice(self, "caption", text_lib.CAPTIONS)
        one = self.caption == "sentence" and self.shuffle_sentences
        check_field(self, "shuffle_sentences", not one, "False with caption 'sentence'")
        usable = TEXT_SOURCES[:2]
        known = bool(self.text_sources) and set(self.text_sources) <= set(usable)
        check_field(self, "text_sources", known, f"one or both of {usable}")
        whole = bool(self.buckets) and self.buckets[-1] == self.max_tokens
        must_be = f"ascending lengths up to max_tokens, which is {self.max_tokens}"
        check_field(self, "buckets", whole, must_be)
        several = self.text_mode == "release" and len(self.buckets) > 1
        must_be = f"({self.max_tokens},) with text_mode 'release'"
        check_field(self, "buckets", not several, must_be)
        self._check_crop()

    def _check_crop(self):
        cut, size = self.augment.crop_from, self.image.size
        if cut is not None and cut < size:
            raise ConfigError.of_value(
                "augment.crop_from", cut, f"None or at least image.size, which is {size}"
            )


def open_split(
    config: DataConfig, split: Literal["train", "validate", "test"], *, cache_dir: str | os.PathLike
) -> "Split":
    """Opens one split; measures its reports on the first call with this tokenizer.

    Args:
      config: configuration, the section `config.data`.
      split: name of the split.
      cache_dir: directory that stores the measurements; on a shared disk all processes may use the
        same one.

    Raises:
      DataError: if the set, split or tokenizer is absent or damaged.
      ConfigError: if the config requests something that this set does not have.
    """
    reader = RecordReader(config.path, split)
    tokenizer = open_tokenizer(config.tokenizer)
    if no_text.reads_reports(tokenizer):
        measured = measure_lib.measure(
            reader,
            tokenizer=tokenizer,
            cache_dir=cache_dir,
            workers=config.workers,
            threads=config.threads,
        )
    else:
        measured = no_text.unread(len(reader))
    chosen = None
    if split == "train" and config.fraction is not None:
        chosen = fractions.open_fraction(
            config.fraction, reader, cache_dir=cache_dir, threads=config.threads
        )
    findings = None
    if config.regions is not None:
        config.regions.check_labels(reader.manifest.regions)
        findings = region_counts.measure(
            reader, config.regions, cache_dir=cache_dir, threads=config.threads
        )
    return Split(
        config,
        reader=reader,
        tokenizer=tokenizer,
        measured=measured,
        chosen=chosen,
        findings=findings,
    )


class Split:
    """One split of a prepared set, ready for reading.

    Attributes:
      tokenizer: tokenizer of the reports.
      manifest: manifest of the prepared set.
      label_names: names of the labels, in the order of the last axis of a batch's labels.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        reader: RecordReader,
        tokenizer: Tokenizer,
        measured: measure_lib.Measurements,
        chosen: np.ndarray | None = None,
        findings: np.ndarray | None = None,
    ):
        """Keeps the arguments; see `open_split`.

        Args:
          config: configuration, the section `config.data`.
          reader: reader of the split.
          tokenizer: tokenizer of the reports.
          measured: lengths of the reports.
          chosen: indices of the records that are trained on, int64[k], ascending; None for all.
          findings: largest number of findings on an image of each record, int32[N]; None where no
            boxes and masks are read.
        """
        self._config = config
        self._reader = reader
        self._cache = MemoryCache(config.memory_cache << 20)
        self.tokenizer = tokenizer
        self.manifest: Manifest = reader.manifest
        self.label_names = self.manifest.label_names
        # In mode "release" lengths only tell which records have text: everything is padded to
        # max_tokens.
        self._counts = np.minimum(measured.tokens, config.max_tokens)
        # The most that training reads of a report: a batch is padded to no more than this.
        read = measured.tokens if config.caption == "report" else measured.sentence
        self._train_counts = np.minimum(read, config.max_tokens)
        wanted = [TEXT_SOURCES.index(source) for source in config.text_sources]
        usable = (measured.tokens > 0) & np.isin(measured.source, wanted)
        # Without reports every record can be used, for its image and its labels.
        usable |= not no_text.reads_reports(tokenizer)
        self._with_text = np.flatnonzero(usable)
        self._trained = self._with_text
        if chosen is not None:
            self._trained = np.intersect1d(self._with_text, chosen)
        self._tested, self._slots = np.arange(len(reader)), 0
        self._has_findings = findings is not None and bool(findings.any())
        if config.regions is not None and findings is not None:
            # MGCA's release has room for 10 or 20 boxes, whatever the set has (quirk M20).
            self._slots = max(int(findings.max(initial=0)), 1)
            if reader.split == "train":  # no other split has to have findings
                self._trained = region_counts.trained(
                    self._trained, findings, config.regions, seed=config.seed
                )
            self._tested = region_counts.tested(findings, config.regions)

    def __len__(self) -> int:
        """Returns the number of records, with or without text."""
        return len(self._reader)

    @property
    def pairs(self) -> int:
        """Returns the number of records that are trained on.

        They have text from the configured sources, unless no reports are read, and belong to
        `DataConfig.fraction`.
        """
        return len(self._trained)

    @property
    def trained(self) -> np.ndarray:
        """Returns the numbers of the records that `pairs` counts, int64[pairs], ascending."""
        return self._trained

    @property
    def with_text(self) -> np.ndarray:
        """Returns the numbers of the records that `require_text` keeps, int64[n], ascending."""
        return self._with_text

    @property
    def has_findings(self) -> bool:
        """Returns whether a record has a box or a mask of `DataConfig.regions`."""
        return self._has_findings

    def steps_per_epoch(self) -> int:
        """Returns the number of training batches per epoch.

        A last batch that is not full is left out.
        """
        return self._train_plan().steps_per_epoch

    def record(self, index: int) -> Record:
        """Returns a whole record: texts, labels, encoded images."""
        return self._reader.read(int(index))

    def record_id(self, index: int) -> str:
        """Returns the study id of a record, for reports; "" for a filling row."""
        return "" if index == plan_lib.FILLER else self._reader.read(int(index)).study_id

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32[C] mean and std that normalise images, on a 0 to 1 scale."""
        stored = self.manifest.image
        return image_lib.statistics(self._config.image, mean=stored.mean, std=stored.std)

    def train_batches(
        self, *, start_step: int = 0, part: BatchPart = WHOLE_BATCH
    ) -> "BatchIterator":
        """Iterates over training batches, without end.

        Args:
          start_step: first step to yield.
          part: part of each global batch that this process loads.

        Returns:
          Iterator of (step, Batch of numpy arrays with the rows of the part).
        """
        rows = part.rows(self._config.batch_size)
        return self._batches(
            self._train_plan(), rows=rows, train=True, start=start_step, stop=_ENDLESS
        )

    def eval_batches(
        self,
        *,
        batch_size: int,
        require_text: bool,
        records: np.ndarray | None = None,
    ) -> "BatchIterator":
        """Iterates once over the records in order, without randomness.

        The first image of each study is used, and sentences are in the report's order.

        Args:
          batch_size: number of rows of a batch; the last one is filled up with rows of weight 0 and
            record -1.
          require_text: whether records without text from the configured sources are left out (for
            retrieval); otherwise they come with the sentences that they have, whatever the source.
          records: numbers of the records to iterate over, int[n], ascending; None for all.

        Returns:
          Iterator of (number, Batch of numpy arrays); shapes vary only with the bucket.
        """
        candidates = self._tested
        if require_text:
            candidates = np.intersect1d(candidates, self._with_text)
        if records is not None:
            candidates = np.intersect1d(candidates, records)
        plan = self._plan(
            candidates,
            token_counts=self._counts,
            batch_size=batch_size,
            window=1,
            shuffle=False,
            drop_last=False,
        )
        rows = WHOLE_BATCH.rows(batch_size)
        return self._batches(plan, rows=rows, train=False, start=0, stop=plan.steps_per_epoch)

    def _train_plan(self) -> plan_lib.BatchPlan:
        return self._plan(
            self._trained,
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
        self, plan: plan_lib.BatchPlan, *, rows: np.ndarray, train: bool, start: int, stop: int
    ) -> "BatchIterator":
        config = self._config
        mean, std = self.statistics()
        options = RowOptions(
            image=config.image,
            mean=mean,
            std=std,
            augment=config.augment if train else None,
            shuffle_sentences=train and config.shuffle_sentences,
            caption=config.caption if train else "report",
            text_mode=config.text_mode,
            max_tokens=config.max_tokens,
            max_sentences=config.max_sentences,
            seed=config.seed,
            regions=config.regions,
            slots=self._slots,
        )
        loader = RowLoader(
            reader=self._reader,
            cache=self._cache,
            tokenizer=self.tokenizer,
            plan=plan,
            rows=rows,
            options=options,
        )
        count = len(rows)
        dataset = grain.MapDataset.range(start * count, stop * count).map(loader).batch(count)
        source = workers_lib.start(
            dataset, workers=config.workers, threads=config.threads, prefetch=config.prefetch
        )
        return BatchIterator(source, start=start)
