"""What a job of a preparer is and what comes of it: records, rejections, and the counts of both."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit.images import PixelSums
from prior_jax.data import schema
from prior_jax.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker does at a time.

    Attributes:
      name: unique; file names are made of it.
      split: the split of its records, or None if it writes none.
      begin: first study of the job in the preparer's order.
      end: behind its last study.
      argument: whatever else the preparer needs.
    """

    name: str
    split: str | None
    begin: int
    end: int
    argument: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """Something left out.

    Attributes:
      id: id of the study, image, row or file.
      reason: word that it is counted under; one of a preparer's documented reasons.
      detail: description of what was wrong.
      rows: number of rows of `table` that are left out with it, each of which no other rejection
        counts.
      table: name of the table whose rows those are, "" for none.
    """

    id: str
    reason: str
    detail: str = ""
    rows: int = 0
    table: str = ""

    def line(self) -> str:
        r"""Returns the line of `rejected.jsonl`; rows stand in it where the rejection has some.

        The bytes of a file's name that are not UTF-8 are written as "\udce9" and the like.
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
      record: the study.
      pixels: sums over the pixels of its images.
      source: licence, citation and the like, for `sources.jsonl`; None for no line there.
      rows: rows of the table of images that stand in the record.
    """

    record: schema.Record
    pixels: PixelSums
    source: Mapping[str, Any] | None = None
    rows: int = 0


def check_labels(record: schema.Record, names: Sequence[str]) -> None:
    """Refuses a record whose labels are not those of the set; a fault of the preparer."""
    if len(record.labels) != len(names):
        raise DataError(
            f"record {record.study_id!r}.labels",
            received=f"{len(record.labels)} values",
            accepted=f"one value for each of the {len(names)} names in the plan's label_names "
            f"({', '.join(names)}), in their order",
        )


Process = Callable[[Job], Iterator[Kept | Rejection]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What a finished job left behind.

    Attributes:
      size: bytes of the shard file, 0 if no record was kept.
      sha256: of the shard file, "" if there is none.
      subjects: different patients; a patient's studies never lie in two jobs.
      kept_rows: rows of the table of images that stand in its records.
      rejected: reason -> count.
      rows: table -> reason -> rows left out.
      text_sources: text source -> studies.
      labels: for each label, studies that are positive, negative, uncertain, not mentioned.
      pixels: count, sum and sum of squares.
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


@dataclasses.dataclass
class RejectionCounts:
    """Counts rejections, and the rows of tables that are left out with them.

    Attributes:
      reasons: reason -> rejections.
      rows: table -> reason -> rows.
      examples: reason -> the first rejection.
    """

    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    rows: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)
    examples: dict[str, Rejection] = dataclasses.field(default_factory=dict)

    def add(self, rejection: Rejection) -> None:
        """Counts one."""
        self.reasons[rejection.reason] += 1
        self.examples.setdefault(rejection.reason, rejection)
        if rejection.rows:
            counts = self.rows.setdefault(rejection.table, collections.Counter())
            counts[rejection.reason] += rejection.rows

    def add_examples(self, lines: pathlib.Path) -> None:
        """Takes the first rejection of each reason from the lines of a job."""
        with open(lines, encoding="utf-8") as file:
            for line in file:
                rejection = Rejection(**json.loads(line))
                self.examples.setdefault(rejection.reason, rejection)

    def merge(self, reasons: Mapping[str, int], rows: Mapping[str, Mapping[str, int]]) -> None:
        """Adds what was counted elsewhere."""
        self.reasons.update(reasons)
        for table, counts in rows.items():
            self.rows.setdefault(table, collections.Counter()).update(counts)


@dataclasses.dataclass
class Tally:
    """Counts what a job keeps and leaves out."""

    rejected: list[str] = dataclasses.field(default_factory=list)
    sources: list[str] = dataclasses.field(default_factory=list)
    rejections: RejectionCounts = dataclasses.field(default_factory=RejectionCounts)
    labels: list[collections.Counter[int]] = dataclasses.field(default_factory=list)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    text_sources: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    subjects: set[str] = dataclasses.field(default_factory=set)
    pixels: PixelSums = dataclasses.field(default_factory=PixelSums)

    def reject(self, rejection: Rejection) -> None:
        """Counts a rejection, and keeps its line."""
        self.rejected.append(rejection.line())
        self.rejections.add(rejection)

    def keep(self, kept: Kept, *, size: int) -> None:
        """Counts a record of `size` bytes, and keeps the line of its source."""
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
        if kept.source is not None:
            self.sources.append(json.dumps(kept.source, ensure_ascii=False) + "\n")

    def part(self, *, size: int, sha256: str) -> Part:
        """Returns what was counted, with the size in bytes and the hash of the shard's file."""
        return Part(
            size=size,
            sha256=sha256,
            subjects=len(self.subjects),
            rejected=dict(self.rejections.reasons),
            rows={table: dict(counts) for table, counts in self.rejections.rows.items()},
            text_sources=dict(sorted(self.text_sources.items())),
            labels=[[counts[value] for value in schema.LABEL_VALUES] for counts in self.labels],
            pixels=dataclasses.astuple(self.pixels),
            **self.counts,
        )
