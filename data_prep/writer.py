"""Writes a prepared set: in parallel, restartable at any moment, the same bytes every time.

A preparer lists its jobs, each the studies of one shard. A job's shard, rejections and counts are
written under `.parts/` in the set's directory, its counts last and whole: a job that has them is
finished and is not done again. When all are there, the shards are renamed to what TFDS expects and
the manifest is written last: a set with a manifest is complete.
"""

import collections
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tqdm
from array_record.python import array_record_module

from data_prep import common
from data_prep.images import PixelSums
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError

PARTS = ".parts"
_LOCK = "lock"
SOURCES_NAME = "sources.jsonl"
# Changes whenever what a finished job holds changes its meaning.
_PARTS_FORMAT = 1


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
      id: the study, image, row or file.
      reason: what it is counted under; one of a preparer's documented reasons.
      detail: in words.
    """

    id: str
    reason: str
    detail: str = ""

    def line(self) -> str:
        """Returns the line of `rejected.jsonl`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """A record to write.

    Attributes:
      record: the study.
      pixels: sums over the pixels of its images.
      source: licence, citation and the like, for `sources.jsonl`; None for no line there.
    """

    record: schema.Record
    pixels: PixelSums
    source: Mapping[str, Any] | None = None


Process = Callable[[Job], Iterator[Kept | Rejection]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What a finished job left behind.

    Attributes:
      size: bytes of the shard file, 0 if no record was kept.
      sha256: of the shard file, "" if there is none.
      subjects: different patients; a patient's studies never lie in two jobs.
      rejected: reason -> count.
      text_sources: text source -> studies.
      pixels: count, sum and sum of squares.
    """

    size: int = 0
    sha256: str = ""
    studies: int = 0
    images: int = 0
    subjects: int = 0
    sentences: int = 0
    record_bytes: int = 0
    rejected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    text_sources: Mapping[str, int] = dataclasses.field(default_factory=dict)
    pixels: Sequence[int] = (0, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetWriter:
    """A set that is being written.

    Attributes:
      out: the set's directory.
      program: what writes it, e.g. "data_prep.mimic_cxr".
      settings: the program's flags, as far as they change what is written.
      inputs: table -> sha256.
    """

    out: pathlib.Path
    program: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def parts(self) -> pathlib.Path:
        """Where unfinished work lies."""
        return self.out / PARTS

    @property
    def plan_rejections(self) -> pathlib.Path:
        """Rejections found before any job ran, written by the preparer."""
        return self.parts / "plan.rejected.jsonl"


def _digest(writer: SetWriter) -> str:
    identity = [_PARTS_FORMAT, writer.program, dict(writer.settings), dict(writer.inputs)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def opened(
    options: common.RunOptions,
    *,
    program: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> Iterator[SetWriter | None]:
    """Opens the directory of a set for writing, alone, and goes on where a killed run stopped.

    Yields:
      The writer, or None if this very set is complete.

    Raises:
      ConfigError: if the directory holds something else and `overwrite` is off, or if another
        process is writing there.
    """
    writer = SetWriter(
        out=pathlib.Path(options.out), program=program, settings=settings, inputs=inputs
    )
    _refuse_foreign_directory(writer.out)
    if _is_complete(writer):
        shutil.rmtree(writer.parts, ignore_errors=True)
        yield None
        return
    if (writer.out / schema.MANIFEST_NAME).exists() and not options.overwrite:
        raise _other_set(writer)
    writer.parts.mkdir(parents=True, exist_ok=True)
    with open(writer.parts / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "--out", received=options.out, accepted="a set no other process is writing"
            ) from error
        _take_over(writer, overwrite=options.overwrite)
        yield writer


def _refuse_foreign_directory(out: pathlib.Path) -> None:
    """Refuses a directory that holds anything but a set, finished or not."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("--out", received=str(out), accepted="a directory")
    names = {path.name for path in out.iterdir()}
    if names and not names & {PARTS, schema.MANIFEST_NAME}:
        raise ConfigError("--out", received=str(out), accepted="an empty or absent directory")


def _other_set(writer: SetWriter) -> ConfigError:
    return ConfigError(
        "--out",
        received=f"{writer.out}, which holds a set of other settings or inputs",
        accepted="another directory, the same settings, or --overwrite",
    )


def _take_over(writer: SetWriter, *, overwrite: bool) -> None:
    """Keeps the finished jobs of this very set; of another set, removes it if that is allowed."""
    state = writer.parts / "state.json"
    digest = _digest(writer)
    old = json.loads(state.read_text())["digest"] if state.is_file() else None
    if old != digest and (old is not None or (writer.out / schema.MANIFEST_NAME).exists()):
        if not overwrite:
            raise _other_set(writer)
        _remove_set(writer.out)
    schema.write_atomically(state, json.dumps({"digest": digest}).encode())
    for stale in writer.parts.glob("*.tmp"):
        stale.unlink()


def _is_complete(writer: SetWriter) -> bool:
    try:
        manifest = schema.load_manifest(writer.out)
    except DataError:
        return False
    written = SetWriter(
        out=writer.out,
        program=manifest.program,
        settings=manifest.settings,
        inputs=manifest.inputs,
    )
    return _digest(written) == _digest(writer) and all(
        (writer.out / name).is_file() for name in manifest.shards
    )


def _remove_set(out: pathlib.Path) -> None:
    """Removes the files of a set, and nothing else that may lie in its directory."""
    names = [schema.MANIFEST_NAME, schema.REJECTED_NAME, SOURCES_NAME]
    for path in (out / name for name in [*names, "dataset_info.json", "features.json"]):
        path.unlink(missing_ok=True)
    for path in out.glob(f"{schema.DATASET_NAME}-*.array_record-*"):
        path.unlink()
    for path in (out / PARTS).iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_jobs(
    writer: SetWriter, jobs: Sequence[Job], process: Process, *, workers: int
) -> dict[str, Part]:
    """Does every job that is not finished yet, with a progress bar over studies.

    Args:
      writer: an open set.
      jobs: in the order of their shards.
      process: picklable; yields the records and rejections of a job.
      workers: processes.

    Returns:
      job name -> what it left behind.
    """
    done = {job.name: part for job in jobs if (part := _finished(writer, job)) is not None}
    todo = [job for job in jobs if job.name not in done]
    total = sum(job.end - job.begin for job in jobs)
    ready = total - sum(job.end - job.begin for job in todo)
    with tqdm.tqdm(total=total, initial=ready, unit=" studies", desc=writer.program) as bar:
        work = functools.partial(_do_job, writer=writer, process=process)
        for job, part in common.parallel(work, todo, workers=workers):
            done[job.name] = part
            bar.update(job.end - job.begin)
    return done


def _shard_path(writer: SetWriter, job: Job) -> pathlib.Path:
    return writer.parts / f"{job.name}.array_record"


def _finished(writer: SetWriter, job: Job) -> Part | None:
    path = writer.parts / f"{job.name}.json"
    if not path.is_file():
        return None
    part = Part(**json.loads(path.read_text(encoding="utf-8")))
    shard = _shard_path(writer, job)
    # The shard may have been renamed already by a run killed while finishing.
    lost = part.size and shard.is_file() and shard.stat().st_size != part.size
    return None if lost else part


def _do_job(job: Job, *, writer: SetWriter, process: Process) -> Part:
    """Writes the shard, the rejections and, last, the counts of one job."""
    shard = _shard_path(writer, job)
    temporary = shard.with_name(f"{shard.name}.{os.getpid()}.tmp")
    texts = {"rejected": [], "sources": []}
    counts, rejected, text_sources = collections.Counter(), {}, collections.Counter()
    subjects, pixels, records = set(), PixelSums(), None
    spec = schema.features()
    try:
        for outcome in process(job):
            if isinstance(outcome, Rejection):
                texts["rejected"].append(outcome.line())
                rejected[outcome.reason] = rejected.get(outcome.reason, 0) + 1
                continue
            if records is None:
                # One record a chunk: training reads records in random order.
                records = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
            record = outcome.record
            content = schema.serialize(record, spec=spec)
            records.write(content)
            counts.update(
                studies=1,
                images=len(record.images),
                sentences=len(record.sentences),
                record_bytes=len(content),
            )
            subjects.add(record.subject_id)
            text_sources[record.text_source] += 1
            pixels += outcome.pixels
            if outcome.source is not None:
                texts["sources"].append(json.dumps(outcome.source, ensure_ascii=False) + "\n")
    finally:
        if records is not None:
            records.close()
    size, digest = 0, ""
    if records is not None:
        size, digest = temporary.stat().st_size, common.sha256_of(temporary)
        os.replace(temporary, shard)
    for kind, lines in texts.items():
        path = writer.parts / f"{job.name}.{kind}.jsonl"
        schema.write_atomically(path, "".join(lines).encode())
    part = Part(
        size=size,
        sha256=digest,
        subjects=len(subjects),
        rejected=rejected,
        text_sources=dict(sorted(text_sources.items())),
        pixels=dataclasses.astuple(pixels),
        **counts,
    )
    schema.write_atomically(
        writer.parts / f"{job.name}.json", json.dumps(dataclasses.asdict(part)).encode()
    )
    return part


def finish(
    writer: SetWriter,
    jobs: Sequence[Job],
    parts: Mapping[str, Part],
    *,
    label_names: Sequence[str],
    short_side: int,
    plan_rejected: Mapping[str, int],
) -> schema.Manifest:
    """Puts the shards in place and writes the set's metadata and manifest.

    Killed at any moment, a later run takes up where it stopped.

    Raises:
      DataError: if not one record was kept; `rejected.jsonl` tells why.
    """
    rejected = collections.Counter(plan_rejected)
    for part in parts.values():
        rejected.update(part.rejected)
    _concatenate(
        writer.out / schema.REJECTED_NAME,
        [
            writer.plan_rejections,
            *(writer.parts / f"{job.name}.rejected.jsonl" for job in jobs),
        ],
    )
    kept = {
        split: [job for job in jobs if job.split == split and parts[job.name].studies]
        for split in schema.SPLITS
    }
    if not any(kept.values()):
        raise DataError(
            f"{writer.out}: every study was rejected",
            received=dict(sorted(rejected.items())),
            accepted=f"at least one study; {schema.REJECTED_NAME} lists each reason",
        )
    sources = [writer.parts / f"{job.name}.sources.jsonl" for jobs in kept.values() for job in jobs]
    if any(path.stat().st_size for path in sources):
        _concatenate(writer.out / SOURCES_NAME, sources)
    shards = _place_shards(writer, kept, parts)
    schema.write_dataset_info(
        writer.out,
        shard_lengths={s: [parts[job.name].studies for job in kept[s]] for s in kept},
        shard_bytes={s: sum(parts[job.name].record_bytes for job in kept[s]) for s in kept},
    )
    manifest = _manifest(
        writer,
        {split: [parts[job.name] for job in kept[split]] for split in kept},
        label_names=label_names,
        short_side=short_side,
        rejected=dict(sorted(rejected.items())),
        shards=shards,
    )
    schema.save_manifest(manifest, writer.out)
    shutil.rmtree(writer.parts)
    return manifest


def _place_shards(
    writer: SetWriter, kept: Mapping[str, Sequence[Job]], parts: Mapping[str, Part]
) -> dict[str, str]:
    """Renames finished shards to their TFDS names; returns name -> sha256."""
    hashes = {}
    for split, jobs in kept.items():
        for index, job in enumerate(jobs):
            name = schema.shard_name(split, shard=index, shards=len(jobs))
            source = _shard_path(writer, job)
            if source.is_file():
                os.replace(source, writer.out / name)
            elif not (writer.out / name).is_file():
                raise DataError(str(source), received="no such file", accepted="a finished shard")
            hashes[name] = parts[job.name].sha256
    return hashes


def _concatenate(target: pathlib.Path, sources: Sequence[pathlib.Path]) -> None:
    """Writes the sources one behind the other, in pieces, whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    with open(temporary, "wb") as file:
        for source in sources:
            with open(source, "rb") as part:
                shutil.copyfileobj(part, file)
    os.replace(temporary, target)


def _manifest(
    writer: SetWriter,
    parts: Mapping[str, Sequence[Part]],
    *,
    label_names: Sequence[str],
    short_side: int,
    rejected: Mapping[str, int],
    shards: Mapping[str, str],
) -> schema.Manifest:
    every = [part for split in parts.values() for part in split]
    # A set without training studies is described by all it has.
    pixels = sum((PixelSums(*part.pixels) for part in parts["train"] or every), start=PixelSums())
    mean, std = pixels.mean_and_std()
    text_sources = collections.Counter()
    for part in every:
        text_sources.update(part.text_sources)
    counted = ("studies", "images", "subjects", "sentences")
    return schema.Manifest(
        format=schema.MANIFEST_FORMAT,
        program=writer.program,
        settings=dict(writer.settings),
        versions=dict(common.versions()),
        label_names=tuple(label_names),
        splits={
            split: schema.SplitCounts(
                **{name: sum(getattr(part, name) for part in parts[split]) for name in counted}
            )
            for split in parts
        },
        rejected=rejected,
        inputs=dict(writer.inputs),
        shards=dict(shards),
        image=schema.ImageStatistics(short_side=short_side, mean=mean, std=std),
        text_sources=dict(sorted(text_sources.items())),
    )


def shard_jobs(
    codes: Sequence[int], subjects: Sequence[Any], *, studies_per_shard: int
) -> list[Job]:
    """Cuts studies, sorted by split and patient, into one job a shard.

    Args:
      codes: [N], index in schema.SPLITS, sorted.
      subjects: [N], sorted within a split.
      studies_per_shard: a shard holds at most so many, unless one patient alone has more: a
        patient's studies are never cut apart, so that patients can be counted by shard.
    """
    jobs = []
    begin = 0
    for position in range(1, len(codes) + 1):
        ends = position == len(codes) or codes[position] != codes[begin]
        if not ends:
            if subjects[position] == subjects[position - 1]:
                continue
            behind = position + 1
            while behind < len(codes) and subjects[behind] == subjects[position]:
                behind += 1
            ends = behind - begin > studies_per_shard
        if ends:
            split = schema.SPLITS[int(codes[begin])]
            jobs.append(Job(name=f"{split}-{begin:07d}", split=split, begin=begin, end=position))
            begin = position
    return jobs


def summary(manifest: schema.Manifest, *, out: str) -> str:
    """Returns, in a few lines, what a set holds and what was left out."""
    lines = [f"{out}:"]
    for split, counts in manifest.splits.items():
        lines.append(
            f"  {split:<9}{counts.studies:>8} studies{counts.images:>9} images"
            f"{counts.subjects:>8} patients{counts.sentences:>10} sentences"
        )
    for reason, count in manifest.rejected.items():
        lines.append(f"  rejected {count:>9}  {reason}")
    return "\n".join(lines)
