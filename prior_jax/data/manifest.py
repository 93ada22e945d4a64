"""The `manifest.json` of a prepared set: its contents, writing and reading."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError

MANIFEST_FORMAT = 1
MANIFEST_NAME = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Counts of one split."""

    studies: int
    images: int
    subjects: int
    sentences: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageStatistics:
    """Statistics of the stored images.

    Attributes:
      short_side: shorter side in pixels.
      mean: mean of the training images' pixels on a scale of 0 to 1.
      std: standard deviation of the training images' pixels on that scale, > 0.
    """

    short_side: int
    mean: float
    std: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Counts of the rows of one table: `read` is the sum of `kept` and all of `rejected`.

    Attributes:
      read: number of rows of the table, without the header.
      kept: number of rows that are in a record.
      rejected: number of rows that are in no record, by reason.
      images: number of images in the records of the kept rows, if rows are images; otherwise -1.
    """

    read: int
    kept: int
    rejected: Mapping[str, int]
    images: int = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Number of studies with each state of one label."""

    positive: int
    negative: int
    uncertain: int
    not_mentioned: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionCounts:
    """Counts of the regions of one label, over all splits.

    Attributes:
      regions: number of regions.
      boxes: number of regions that have a box.
      masks: number of regions that have a mask.
      phrases: number of regions that have a phrase.
      clipped: number of boxes that reached over the edge of their image, and were cut off there.
    """

    regions: int
    boxes: int
    masks: int
    phrases: int
    clipped: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents and the sources of a prepared set.

    Attributes:
      format: version of the format, MANIFEST_FORMAT.
      program: program that wrote the set, e.g. "data_prep.mimic_cxr".
      settings: flags of the program.
      versions: versions of the packages, package -> version.
      label_names: names of the labels, in the order of a record's `labels`.
      splits: counts of each split; an empty split has zeros or is absent.
      rejected: number of rejected items by reason; each is listed in `rejected.jsonl`.
      inputs: sha256 of each input table.
      shards: sha256 of each shard, by file name.
      image: shorter side and pixel statistics of the images.
      text_sources: number of studies by text source.
      tables: counts of the rows of each table; empty for a set of an earlier version.
      labels: number of studies with each state of each label, over all splits; empty for a set of
        an earlier version.
      notes: sentences on how the tables were read, e.g. which meaning was given to a column.
      code: sha256 of the program's source code; "" for a set of an earlier version.
      regions: number of boxes and masks by the label of the region; empty for a set without any.
      published_split: name of the published split that the set follows, whose patients and images
        may stand in two splits; "" for a set in which none does.
    """

    format: int
    program: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    label_names: tuple[str, ...]
    splits: Mapping[str, SplitCounts]
    rejected: Mapping[str, int]
    inputs: Mapping[str, str]
    shards: Mapping[str, str]
    image: ImageStatistics
    text_sources: Mapping[str, int]
    tables: Mapping[str, RowCounts] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, LabelCounts] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    code: str = ""
    regions: Mapping[str, RegionCounts] = dataclasses.field(default_factory=dict)
    published_split: str = ""

    @property
    def fingerprint(self) -> str:
        """Returns a hash of all records of the set."""
        shards = json.dumps(dict(self.shards), sort_keys=True)
        return hashlib.sha256(shards.encode()).hexdigest()


def save_manifest(manifest: Manifest, directory: str | os.PathLike[str]) -> None:
    """Writes `manifest.json` into the directory, atomically."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    write_atomically(pathlib.Path(directory) / MANIFEST_NAME, text.encode("utf-8"))


def load_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Reads and checks the `manifest.json` of a prepared set.

    Args:
      directory: directory of the prepared set.

    Raises:
      DataError: if the file is absent, is not JSON, is of another format, or a field is missing,
        unknown or of the wrong type; the error names file and field.
    """
    path = pathlib.Path(directory) / MANIFEST_NAME
    fields = _checked(_read_object(path, directory), Manifest, path=path, prefix="")
    fields["label_names"] = tuple(fields["label_names"])
    fields["image"] = _image_statistics(fields["image"], path=path)
    fields["splits"] = {
        split: SplitCounts(**_checked(counts, SplitCounts, path=path, prefix=f"splits.{split}."))
        for split, counts in fields["splits"].items()
    }
    counted = (("tables", RowCounts), ("labels", LabelCounts), ("regions", RegionCounts))
    for field, kind in counted:
        fields[field] = {
            name: kind(**_checked(counts, kind, path=path, prefix=f"{field}.{name}."))
            for name, counts in fields.get(field, {}).items()
        }
    fields["notes"] = tuple(fields.get("notes", ()))
    return Manifest(**fields)


_PREPARE_AGAIN = f"Restore the {MANIFEST_NAME} that data_prep wrote, or prepare the set again."
_JSON_TYPES = {int: (int,), float: (int, float), str: (str,), tuple: (list,), Mapping: (dict,)}


def _read_object(path: pathlib.Path, directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the JSON object in a set's file, which must be of this version's format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{directory} is not a prepared set: {MANIFEST_NAME} is missing.",
            "Give the --out folder of a data_prep program that has finished.",
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(
            f"The file is damaged: it is not JSON ({error}).", _PREPARE_AGAIN, where=str(path)
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"The file holds a JSON value of the type {type(content).__name__}, not an object.",
            _PREPARE_AGAIN,
            where=str(path),
        )
    if content.get("format") != MANIFEST_FORMAT:
        raise DataError(
            f"The set has the format {content.get('format')!r}, but this version reads "
            f"{MANIFEST_FORMAT}.",
            "Prepare the set again with this version.",
            where=f"{path}: format",
        )
    return content


def _image_statistics(content: Any, *, path: pathlib.Path) -> ImageStatistics:
    """Returns the statistics of the images, by which pixels can be normalised."""
    found = ImageStatistics(**_checked(content, ImageStatistics, path=path, prefix="image."))
    if not (math.isfinite(found.mean) and 0 < found.std < math.inf):
        raise DataError(
            f"The statistics are {found}, but mean and std must be finite, and std above 0.",
            _PREPARE_AGAIN,
            where=f"{path}: image",
        )
    return found


def _checked(content: Any, kind: type, *, path: pathlib.Path, prefix: str) -> dict[str, Any]:
    """Returns `content` if it has exactly the fields and types of the dataclass `kind`."""
    if not isinstance(content, dict):
        raise DataError(
            f"The value is {content!r}, not a JSON object.",
            _PREPARE_AGAIN,
            where=f"{path}: {prefix.rstrip('.')}",
        )
    fields = dataclasses.fields(kind)
    names = {field.name: field.type for field in fields}
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    for name in content.keys() - names.keys():
        raise DataError(
            f"The field is unknown to this version. It knows {', '.join(names)}.",
            "Prepare the set with this version, or read it with the version that prepared it.",
            where=f"{path}: {prefix}{name}",
        )
    for name, annotation in names.items():
        if name not in content:
            if name not in required:
                continue
            raise DataError(
                f"The field is missing. Its type is {_words(annotation)}.",
                _PREPARE_AGAIN,
                where=f"{path}: {prefix}{name}",
            )
        base = getattr(annotation, "__origin__", annotation)
        expected = (dict,) if dataclasses.is_dataclass(base) else _JSON_TYPES.get(base, (dict,))
        value = content[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise DataError(
                f"The value is {value!r}, but the type is {_words(annotation)}.",
                _PREPARE_AGAIN,
                where=f"{path}: {prefix}{name}",
            )
    return dict(content)


def _words(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
