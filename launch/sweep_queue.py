"""Runs programs in a local queue: each once, some at a time, and again where it was stopped."""

import dataclasses
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Literal

from absl import logging

from prior_jax.data.schema import write_atomically

MARK_NAME = "trial.json"
LOG_NAME = "log.txt"
_POLL_SECONDS = 0.1
_TAIL_BYTES = 4096

Status = Literal["done", "failed", "stopped", "waiting"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A program to run to its end.

    Attributes:
      name: for people.
      folder: made if absent; keeps the program's output and the mark that it is done.
      command: the program and its arguments; run again after a stop or failure, it goes on.
    """

    name: str
    folder: pathlib.Path
    command: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether it has ended well, now or in an earlier queue."""
        return (self.folder / MARK_NAME).is_file()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job stands.

    Attributes:
      name: of the job.
      status: "done"; "failed" with an exit code; "stopped" by a request to stop; "waiting" to
        be started.
      message: the last line of what a failed one said, "" for the others.
    """

    name: str
    status: Status
    message: str


@dataclasses.dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    began: float


class Queue:
    """Runs jobs; SIGTERM and SIGINT stop it in good order."""

    def __init__(self, jobs: Sequence[Job], *, parallel: int):
        """Keeps the jobs.

        Args:
          jobs: in the order in which they start.
          parallel: how many run at a time, >= 1.
        """
        self._jobs, self._parallel = tuple(jobs), parallel
        self._asked = False

    def run(self) -> list[Outcome]:
        """Runs what is not done yet; a job that fails does not keep the others from running.

        Asked to stop, it asks the running programs to (SIGTERM), waits for them, and starts no
        more.

        Returns:
          How each job stands, in their order.
        """
        found = {job.name: Outcome(name=job.name, status="done", message="") for job in self._jobs}
        waiting = [job for job in self._jobs if not job.done]
        for job in waiting:
            found[job.name] = Outcome(name=job.name, status="waiting", message="")
        total, running = len(waiting), []
        before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            while running or (waiting and not self._asked):
                if self._asked:
                    _stop(running)
                else:
                    self._fill(waiting, running)
                for ended in [one for one in running if one.process.poll() is not None]:
                    running.remove(ended)
                    outcome = self._ended(ended)
                    found[ended.job.name] = outcome
                    left = len(waiting) + len(running)
                    logging.info("%s, %d of %d to go", _words(ended, outcome), left, total)
                time.sleep(_POLL_SECONDS)
        finally:
            _stop(running)
            for number, handler in before.items():
                signal.signal(number, handler)
        return [found[job.name] for job in self._jobs]

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal ended the queue before its time."""
        return self._asked

    def _handle(self, number: int, frame: object) -> None:
        logging.warning("%s: stopping the running trials", signal.Signals(number).name)
        self._asked = True

    def _fill(self, waiting: list[Job], running: list[_Running]) -> None:
        """Starts as many as there is room for; one that another queue left running waits."""
        for job in list(waiting):
            if len(running) >= self._parallel:
                return
            if (lock := hold(job.folder)) is not None:
                waiting.remove(job)
                with lock:
                    running.append(_start(job, lock))

    def _ended(self, ended: _Running) -> Outcome:
        job, code = ended.job, ended.process.returncode
        if code == 0:
            seconds = round(time.monotonic() - ended.began, 1)
            mark = {"command": list(job.command), "seconds": seconds}
            write_atomically(job.folder / MARK_NAME, (json.dumps(mark) + "\n").encode())
            return Outcome(name=job.name, status="done", message="")
        if self._asked:
            return Outcome(name=job.name, status="stopped", message="")
        said = last_line(job.folder / LOG_NAME) or "no output"
        return Outcome(name=job.name, status="failed", message=f"exit code {code}: {said}")


def last_line(path: pathlib.Path) -> str:
    """The last line of a log that is not blank, or ""."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def hold(folder: pathlib.Path) -> IO | None:
    """Takes the lock of a folder until the file is closed; None if another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _start(job: Job, lock: IO) -> _Running:
    """Starts a program that inherits the lock: it stays locked for as long as the program lives.

    A queue that is killed leaves its programs running; the next queue waits for them.
    """
    with (job.folder / LOG_NAME).open("ab") as log:
        log.write(f"$ {' '.join(job.command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),
            # Ctrl-C reaches the queue alone, which asks the programs to stop.
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    logging.info("%s: started, output in %s", job.name, job.folder / LOG_NAME)
    return _Running(job=job, process=process, began=time.monotonic())


def _stop(running: Sequence[_Running]) -> None:
    """Asks programs to stop and waits for them; they save their state first."""
    for one in running:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
    for one in running:
        one.process.wait()


def _words(ended: _Running, outcome: Outcome) -> str:
    minutes = (time.monotonic() - ended.began) / 60
    said = f" ({outcome.message})" if outcome.message else ""
    return f"{outcome.name}: {outcome.status} after {minutes:.1f} min{said}"
