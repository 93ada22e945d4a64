"""Writes a prepared set in parallel; a killed run can be resumed, and the bytes are always equal.

A preparer lists its jobs; each job is the studies of one shard. A job's shard, rejections and
counts are written under `.parts/` in the set's directory. The counts are written last and
atomically: a job with counts is finished and is not done again. When all jobs are finished, the
shards are renamed to the names that TFDS expects, and the manifest is written last: a set with a
manifest is complete.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tqdm
from array_record.python import array_record_module

from data_prep.kit import cli, set_differences, splits
from data_prep.kit.finished_jobs import finished, shard_path
from data_prep.kit.outcomes import Job, Part, Process, Rejection, Tally, check_labels
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError, PriorJaxError

PARTS = ".parts"
PLAN_REJECTIONS = "plan.rejected.jsonl"
STATE = "state.json"
"""File of the folder of unfinished work that says which set it is of."""
_LOCK = "lock"
SOURCES_NAME = "sources.jsonl"
# Changes whenever the meaning of a finished job's contents changes.
_PARTS_FORMAT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetWriter:
    """A set that is being written.

    Attributes:
      out: directory of the set.
      program: program that writes the set, e.g. "data_prep.mimic_cxr".
      settings: flags of the program that change what is written.
      inputs: table -> sha256 of its file.
      made: folders that were made for the set, innermost first; a refused command removes them
        again.
      code: sha256 of the program's source, see `source.code_hash`.
    """

    out: pathlib.Path
    program: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    made: tuple[pathlib.Path, ...] = ()
    code: str = ""

    @property
    def parts(self) -> pathlib.Path:
        """Returns the folder of unfinished work."""
        return self.out / PARTS

    @property
    def plan_rejections(self) -> pathlib.Path:
        """Returns the file of rejections from before any job ran, which the preparer writes."""
        return self.parts / PLAN_REJECTIONS


class ProgramChanged(ConfigError):
    """A complete set of the same settings and inputs, from an earlier version of the program."""


def _digest(writer: SetWriter) -> str:
    """Returns a digest that is equal for sets with the same program, settings and inputs."""
    identity = [_PARTS_FORMAT, writer.program, dict(writer.settings), dict(writer.inputs)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _description(writer: SetWriter) -> dict[str, Any]:
    """Returns the description that distinguishes this set from others, as JSON values."""
    described = {
        "program": writer.program,
        "settings": dict(writer.settings),
        "inputs": dict(writer.inputs),
    }
    return json.loads(json.dumps(described))


@contextlib.contextmanager
def opened(
    options: cli.RunOptions,
    *,
    program: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: str = "",
) -> Iterator[SetWriter | None]:
    """Opens the directory of a set for exclusive writing, and continues the work of a killed run.

    Yields:
      The writer, or None if this same set is complete and `overwrite` is off.

    Raises:
      ProgramChanged: if this same set is complete, but with another `code`, and `overwrite` is off.
      ConfigError: if the directory holds something else and `overwrite` is off, or if another
        process is writing to it.
    """
    writer = SetWriter(
        out=pathlib.Path(options.out), program=program, settings=settings, inputs=inputs, code=code
    )
    _refuse_foreign_directory(writer.out)
    written_by = _code_of_complete(writer)
    if written_by == writer.code and not options.overwrite:
        _remove_leftovers(writer)
        yield None
        return
    if written_by is not None and not options.overwrite:
        raise ProgramChanged(
            f"{writer.out} holds a complete set, but the program {program} has changed since the "
            "set was written.",
            "Choose another --out, or set --overwrite to prepare the set again.",
            where="--out",
        )
    if (writer.out / manifest_lib.MANIFEST_NAME).exists() and not options.overwrite:
        raise _other_set(writer, _described_by_manifest(writer.out))
    absent = [folder for folder in (writer.out, *writer.out.parents) if not folder.exists()]
    writer = dataclasses.replace(writer, made=tuple(absent))
    writer.parts.mkdir(parents=True, exist_ok=True)
    with open(writer.parts / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"Another process is writing the set in {options.out}.",
                "Wait until it has ended, or choose another --out.",
                where="--out",
            ) from error
        _take_over(writer, overwrite=options.overwrite)
        yield writer


def _remove_leftovers(writer: SetWriter) -> None:
    """Removes unfinished work beside a complete set, unless another process is at work on it."""
    with contextlib.suppress(OSError), open(writer.parts / _LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(writer.parts, ignore_errors=True)


def _refuse_foreign_directory(out: pathlib.Path) -> None:
    """Refuses a directory that cannot hold a set, or holds anything but a set, finished or not."""
    if any("\ud800" <= letter <= "\udfff" for letter in str(out.absolute())):
        raise ConfigError(
            f"The path {str(out)!r} is not UTF-8, and array_record writes to no other.",
            "Choose a path in UTF-8.",
            where="--out",
        )
    cli.refuse_long_name(out, flag="--out")
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file.", "Give the path of a directory.", where="--out")
    names = {path.name for path in out.iterdir()}
    if names and not names & {PARTS, manifest_lib.MANIFEST_NAME}:
        raise ConfigError(
            f"{out} holds other files than those of a set.",
            "Choose a directory that is empty or does not exist.",
            where="--out",
        )


def _other_set(writer: SetWriter, there: Mapping[str, Any]) -> ConfigError:
    """Returns the error for a directory that holds another set, with the differences.

    Args:
      writer: writer of the wanted set.
      there: `_description` of the existing set, empty if it is not known.
    """
    differing = set_differences.differences(there, _description(writer))
    return ConfigError(
        f"{writer.out} holds a set of other settings or inputs: {differing}.",
        "Choose another --out, give the settings and inputs of that set, or replace it with "
        "--overwrite.",
        where="--out",
    )


def _described_by_manifest(out: pathlib.Path) -> dict[str, Any]:
    try:
        found = manifest_lib.load_manifest(out)
    except DataError:
        return {}
    return _description(
        SetWriter(out=out, program=found.program, settings=found.settings, inputs=found.inputs)
    )


def _take_over(writer: SetWriter, *, overwrite: bool) -> None:
    """Keeps the finished jobs of this same set; drops the jobs of another set if that is allowed.

    Jobs of this set from an earlier version of the program are always dropped: a set is made by
    one version of a program.
    """
    state = writer.parts / STATE
    ours = {"digest": _digest(writer), "code": writer.code, **_description(writer)}
    old = json.loads(state.read_text()) if state.is_file() else {}
    if old.get("digest") != ours["digest"]:
        drops = bool(old) or (writer.out / manifest_lib.MANIFEST_NAME).exists()
        if drops and not overwrite:
            raise _other_set(writer, old)
    else:
        drops = old.get("code") != ours["code"]
        if drops and any(writer.parts.glob("*-*.json")):
            print(
                f"{writer.out}: the program {writer.program} has changed since the set was begun. "
                "The set is prepared again from the start.",
                file=sys.stderr,
            )
    if drops:
        for path in writer.parts.iterdir():
            if path.name != _LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not (writer.out / manifest_lib.MANIFEST_NAME).exists():
            remove_set(writer.out)  # shards of a run that was killed while it finished
    schema.write_atomically(state, json.dumps(ours).encode())
    for stale in writer.parts.glob("*.tmp"):
        stale.unlink()


@contextlib.contextmanager
def refusing(writer: SetWriter) -> Iterator[None]:
    """Restores the directory when a set is refused, unless it holds finished jobs to continue."""
    try:
        yield
    except PriorJaxError:
        if not any(writer.parts.glob("*-*.json")):  # no job of an earlier run is finished
            abandon(writer)
        raise


def abandon(writer: SetWriter) -> None:
    """Removes all unfinished work, and the folders that were made for the set if they are empty."""
    shutil.rmtree(writer.parts)
    with contextlib.suppress(OSError):
        for folder in writer.made:
            folder.rmdir()


def _code_of_complete(writer: SetWriter) -> str | None:
    """Returns the hash of the program that wrote this same set, or None if it is not complete."""
    try:
        manifest = manifest_lib.load_manifest(writer.out)
    except DataError:
        return None
    written = SetWriter(
        out=writer.out,
        program=manifest.program,
        settings=manifest.settings,
        inputs=manifest.inputs,
    )
    whole = all((writer.out / name).is_file() for name in manifest.shards)
    return manifest.code if whole and _digest(written) == _digest(writer) else None


def remove_set(out: pathlib.Path) -> None:
    """Removes the files of a set, and nothing else in the directory.

    The manifest is removed last: if the program is killed before, the directory is still recognised
    as the directory of a set.
    """
    for path in out.glob(f"{schema.DATASET_NAME}-*.array_record-*"):
        path.unlink()
    names = (schema.REJECTED_NAME, SOURCES_NAME, "dataset_info.json", "features.json")
    names = (*names, *(splits.order_name(split) for split in schema.SPLITS))
    for path in (out / name for name in (*names, manifest_lib.MANIFEST_NAME)):
        path.unlink(missing_ok=True)


def run_jobs(
    writer: SetWriter,
    jobs: Sequence[Job],
    process: Process,
    *,
    label_names: Sequence[str],
    workers: int,
) -> dict[str, Part]:
    """Does all unfinished jobs, with a progress bar over studies.

    Args:
      writer: writer of the open set.
      jobs: jobs in the order of their shards.
      process: picklable function that yields the records and rejections of a job.
      label_names: names of the labels; each record has one value for each label.
      workers: number of processes.

    Returns:
      Job name -> results of the job.

    Raises:
      DataError: if a record has another number of labels.
    """
    done = finished(jobs, parts=writer.parts, out=writer.out)
    todo = [job for job in jobs if job.name not in done]
    total = sum(job.end - job.begin for job in jobs)
    ready = total - sum(job.end - job.begin for job in todo)
    with tqdm.tqdm(total=total, initial=ready, unit=" studies", desc=writer.program) as bar:
        work = functools.partial(
            _do_job, writer=writer, process=process, label_names=tuple(label_names)
        )
        for job, part in cli.parallel(work, todo, workers=workers):
            done[job.name] = part
            bar.update(job.end - job.begin)
    return done


def _do_job(job: Job, *, writer: SetWriter, process: Process, label_names: Sequence[str]) -> Part:
    """Writes the shard, the rejections and, last, the counts of one job."""
    tally = Tally()
    shard = shard_path(writer.parts, job.name)
    temporary = shard.with_name(f"{shard.name}.{os.getpid()}.tmp")
    spec = schema.features()
    records = None
    try:
        for outcome in process(job):
            if isinstance(outcome, Rejection):
                tally.reject(outcome)
                continue
            check_labels(outcome.record, label_names)
            if records is None:
                # One record in each chunk: training reads records in random order.
                records = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
            content = schema.serialize(outcome.record, spec=spec)
            records.write(content)
            tally.keep(outcome, size=len(content))
    finally:
        if records is not None:
            records.close()
    size, digest = 0, ""
    if records is not None:
        size, digest = temporary.stat().st_size, cli.sha256_of(temporary)
        os.replace(temporary, shard)
    for kind in ("rejected", "sources"):
        lines = "".join(getattr(tally, kind))
        schema.write_atomically(writer.parts / f"{job.name}.{kind}.jsonl", lines.encode())
    part = tally.part(size=size, sha256=digest)
    content = json.dumps(dataclasses.asdict(part)).encode()
    schema.write_atomically(writer.parts / f"{job.name}.json", content)
    return part
