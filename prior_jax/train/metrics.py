"""Destinations of a run's metrics: metrics.jsonl, TensorBoard, Weights & Biases, the terminal."""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import math
import os
import pathlib
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

from absl import logging

from prior_jax.errors import ConfigError, check_least
from prior_jax.storage_errors import is_out_of_space


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Destinations and frequency of logging.

    Attributes:
      every_steps: steps between lines of metrics.jsonl; the last step of a stage and evaluated
        steps have a line as well.
      tensorboard: whether to write event files to `<workdir>/tensorboard`.
      wandb_project: Weights & Biases project, or None.
      progress: whether to show progress on stderr.
    """

    every_steps: int
    tensorboard: bool
    wandb_project: str | None
    progress: bool

    def __post_init__(self):
        """Refuses intervals below 1."""
        check_least(self, every_steps=1)


class Writer(Protocol):
    """One destination of records."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the record of one logged step."""
        ...

    def flush(self) -> None:
        """Makes all records written so far survive a crash."""
        ...

    def close(self) -> None:
        """Closes the destination."""
        ...


class MetricsFile:
    """`metrics.jsonl`: one JSON object per logged step, each step once, in order."""

    def __init__(self, path: pathlib.Path, *, done: int):
        """Opens the file to continue after step `done`, dropping lines that will be logged again.

        Args:
          path: path of the file, which is created if absent.
          done: steps done in the restored checkpoint; lines of later steps, and a truncated last
            line, are removed; without a checkpoint, 0, all lines are, that of step 0 too.
        """
        self.path = path
        kept = []
        if path.exists():
            lines = path.read_bytes().splitlines(True)
            kept = [line for line in lines if done and _step_of(line) <= done]
            aside = path.with_name(path.name + ".tmp")
            with aside.open("wb") as file:
                file.writelines(kept)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        self._file = path.open("ab", buffering=0)

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one line with a single write, so that a kill leaves at most its beginning.

        NaN and infinity, which JSON lacks, become null.
        """
        safe = {key: _finite_or_none(value) for key, value in record.items()}
        self._file.write(json.dumps(safe, allow_nan=False).encode() + b"\n")

    def flush(self) -> None:
        """Syncs the lines to disk, so that no checkpoint is ever ahead of them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _step_of(line: bytes) -> float:
    """Returns the step of a complete line; infinity for a truncated one."""
    if not line.endswith(b"\n"):
        return math.inf
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoard:
    """TensorBoard event files; events of steps that will be logged again are hidden."""

    def __init__(self, directory: pathlib.Path, *, done: int):
        """Opens a new event file that replaces earlier events of steps after `done`."""
        module = importlib.import_module("tensorboardX")
        self._writer = module.SummaryWriter(str(directory), purge_step=done and done + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes every number of the record except the step."""
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def flush(self) -> None:
        """Passes the events to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class Wandb:
    """Weights & Biases; a resumed run continues under its id, which is kept in the workdir."""

    def __init__(self, project: str, *, workdir: pathlib.Path, done: int):
        """Starts a run, or resumes the one of this workdir if steps are done."""
        identity = _wandb_id(workdir, done=done)
        module = importlib.import_module("wandb")
        self._run = module.init(project=project, id=identity, resume="allow", dir=str(workdir))

    def write(self, record: Mapping[str, Any]) -> None:
        """Logs the record at its step."""
        self._run.log(dict(record), step=record["step"])

    def flush(self) -> None:
        """Does nothing, since wandb's own process uploads."""

    def close(self) -> None:
        """Finishes the upload."""
        self._run.finish()


def _wandb_id(workdir: pathlib.Path, *, done: int) -> str:
    """Returns the id of the run of a workdir, a new one for a run that begins."""
    path = workdir / "wandb_id"
    if done and path.is_file():
        return path.read_text().strip()
    # In earlier versions the id followed from the path, also for a new run in an old one's place.
    of_path = hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16]
    identity = of_path if done else secrets.token_hex(8)
    path.write_text(identity + "\n")
    return identity


