"""The jobs of a preparer and their results: records, rejections, and the counts of both."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit.image_regions import RegionSums
from data_prep.kit.images import PixelSums
from prior_jax.data import schema
from prior_jax.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A unit of work for one worker.

    Attributes:
      name: unique name, from which file names are made.
      split: split of the job's records, or None if the job writes no record.
      begin: index of the job's first study in the preparer's order.
      end: index after the job's last study.
      argument: any further value that the preparer needs.
    """

    name: str
    split: str | None
    begin: int
    end: int
    argument: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """A study, image, row or file that is left out.

    Attributes:
      id: id of the study, image, row or file.
      reason: word that the rejection is counted under; one of a preparer's documented reasons.
      detail: description of the problem.
      rows: number of rows of `table` that are left out with the rejection; no other rejection
        counts these rows.
      table: name of the table of these rows, "" for none.
    """

    id: str
    reason: str
    detail: str = ""
    rows: int = 0
    table: str = ""

    def line(self) -> str:
        r"""Returns the line for `rejected.jsonl`, with rows if the rejection has any.

        Bytes of a file's name that are not UTF-8 are written as "\udce9" and the like.
        """
        named = {
            name: value.encode("utf-8", "backslashreplace").decode()
            if isinstance(value, str)
            else value
            for name, value in dataclasses.asdict(self).items()
        }
        if not self.rows:
            del named["rows"], named["table"]
        return json.dumps(named, ensure_ascii=False) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """A record to write.

    Attributes:
      record: record of the study.
      pixels: sums over the pixels of the record's images.
      source: licence, citation and the like, for `sources.jsonl`; None for no line there.
      rows: number of rows of the table of images that the record contains.
      clipped: label of each box that reached over the edge of its image and was cut off there.
    """

    record: schema.Record
    pixels: PixelSums
    source: Mapping[str, Any] | None = None
    rows: int = 0
    clipped: Sequence[str] = ()


def check_labels(record: schema.Record, names: Sequence[str]) -> None:
    """Refuses a record whose labels are not those of the set, which is a fault of the preparer."""
    if len(record.labels) != len(names):
        raise DataError(
            f"The record of study {record.study_id!r} has {len(record.labels)} labels, but the "
            f"plan's label_names has {len(names)} names ({', '.join(names)}).",
            "Correct the preparer: give each record one value for each name, in their order.",
        )


Process = Callable[[Job], Iterator[Kept | Rejection]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """The results of a finished job.

    Attributes:
      size: size of the shard file in bytes, 0 if no record was kept.
      sha256: sha256 of the shard file, "" if there is no file.
      subjects: number of different patients; a patient's studies are never in two jobs.
      kept_rows: number of rows of the table of images that the job's records contain.
      rejected: reason -> number of rejections.
      rows: table -> reason -> number of rows left out.
      text_sources: text source -> number of studies.
      labels: numbers of studies for each label: positive, negative, uncertain, not mentioned.
      pixels: count, sum and sum of squares of the pixels.
      regions: label -> numbers of regions, boxes, masks, phrases and clipped boxes.
    """

    size: int = 0
    sha256: str = ""
    studies: int = 0
    images: int = 0
    subjects: int = 0
    sentences: int = 0
    record_bytes: int = 0
    kept_rows: int = 0
    rejected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rows: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    text_sources: Mapping[str, int] = dataclasses.field(default_factory=dict)
    labels: Sequence[Sequence[int]] = ()
    pixels: Sequence[int] = (0, 0, 0)
    regions: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class RejectionCounts:
    """Counts of rejections, and of the rows of tables that are left out with them.

    Attributes:
      reasons: reason -> number of rejections.
      rows: table -> reason -> number of rows.
      examples: reason -> first rejection.
    """

    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    rows: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)
    examples: dict[str, Rejection] = dataclasses.field(default_factory=dict)

    def add(self, rejection: Rejection) -> None:
        """Counts a rejection."""
        self.reasons[rejection.reason] += 1
        self.examples.setdefault(rejection.reason, rejection)
        if rejection.rows:
            counts = self.rows.setdefault(rejection.table, collections.Counter())
            counts[rejection.reason] += rejection.rows

    def add_examples(self, lines: pathlib.Path) -> None:
        """Keeps the first rejection of each reason from the lines of a job."""
        with open(lines, encoding="utf-8") as file:
            for line in file:
                rejection = Rejection(**json.loads(line))
                self.examples.setdefault(rejection.reason, rejection)

    def merge(self, reasons: Mapping[str, int], rows: Mapping[str, Mapping[str, int]]) -> None:
        """Adds counts from elsewhere."""
        self.reasons.update(reasons)
        for table, counts in rows.items():
            self.rows.setdefault(table, collections.Counter()).update(counts)


@dataclasses.dataclass
class Tally:
    """Counts of the records that a job keeps and of the rejections."""

    rejected: list[str] = dataclasses.field(default_factory=list)
    sources: list[str] = dataclasses.field(default_factory=list)
    rejections: RejectionCounts = dataclasses.field(default_factory=RejectionCounts)
    labels: list[collections.Counter[int]] = dataclasses.field(default_factory=list)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    text_sources: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    subjects: set[str] = dataclasses.field(default_factory=set)
    pixels: PixelSums = dataclasses.field(default_factory=PixelSums)
    regions: RegionSums = dataclasses.field(default_factory=RegionSums)

    def reject(self, rejection: Rejection) -> None:
        """Counts a rejection, and stores its line."""
        self.rejected.append(rejection.line())
        self.rejections.add(rejection)

    def keep(self, kept: Kept, *, size: int) -> None:
        """Counts a record of `size` bytes, and stores the line of its source."""
        record = kept.record
        self.counts.update(
            studies=1,
            images=len(record.images),
            sentences=len(record.sentences),
            record_bytes=size,
            kept_rows=kept.rows,
        )
        self.subjects.add(record.subject_id)
        self.text_sources[record.text_source] += 1
        self.labels = self.labels or [collections.Counter() for _ in record.labels]
        for counts, value in zip(self.labels, record.labels, strict=True):
            counts[value] += 1
        self.pixels += kept.pixels
        self.regions.add(record, clipped=kept.clipped)
        if kept.source is not None:
            self.sources.append(json.dumps(kept.source, ensure_ascii=False) + "\n")

    def part(self, *, size: int, sha256: str) -> Part:
        """Returns the counts, with the size in bytes and the hash of the shard's file."""
        return Part(
            size=size,
            sha256=sha256,
            subjects=len(self.subjects),
            rejected=dict(self.rejections.reasons),
            rows={table: dict(counts) for table, counts in self.rejections.rows.items()},
            text_sources=dict(sorted(self.text_sources.items())),
            labels=[[counts[value] for value in schema.LABEL_VALUES] for counts in self.labels],
            pixels=dataclasses.astuple(self.pixels),
            regions=self.regions.sums,
            **self.counts,
        )
