"""Loads one row of a batch from its position in the run; runs in threads and workers.

This module does not use JAX: a worker process must not claim a device.
"""

import dataclasses
from typing import Literal

import numpy as np
from PIL import Image

from prior_jax.data import image as image_lib
from prior_jax.data import plan as plan_lib
from prior_jax.data import region_targets, regions
from prior_jax.data import text as text_lib
from prior_jax.data.memory_cache import MemoryCache
from prior_jax.data.reader import RecordReader
from prior_jax.data.schema import LABEL_NOT_MENTIONED, Record
from prior_jax.data.tokenizer import Tokenizer
from prior_jax.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowOptions:
    """The conversion of a record to a row.

    Attributes:
      image: settings of the model's images, but for their statistics.
      mean: mean of each channel, float32[C].
      std: standard deviation of each channel, float32[C].
      augment: random augmentation of the image; None takes the study's first image unchanged.
      shuffle_sentences: whether sentences are in random order (release); otherwise they are in the
        report's order.
      caption: part of the report that is read: "report" for all sentences, "sentence" for one
        randomly drawn sentence.
      text_mode: mode of text processing, "paper" or "release", see text.py.
      max_tokens: longest report in tokens.
      max_sentences: largest number S of sentences.
      seed: seed of each record's random draws (image, augmentation, sentence order).
      regions: boxes or masks that are read; None for none.
      slots: number N of boxes that a row has room for.
    """

    image: image_lib.ImageConfig
    mean: np.ndarray
    std: np.ndarray
    augment: image_lib.AugmentConfig | None
    shuffle_sentences: bool
    caption: Literal["report", "sentence"]
    text_mode: Literal["paper", "release"]
    max_tokens: int
    max_sentences: int
    seed: int
    regions: region_targets.RegionConfig | None = None
    slots: int = 0