def check_installed(config: LogConfig) -> None:
    """Refuses a destination that is not installed, before any destination is opened.

    Raises:
      ConfigError: if Weights & Biases is configured and not installed.
    """
    if config.wandb_project is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"The package wandb, which logging to the project {config.wandb_project!r} needs, is "
            "not installed.",
            "Run pip install 'prior_jax[wandb]', or set --config.log.wandb_project=None.",
            where="config.log.wandb_project",
        )


class Progress:
    """A live line on a terminal, plain lines elsewhere."""

    def __init__(self, *, total: int, done: int, stream: TextIO | None = None):
        """Starts the clock.

        Args:
          total: steps of the whole run.
          done: steps done before this start of the run.
          stream: stream to write to; stderr by default.
        """
        self._total, self._stream = total, sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._last_step, self._last_time = done, time.monotonic()
        self._seconds_per_step: float | None = None
        self._stage: str | None = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Shows step, stage, loss, speed, input wait and the time left; nothing before a step."""
        now = time.monotonic()
        if not record["step"]:
            self._last_time = now
            return
        steps = max(record["step"] - self._last_step, 1)
        latest = (now - self._last_time) / steps
        before = self._seconds_per_step
        if before is None:
            self._seconds_per_step = latest
        elif record["stage"] == self._stage:  # steps may be skipped between stages
            self._seconds_per_step = 0.7 * before + 0.3 * latest
        self._last_step, self._last_time = record["step"], now
        self._stage = record["stage"]
        left = self._seconds_per_step * (self._total - record["step"])
        line = (
            f"step {record['step']}/{self._total} {record['stage']} | "
            f"loss {record['total_loss']:.4f} | {record['pairs_per_second']:.1f} pairs/s | "
            f"input wait {100 * record['input_wait']:.0f} % | ETA {_clock(left)}"
        )
        self._stream.write(f"\r\x1b[K{line}" if self._live else line + "\n")
        self._stream.flush()

    def leave_out(self, seconds: float) -> None:
        """Excludes time in which no step was made from the speed."""
        self._last_time += seconds

    def flush(self) -> None:
        """Does nothing, since each line is flushed when it is written."""

    def close(self) -> None:
        """Ends the last live line, which stays visible."""
        if self._live:
            self._stream.write("\n")
            self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Writers:
    """All destinations of one run; there are none in processes other than process 0."""

    def __init__(self, writers: Sequence[Writer]):
        """Takes ownership of the destinations, which `close` closes."""
        self._writers = tuple(writers)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the record of one logged step to each destination."""
        for writer in self._writers:
            writer.write(record)

    def leave_out(self, seconds: float) -> None:
        """Excludes time in which no step was made, such as compiling, from the time estimate."""
        for writer in self._writers:
            if isinstance(writer, Progress):
                writer.leave_out(seconds)

    def flush(self) -> None:
        """Makes all records written so far survive a crash."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Closes each destination."""
        for writer in self._writers:
            writer.close()


def open_writers(
    config: LogConfig, *, workdir: pathlib.Path, total: int, done: int, primary: bool
) -> Writers:
    """Opens the destinations of the config.

    Args:
      config: destinations and frequency of logging.
      workdir: folder of the run.
      total: steps of the whole run.
      done: steps done in the restored checkpoint.
      primary: whether this process is the one that writes.

    Returns:
      The writers; none if this process does not write.

    Raises:
      ConfigError: if Weights & Biases is configured and not installed, or metrics.jsonl cannot be
        read and written.
    """
    check_installed(config)
    if not primary:
        return Writers([])
    path = workdir / "metrics.jsonl"
    try:
        writers: list[Writer] = [MetricsFile(path, done=done)]
    except OSError as error:
        if is_out_of_space(error):
            raise
        raise ConfigError(
            f"The log of the metrics cannot be opened ({error.strerror}).",
            "Make it a file that can be read and written, or use another --workdir.",
            where=str(path),
        ) from error
    if config.tensorboard:
        writers.append(TensorBoard(workdir / "tensorboard", done=done))
    if config.wandb_project is not None:
        writers.append(Wandb(config.wandb_project, workdir=workdir, done=done))
    if config.progress:
        writers.append(Progress(total=total, done=done))
    logging.info("logging to %s", workdir / "metrics.jsonl")
    return Writers(writers)
