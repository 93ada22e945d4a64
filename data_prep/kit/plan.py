"""Groups the images of a data set into studies, with little memory for millions of images."""

import array
import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from data_prep.kit import contradictions, values
from data_prep.kit.outcomes import Job, Kept, Process, Rejection
from data_prep.kit.planned import ROWS, PlannedArrays, PlannedImage, read_image
from data_prep.kit.shards import shard_jobs
from data_prep.kit.tables import MALFORMED, RejectRow, Table
from prior_jax.errors import InputProblem

Reject = Callable[[Rejection], None]

OTHER_STUDY = "label_row_of_no_chosen_study"
NOT_CHOSEN = "image_not_listed"
OTHER_IMAGE = "projection_of_no_image"
UNLISTED = (OTHER_STUDY, NOT_CHOSEN, OTHER_IMAGE)
"""Reasons for which rows are only counted, without a line for each in `rejected.jsonl`."""


class RowProblem(InputProblem):
    """A row that cannot be used."""


@contextlib.contextmanager
def rejecting(reject: Reject, *, id: str, table: str) -> Iterator[None]:
    """Turns a row's or cell's problem, raised in the with block, into a rejection of the row."""
    try:
        yield
    except (RowProblem, values.CellProblem) as problem:
        reason = getattr(problem, "reason", MALFORMED)
        reject(Rejection(id=id, reason=reason, detail=problem.detail, rows=1, table=table))


def rejecting_rows(table: Table, reject: Reject, *, counted_as: str = "") -> RejectRow:
    """Returns a function that passes a row of a table, by its line, to `reject`.

    Args:
      table: table of the rows.
      reject: function that counts the rejection.
      counted_as: name under which the rows are counted, where several tables are counted together;
        "" for the table's own.
    """

    def reject_row(line: int, reason: str, detail: str) -> None:
        name, counted = f"{table.name}:{line}", counted_as or table.name
        reject(Rejection(id=name, reason=reason, detail=detail, rows=1, table=counted))

    return reject_row


MakeRecord = Callable[[Sequence[PlannedImage]], Iterator[Kept | Rejection]]
"""Picklable function that yields the record, or the rejection, of a study from its images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableUse:
    """The counts of a table that was read to the end.

    Attributes:
      name: name of the table's file.
      read: number of rows read.
      kept: number of rows that were used, or None if each row is an image, in which case the rows
        are counted when the records are written.
      unused: reason -> number of rows that were left out without a line of their own in
        `rejected.jsonl`.
      notes: sentences for the user on how the table was read.
    """

    name: str
    read: int
    kept: int | None = None
    unused: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a set to write.

    Attributes:
      jobs: jobs, one for each shard, and others that write no record.
      process: picklable function that does a job.
      label_names: names of the labels, in the order of a record's `labels`.
      tables: tables that were read.
      short_side: pixels of the stored images' shorter side.
      notes: sentences for the user on how the tables were read.
      images_dir: folder that the paths of images are relative to, for messages.
      images_flag: flag that names this folder.
      published_split: name of the published split that is followed, whose patients may stand in two
        splits; "" for any other.
      split_order: split -> ids of its studies in the order of the published split.
    """

    jobs: Sequence[Job]
    process: Process
    label_names: Sequence[str]
    tables: Sequence[TableUse]
    short_side: int
    notes: Sequence[str] = ()
    images_dir: pathlib.Path | None = None
    images_flag: str = "--images_dir"
    published_split: str = ""
    split_order: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


