"""Runs programs in a local queue: each once, some at a time, and again where it was stopped."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Literal

from absl import logging

from launch.sweeps.device_sets import DeviceSet
from prior_jax.data.schema import write_atomically
from prior_jax.processes.lock import take
from prior_jax.processes.preemption import EXIT_CODE as EXIT_PREEMPTED

MARK_NAME = "trial.json"
FAILURE_NAME = "failure.json"
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

    @property
    def standing(self) -> "Outcome":
        """How it stands by what queues, here or on other machines, have left in its folder."""
        failure = self.folder / FAILURE_NAME
        if not self.done and failure.is_file():
            message = json.loads(failure.read_text())["message"]
            return Outcome(name=self.name, status="failed", message=message)
        return Outcome(name=self.name, status="done" if self.done else "waiting", message="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job stands.

    Attributes:
      name: of the job.
      status: "done"; "failed" with an exit code; "stopped" by a request to stop, of the queue or
        of the program alone; "waiting" to be started.
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

    def __init__(self, jobs: Sequence[Job], *, sets: Sequence[DeviceSet], locks: pathlib.Path):
        """Keeps the jobs.

        Args:
          jobs: in the order in which they start.
          sets: what a program has for itself; as many run at a time.
          locks: folder of the sets' locks. A program holds those of its set for as long as it
            lives, also where its queue is killed.
        """
        self._jobs, self._sets, self._locks = tuple(jobs), tuple(sets), locks
        self._asked = False

    def run(self) -> list[Outcome]:
        """Runs what is not done yet; a job that fails does not keep the others from running.

        Asked to stop, it asks the running programs to (SIGTERM), waits for them, and starts no
        more.

        Returns:
          How each job stands, in their order.
        """
        waiting = [job for job in self._jobs if not job.done]
        found, total, running = {}, len(waiting), []
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
        return [found.get(job.name) or job.standing for job in self._jobs]

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal ended the queue before its time."""
        return self._asked

    def _handle(self, number: int, frame: object) -> None:
        logging.warning("%s: stopping the running trials", signal.Signals(number).name)
        self._asked = True

    def _fill(self, waiting: list[Job], running: list[_Running]) -> None:
        """Starts as many as there is room for; one that another queue left running waits."""
        for devices in self._sets:
            with contextlib.ExitStack() as stack:
                locks = _hold_all([self._locks / name for name in devices.locks], stack)
                if locks is None:
                    continue
                job = next((job for job in waiting if _take(job, locks, stack)), None)
                if job is not None:
                    waiting.remove(job)
                    running.append(_start(job, devices, locks))
        waiting[:] = [job for job in waiting if not job.done]

    def _ended(self, ended: _Running) -> Outcome:
        job, code = ended.job, ended.process.returncode
        if code == 0:
            seconds = round(time.monotonic() - ended.began, 1)
            mark = {"command": list(job.command), "seconds": seconds}
            write_atomically(job.folder / MARK_NAME, (json.dumps(mark) + "\n").encode())
            return Outcome(name=job.name, status="done", message="")
        if self._asked or code == EXIT_PREEMPTED:
            return Outcome(name=job.name, status="stopped", message="")
        said = last_line(job.folder / LOG_NAME) or "no output"
        failure = {"message": f"exit code {code}: {said}"}
        write_atomically(job.folder / FAILURE_NAME, (json.dumps(failure) + "\n").encode())
        return job.standing


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
    return take(folder / ".lock")


def _hold_all(folders: Sequence[pathlib.Path], stack: contextlib.ExitStack) -> list[IO] | None:
    """The locks of all folders, let go with the stack; None if another process has one."""
    locks = []
    for folder in folders:
        if (lock := hold(folder)) is None:
            return None
        locks.append(stack.enter_context(lock))
    return locks


def _take(job: Job, locks: list[IO], stack: contextlib.ExitStack) -> bool:
    """Adds a job's lock to those of its devices; False if it runs, or ended, elsewhere."""
    held = _hold_all([job.folder], stack)
    if held is None or job.done:
        return False
    locks += held
    return True


def _start(job: Job, devices: DeviceSet, locks: Sequence[IO]) -> _Running:
    """Starts a program that inherits the locks: all stays locked for as long as it lives.

    A queue that is killed leaves its programs running; the next queue waits for them.
    """
    (job.folder / FAILURE_NAME).unlink(missing_ok=True)
    shown = " ".join(f"{name}={value}" for name, value in devices.environment.items())
    with (job.folder / LOG_NAME).open("ab") as log:
        log.write(f"$ {shown}{' ' * bool(shown)}{shlex.join(job.command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(lock.fileno() for lock in locks),
            # Ctrl-C reaches the queue alone, which asks the programs to stop.
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(devices.environment),
        )
    devices.bind(process.pid)
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
