"""What is evaluated: a model beside its untrained counterpart, and the set that both meet."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.data import pipeline
from prior_jax.data.schema import Record
from prior_jax.evaluate import results
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import fitting
from prior_jax.interop.initial import EncoderInit
from prior_jax.objectives.base import Encodes
from prior_jax.report.gather import StudyText
from prior_jax.sharding.placement import Placement
from prior_jax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A split with the texts, ids and labels of its records.

    Attributes:
      split: split that batches are made from.
      texts: reports and ids, [N].
      image_ids: ids of the images that evaluation uses, [N]; each is the first image of a record.
      labels: labels of the records, int8[N, C].
      region_labels: labels of the boxes and masks of each record, [N].
      image_counts: number of images of each record, [N].
      later_regions: number of regions of each record that lie on another image than its first, [N].
    """

    split: pipeline.Split
    texts: Sequence[StudyText]
    image_ids: Sequence[str]
    labels: np.ndarray
    region_labels: Sequence[tuple[str, ...]] = ()
    image_counts: Sequence[int] = ()
    later_regions: Sequence[int] = ()

    @property
    def patients(self) -> np.ndarray:
        """Returns the patient of each record, str[N]."""
        return np.asarray([text.subject_id for text in self.texts])

    def part(self, records: np.ndarray) -> "Opened":
        """Returns the texts, ids and labels of some records of the split."""
        return dataclasses.replace(
            self,
            texts=[self.texts[index] for index in records],
            image_ids=[self.image_ids[index] for index in records],
            labels=self.labels[records],
            region_labels=[self.region_labels[index] for index in records],
            image_counts=[self.image_counts[index] for index in records],
            later_regions=[self.later_regions[index] for index in records],
        )

    def record(self, index: int) -> Record:
        """Returns a whole record, with its regions."""
        return self.split.record(index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate and the set on which it is evaluated.

    Attributes:
      name: name of the model, for people.
      objective: objective that the model was trained with.
      objective_name: key of the objective in `objectives.kinds.KINDS`; "image" for an image encoder
        alone.
      trained: encoder of the model.
      untrained: encoder of the same model before its first step, the baseline. It is `trained`
        itself for a model that was not trained.
      data: the set, and how the model takes images and reports: size and normalisation of the
        images, tokenizer and lengths are the model's own, whatever set it meets.
      place: placement of arrays on the devices.
      cache_dir: folder for measurements of the data.
      drawn: folder that holds the drawings of the set's phantom, if the set is one that
        `launch.train` has drawn.
      about: JSON values that every results file repeats: where the weights come from.
      given: settings of the model, shown in the report.
      source: weights that a training starts its image encoder from; None for random weights.
      stages: names of the stages in which the model was trained; None where they are not known.
      began_with_weights: whether the state before the first step has weights of `config.init`, so
        that the baseline is not random.
    """

    name: str
    objective: Encodes
    objective_name: str
    trained: Encoder
    untrained: Encoder
    data: pipeline.DataConfig
    place: Placement
    cache_dir: pathlib.Path
    drawn: pathlib.Path
    about: Mapping[str, Any]
    given: Mapping[str, Any]
    source: EncoderInit | None = None
    stages: Sequence[str] | None = None
    began_with_weights: bool = False

    @property
    def origin(self) -> dict[str, Any]:
        """Returns the JSON values of `about`, and whether the baseline has weights of another."""
        return {**self.about, results.BEGAN_WITH_WEIGHTS: self.began_with_weights}

    @property
    def title(self) -> str:
        """Returns the model in words, for the console."""
        return f"step {self.about['step']}" if "step" in self.about else self.name

    @property
    def reads_reports(self) -> bool:
        """Returns whether the model has a text encoder."""
        return self.data.tokenizer.kind != "none"

    def open(self, split: str) -> Opened:
        """Reads the texts and labels of a split of the set."""
        opened = pipeline.open_split(self.data, split, cache_dir=self.cache_dir)  # type: ignore[arg-type]
        records = [opened.record(index) for index in range(len(opened))]
        return Opened(
            split=opened,
            texts=[
                StudyText(
                    study_id=record.study_id,
                    subject_id=record.subject_id,
                    sentences=record.sentences,
                )
                for record in records
            ],
            image_ids=[record.image_ids[0] for record in records],
            labels=np.asarray([record.labels for record in records], np.int8),
            region_labels=[record.region_labels for record in records],
            image_counts=[len(record.images) for record in records],
            later_regions=[sum(map(bool, record.region_images)) for record in records],
        )

    def batches(self, opened: Opened, *, batch_size: int, require_text: bool) -> Iterator[Batch]:
        """Yields the batches of one pass over a split, on the devices.

        A batch is not filled up far beyond the split, whatever `batch_size` is.
        """
        size = fitting(batch_size, len(opened.split))
        with opened.split.eval_batches(batch_size=size, require_text=require_text) as batches:
            for _, batch in batches:
                yield self.place.put(batch)