class Planner:
    """Collects the images of a data set one by one, and sorts them into studies and shards.

    The planner is a context manager whose end closes its file. It keeps about 110 bytes in memory
    for each image; the images themselves are on disk.
    """

    def __init__(
        self, directory: pathlib.Path, *, reject: Reject, table: str, keep_leaks: bool = False
    ):
        """Begins an empty plan.

        Args:
          directory: folder for the planned images, from which workers read them.
          reject: function that is called for every image that contradicts another:
            `duplicate_row` for a repeated row, `conflicting_rows` for rows of one id that differ,
            `study_in_two_patients`, and `patient_in_two_splits`.
          table: name of the table whose rows the images are.
          keep_leaks: whether patients may stand in two splits, as they do in some published splits.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.reject, self.table = directory, reject, table
        self._keep_leaks = keep_leaks
        self._file = open(directory / ROWS, "wb")
        self._offsets, self._codes = array.array("q"), array.array("b")
        self._given_patients, self._given_splits = array.array("b"), array.array("b")
        self._excluded = array.array("b")
        self._ids, self._studies, self._patients = bytearray(), bytearray(), bytearray()

    def __enter__(self) -> "Planner":
        """Returns the planner itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the planner's file."""
        self._file.close()

    def add(self, image: PlannedImage) -> None:
        """Adds an image."""
        self._offsets.append(self._file.tell())
        self._codes.append(image.split)
        self._given_patients.append(image.patient_given)
        self._given_splits.append(image.split_given)
        self._excluded.append(image.excluded is not None)
        self._ids += _digest(image.id)
        self._studies += _digest(image.study)
        self._patients += _digest(values.comparable_id(image.patient))
        self._file.write(json.dumps(dataclasses.asdict(image)).encode() + b"\n")

    def __len__(self) -> int:
        """Returns the number of images added."""
        return len(self._offsets)

    def finish(self, *, studies_per_shard: int) -> list[Job]:
        """Rejects images that contradict others or are excluded, and divides the rest into jobs.

        An image whose row names no patient takes the patient that other rows of its study name; an
        image whose row names no split takes the split that other rows of its patient name.

        Args:
          studies_per_shard: largest number of studies in a shard; a patient's studies stay
            together.
        """
        self._file.close()
        images = PlannedArrays(
            offsets=np.array(self._offsets, np.int64),
            codes=np.array(self._codes, np.int8),
            ids=np.frombuffer(bytes(self._ids), "S32"),
            studies=np.frombuffer(bytes(self._studies), "S32"),
            patients=np.frombuffer(bytes(self._patients), "S32").copy(),
        )
        contradictions.inherit(
            images,
            self.directory,
            patient_given=np.array(self._given_patients, bool),
            split_given=np.array(self._given_splits, bool),
        )
        keep = contradictions.consistent(
            images,
            directory=self.directory,
            reject=self.reject,
            table=self.table,
            keep_leaks=self._keep_leaks,
            excluded=np.array(self._excluded, bool),
        )
        sorting = (keep, images.studies[keep], images.patients[keep], images.codes[keep])
        order = keep[np.lexsort(sorting)]
        ranked = images.studies[order]
        begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(order) else order
        np.save(self.directory / "offsets.npy", images.offsets[order])
        np.save(self.directory / "starts.npy", np.r_[begins, len(order)].astype(np.int64))
        chosen = order[begins]
        return shard_jobs(
            images.codes[chosen], images.patients[chosen], studies_per_shard=studies_per_shard
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedStudies:
    """Does a job in a worker: passes the images of each study to a function.

    Attributes:
      directory: folder of a finished plan.
      make_record: function that makes the record of one study.
    """

    directory: pathlib.Path
    make_record: MakeRecord

    def __call__(self, job: Job) -> Iterator[Kept | Rejection]:
        """Yields the records and rejections of a job."""
        files = (self.directory / f"{name}.npy" for name in ("starts", "offsets"))
        starts, offsets = (_mapped(file, file.stat().st_mtime_ns) for file in files)
        for study in range(job.begin, job.end):
            places = range(int(starts[study]), int(starts[study + 1]))
            yield from self.make_record(
                [read_image(self.directory, int(offsets[place])) for place in places]
            )


@functools.lru_cache(maxsize=2)
def _mapped(path: pathlib.Path, written: int) -> np.ndarray:
    """Memory-maps an array of a plan."""
    del written  # part of the cache key: the folder may hold another plan later
    return np.load(path, mmap_mode="r")


def _digest(text: str) -> bytes:
    """Returns a digest of 32 characters that replaces an id of any length in a compact array."""
    return (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode()
    )
