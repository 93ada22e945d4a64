"""The format of a prepared set on disk: the features of a record, and its shards.

A prepared set is one TFDS directory (ArrayRecord shards, `dataset_info.json`, `features.json`; read
without TensorFlow) that also contains `manifest.json` (see `manifest`). One record is one study.
The programs of `data_prep` write it, the pipeline reads it, and both use the names defined here.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.errors import DataError

DATASET_NAME = "prior_set"
# 1.1.0 added sex, age and regions; a set of 1.0.0 is read as one that knows none of them.
DATASET_VERSION = "1.1.0"
REJECTED_NAME = "rejected.jsonl"
SPLITS = ("train", "validate", "test")

# Values of `labels`; CheXpert's blank is "not mentioned".
LABEL_POSITIVE = 1
LABEL_NEGATIVE = 0
LABEL_UNCERTAIN = -1
LABEL_NOT_MENTIONED = -2
LABEL_VALUES = (LABEL_POSITIVE, LABEL_NEGATIVE, LABEL_UNCERTAIN, LABEL_NOT_MENTIONED)

# Values of `sentence_sections`: the section that a sentence is from.
SECTION_IMPRESSION = 0
SECTION_FINDINGS = 1
SECTION_LABELS = 2

# Values of `text_source`.
TEXT_REPORT = "report"
TEXT_LABELS = "labels"
TEXT_NONE = "none"
TEXT_SOURCES = (TEXT_REPORT, TEXT_LABELS, TEXT_NONE)

SEXES = ("F", "M", "")
"""Values of `sex`; "" is unknown."""

ADDED_IN_1_1 = frozenset(
    ("sex", "age", "region_images", "region_labels", "region_phrases", "region_boxes")
) | {"region_masks"}
"""Features that sets of version 1.0.0 lack."""

Box = tuple[float, float, float, float]


def features() -> Any:
    """Returns the `tfds.features.FeaturesDict` of one study.

    Images are sequences of *text*, which TFDS stores as plain bytes: its own Image feature needs
    TensorFlow if there are several images in a sequence.
    """
    import tensorflow_datasets as tfds  # ~0.5 s, and only readers and writers of shards need it

    text = tfds.features.Text
    return tfds.features.FeaturesDict(
        {
            "study_id": text(),
            "subject_id": text(),
            "images": tfds.features.Sequence(text()),
            "image_ids": tfds.features.Sequence(text()),
            "views": tfds.features.Sequence(text()),
            "impression": text(),
            "findings": text(),
            "sentences": tfds.features.Sequence(text()),
            "sentence_sections": tfds.features.Tensor(shape=(None,), dtype=np.int8),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int8),
            "text_source": text(),
            "sex": text(),
            "age": tfds.features.Scalar(dtype=np.float32),
            "region_images": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "region_labels": tfds.features.Sequence(text()),
            "region_phrases": tfds.features.Sequence(text()),
            "region_boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "region_masks": tfds.features.Sequence(text()),
        }
    )


def features_of(directory: str | os.PathLike[str]) -> Any:
    """Returns the `tfds.features.FeaturesDict` of a prepared set, also one of an earlier version.

    Args:
      directory: directory of the prepared set.

    Raises:
      DataError: if its `features.json` cannot be read; the message names the directory.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.features.FeaturesDict.from_config(os.fspath(directory))
    except Exception as error:  # TFDS may raise anything on a damaged file
        raise DataError(
            f"Its features.json cannot be read: {type(error).__name__}: {error}.",
            "Prepare the set anew with a program of data_prep.",
            where=os.fspath(directory),
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """The record of one study.

    Attributes:
      study_id: id of the study, unique in the set.
      subject_id: id of the patient; a patient is in one split only.
      images: contents of JPEG or PNG files, at least one, already resized to the chosen short side.
      image_ids: ids of the images, parallel to `images`.
      views: view of each image, parallel to `images`; "PA", "AP", or "" where unknown.
      impression: raw text of the section, "" where the report has none.
      findings: raw text of the section, "" where the report has none.
      sentences: sentences in report order, impression before findings (as in the release,
        codes/prior/data/pretrain/mimiccxr.py).
      sentence_sections: section of each sentence, parallel to `sentences`: SECTION_IMPRESSION,
        _FINDINGS or _LABELS.
      labels: label states, one of LABEL_VALUES for each of the manifest's `label_names`.
      text_source: source of the text, one of TEXT_SOURCES.
      sex: sex of the patient, one of SEXES.
      age: age of the patient in years, NaN where unknown.
      region_images: index in `images` of the image that each of R regions is on.
      region_labels: name of the finding of each region, parallel to `region_images`.
      region_phrases: phrase that describes each region, "" for none, parallel.
      region_boxes: (x1, y1, x2, y2) of each region in pixels of the stored image, see
        `prior_jax.data.regions`; four NaN for a region that has only a mask; parallel.
      region_masks: PNG of each region's mask, of the stored image's size; empty for a region that
        has only a box; parallel.
    """

    study_id: str
    subject_id: str
    images: tuple[bytes, ...]
    image_ids: tuple[str, ...]
    views: tuple[str, ...]
    impression: str
    findings: str
    sentences: tuple[str, ...]
    sentence_sections: tuple[int, ...]
    labels: tuple[int, ...]
    text_source: str
    sex: str = ""
    age: float = math.nan
    region_images: tuple[int, ...] = ()
    region_labels: tuple[str, ...] = ()
    region_phrases: tuple[str, ...] = ()
    region_boxes: tuple[Box, ...] = ()
    region_masks: tuple[bytes, ...] = ()

    def __post_init__(self):
        """Raises DataError, naming the study, if fields are inconsistent."""
        where = f"record {self.study_id!r}"
        if not self.images:
            raise DataError(
                "The study has no image.",
                "Give every study at least one image.",
                where=f"{where}.images",
            )
        for name in ("image_ids", "views"):
            if len(getattr(self, name)) != len(self.images):
                raise DataError(
                    f"The number of entries is {len(getattr(self, name))}, but that of images is "
                    f"{len(self.images)}.",
                    "Give one entry for each image.",
                    where=f"{where}.{name}",
                )
        if len(self.sentence_sections) != len(self.sentences):
            raise DataError(
                f"The number of entries is {len(self.sentence_sections)}, but that of sentences is "
                f"{len(self.sentences)}.",
                "Give one entry for each sentence.",
                where=f"{where}.sentence_sections",
            )
        for value in self.labels:
            if value not in LABEL_VALUES:
                raise DataError.of_value(f"{where}.labels", value, f"one of {LABEL_VALUES}")
        if self.text_source not in TEXT_SOURCES:
            raise DataError.of_value(
                f"{where}.text_source", self.text_source, f"one of {TEXT_SOURCES}"
            )
        self._check_regions(where)

    def _check_regions(self, where: str) -> None:
        if self.sex not in SEXES:
            raise DataError.of_value(f"{where}.sex", self.sex, f"one of {SEXES}")
        count = len(self.region_images)
        for name in ("region_labels", "region_phrases", "region_boxes", "region_masks"):
            if len(getattr(self, name)) != count:
                raise DataError(
                    f"It has {len(getattr(self, name))} entries for {count} regions.",
                    "Give it one entry for each entry of `region_images`.",
                    where=f"{where}.{name}",
                )
        for place, image in enumerate(self.region_images):
            if not 0 <= image < len(self.images):
                must_be = f"an index of one of its {len(self.images)} images, from 0"
                raise DataError.of_value(f"{where}.region_images[{place}]", image, must_be)
            if not self.region_masks[place] and any(map(math.isnan, self.region_boxes[place])):
                raise DataError(
                    f"Region {place}, {self.region_labels[place]!r}, has neither a box nor a mask.",
                    "Give it one of them, or leave the region out.",
                    where=where,
                )

    def to_example(self) -> dict[str, Any]:
        """Returns the record as the dict that `features()` serialises."""
        example: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        lists = ("images", "image_ids", "views", "sentences")
        for name in (*lists, "region_labels", "region_phrases", "region_masks"):
            example[name] = list(example[name])
        example["age"] = np.float32(self.age)
        example["region_images"] = np.asarray(self.region_images, np.int32)
        example["region_boxes"] = np.asarray(self.region_boxes, np.float32).reshape(-1, 4)
        for name in ("labels", "sentence_sections"):
            example[name] = np.asarray(example[name], np.int8)
        return example

    @classmethod
    def from_example(cls, example: Mapping[str, Any]) -> "Record":
        """Builds the record from what a TFDS data source returns (text is bytes there).

        An example of an earlier version lacks the features of ADDED_IN_1_1: it has no regions, and
        sex and age are unknown.
        """

        def text(value: bytes | str) -> str:
            return value.decode("utf-8") if isinstance(value, bytes) else value

        def texts(values: Sequence[bytes | str]) -> tuple[str, ...]:
            return tuple(text(value) for value in values)

        return cls(
            study_id=text(example["study_id"]),
            subject_id=text(example["subject_id"]),
            images=tuple(example["images"]),
            image_ids=texts(example["image_ids"]),
            views=texts(example["views"]),
            impression=text(example["impression"]),
            findings=text(example["findings"]),
            sentences=texts(example["sentences"]),
            sentence_sections=tuple(int(value) for value in example["sentence_sections"]),
            labels=tuple(int(value) for value in example["labels"]),
            text_source=text(example["text_source"]),
            sex=text(example.get("sex", "")),
            age=_number(example.get("age", math.nan)),
            region_images=tuple(int(value) for value in example.get("region_images", ())),
            region_labels=texts(example.get("region_labels", ())),
            region_phrases=texts(example.get("region_phrases", ())),
            region_boxes=tuple(
                (_number(x1), _number(y1), _number(x2), _number(y2))
                for x1, y1, x2, y2 in example.get("region_boxes", ())
            ),
            region_masks=tuple(example.get("region_masks", ())),
        )


def _number(value: Any) -> float:
    """Returns a number; NaN is always the same object, so that equal records compare equal."""
    return math.nan if math.isnan(value) else float(value)


def shard_name(split: str, *, shard: int, shards: int) -> str:
    """Returns the file name that TFDS gives to shard number `shard` of a split."""
    return f"{DATASET_NAME}-{split}.array_record-{shard:05d}-of-{shards:05d}"


def serialize(record: Record, *, spec: Any) -> bytes:
    """Returns the bytes of one ArrayRecord entry, always the same for the same record.

    Args:
      record: record of the study.
      spec: value returned by `features()`; building it for each record is slow.
    """
    from tensorflow_datasets.core import example_serializer

    serializer = example_serializer.ExampleSerializer(spec.get_serialized_info())
    example = serializer.get_tf_example(spec.encode_example(record.to_example()))
    # If not fixed, the order of fields in a protocol buffer varies between processes.
    return example.SerializeToString(deterministic=True)


def write_dataset_info(
    directory: str | os.PathLike[str],
    *,
    shard_lengths: Mapping[str, Sequence[int]],
    shard_bytes: Mapping[str, int],
) -> None:
    """Writes `dataset_info.json` and `features.json` for finished shards.

    Args:
      directory: directory of the shards, which are named by `shard_name`.
      shard_lengths: number of records in each shard, by split; a split without records is left out,
        because TFDS cannot read an empty one.
      shard_bytes: size of the records in bytes, by split, for information.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info
    from tensorflow_datasets.core import splits as splits_lib

    directory = tfds.core.Path(directory)
    identity = dataset_info.DatasetIdentity(
        name=DATASET_NAME,
        version=tfds.core.Version(DATASET_VERSION),
        data_dir=os.fspath(directory),
        module_name=__name__,
    )
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[int(length) for length in lengths],
            num_bytes=int(shard_bytes[split]),
            filename_template=tfds.core.ShardedFileTemplate(
                dataset_name=DATASET_NAME,
                data_dir=directory,
                split=split,
                filetype_suffix="array_record",
                template=template,
            ),
        )
        for split, lengths in shard_lengths.items()
        if sum(lengths) > 0
    ]
    info = tfds.core.DatasetInfo(builder=identity, features=features())
    info.set_file_format("array_record")
    info.set_splits(splits_lib.SplitDict(splits))
    info.write_to_directory(directory)


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that neither a reader nor a crash can leave half of it."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with contextlib.ExitStack() as unless_replaced:
        unless_replaced.callback(os.unlink, temporary)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        unless_replaced.pop_all()