class RowLoader:
    """Maps a position to a row, where position = step x number of rows of this process + row."""

    def __init__(
        self,
        *,
        reader: RecordReader,
        cache: MemoryCache,
        tokenizer: Tokenizer,
        plan: plan_lib.BatchPlan,
        rows: np.ndarray,
        options: RowOptions,
    ):
        """Keeps the arguments.

        Args:
          reader: reader of the split.
          cache: keeps records and decoded images of the split.
          tokenizer: tokenizer of the reports.
          plan: plan of the global batches.
          rows: rows of a global batch that this process loads, int[R].
          options: settings of the conversion of a record to a row.
        """
        self._reader = reader
        self._cache = cache
        self._tokenizer = tokenizer
        self._plan = plan
        self._rows = rows
        self._options = options

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        """Returns one row: the fields of a `Batch` without their leading axis.

        Raises:
          DataError: if a record or image is damaged; names record and shard.
        """
        step, row = divmod(position, len(self._rows))
        batch = self._plan.batch(step)
        record = int(batch.records[self._rows[row]])
        if record == plan_lib.FILLER:
            return self._filling_row(batch.length)
        return self._row(record, epoch=batch.epoch, length=batch.length)

    def _row(self, index: int, *, epoch: int, length: int) -> dict[str, np.ndarray]:
        options = self._options
        record = self._cache.get(index, lambda: self._reader.read(index), size=_record_bytes)
        name = f"study {record.study_id!r}, {self._reader.where(index)}"
        rng = plan_lib.record_rng(seed=options.seed, epoch=epoch, record=index)
        chosen, image, place = self._image(record, index, rng=rng, name=name)
        if self._plan.has_text(index):
            text = self._text(record, rng=rng, name=name, length=length)
        else:
            text = self._no_text(length)
        classes = len(self._reader.manifest.label_names)
        if len(record.labels) != classes:
            raise DataError(
                f"The record has {len(record.labels)} labels, but the manifest of the set names "
                f"{classes}.",
                "Prepare the set again.",
                where=f"{name}: labels",
            )
        row = _row_of(
            image, text, labels=np.array(record.labels, np.int8), weight=1.0, record=index
        )
        if options.regions is None:
            return row
        return row | region_targets.row_targets(
            record, chosen, place, config=options.regions, slots=options.slots, name=name
        )

    def _image(
        self, record: Record, index: int, *, rng: np.random.Generator, name: str
    ) -> tuple[int, np.ndarray, regions.Transform]:
        """Returns the number of the image, its pixels, and where those of the file have gone."""
        options = self._options
        augment, size = options.augment, options.image.size
        usable = list(range(len(record.images)))
        if options.regions is not None:
            usable = region_targets.usable_images(record, options.regions)
        # One image of the study is drawn for each epoch (release, mimiccxr.py, `_get_image`).
        chosen = usable[0 if augment is None else int(rng.integers(len(usable)))]
        decoded_size = size if augment is None else augment.decoded_size(size)

        def decode() -> tuple[Image.Image, regions.Transform]:
            return image_lib.placed_decode(
                record.images[chosen],
                channels=len(options.mean),
                size=decoded_size,
                name=f"{name}: image {record.image_ids[chosen]!r}",
                draft_margin=options.image.draft_margin,
            )

        image, place = self._cache.get((index, chosen, decoded_size), decode, size=_image_bytes)
        if augment is None:
            image, change = image_lib.placed_input(image, config=options.image)
        else:
            image, change = image_lib.placed_training_image(
                image, image_config=options.image, config=augment, rng=rng
            )
        pixels = image_lib.normalise(image, mean=options.mean, std=options.std)
        return chosen, pixels, place.then(change)

    def _text(
        self, record: Record, *, rng: np.random.Generator, name: str, length: int
    ) -> text_lib.EncodedText:
        options = self._options
        sentences = list(record.sentences)
        if options.caption == "sentence":
            sentences = text_lib.drawn_sentence(sentences, tokenizer=self._tokenizer, rng=rng)
        if options.shuffle_sentences:
            sentences = text_lib.shuffled(sentences, rng=rng)
        encoded = text_lib.encode_report(
            sentences,
            tokenizer=self._tokenizer,
            mode=options.text_mode,
            max_tokens=options.max_tokens,
            max_sentences=options.max_sentences,
            name=name,
        )
        return text_lib.cut_to(encoded, length)

    def _no_text(self, length: int) -> text_lib.EncodedText:
        return text_lib.empty_report(
            tokenizer=self._tokenizer, length=length, max_sentences=self._options.max_sentences
        )

    def _filling_row(self, length: int) -> dict[str, np.ndarray]:
        size, channels = self._options.image.size, len(self._options.mean)
        classes = len(self._reader.manifest.label_names)
        row = _row_of(
            np.zeros((size, size, channels), np.float32),
            self._no_text(length),
            labels=np.full(classes, LABEL_NOT_MENTIONED, np.int8),
            weight=0.0,
            record=plan_lib.FILLER,
        )
        if self._options.regions is None:
            return row
        return row | region_targets.no_targets(
            (size, size), config=self._options.regions, slots=self._options.slots
        )


def _record_bytes(record: Record) -> int:
    """Returns how many bytes a record takes in memory, but for a few for each of its texts."""
    encoded = (*record.images, *record.region_masks)
    return sum(map(len, (*encoded, *record.sentences, record.findings, record.impression)))


def _image_bytes(decoded: tuple[Image.Image, regions.Transform]) -> int:
    """Returns how many bytes the pixels of a decoded image take in memory."""
    image, _ = decoded
    return image.width * image.height * (1 if image.mode == "L" else 4)  # as Pillow stores them


def _row_of(
    image: np.ndarray,
    text: text_lib.EncodedText,
    *,
    labels: np.ndarray,
    weight: float,
    record: int,
) -> dict[str, np.ndarray]:
    return {
        "image": image,
        "tokens": text.tokens,
        "token_mask": text.token_mask,
        "sentence_index": text.sentence_index,
        "sentence_mask": text.sentence_mask,
        "labels": labels,
        "weight": np.array(weight, np.float32),
        "record": np.array(record, np.int32),
    }
