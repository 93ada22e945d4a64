"""Runs programs in a local queue: each once, some at a time; stopped ones are continued."""

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
      name: name to show to people.
      folder: folder for the program's output and the mark that the program is done; made if
        missing.
      command: program and its arguments; a rerun after a stop or failure continues the program.
      ran_elsewhere: whether the program has succeeded in another folder, and need not run here.
    """

    name: str
    folder: pathlib.Path
    command: tuple[str, ...]
    ran_elsewhere: bool = False

    @property
    def done(self) -> bool:
        """Tells whether the program has succeeded, in this queue or an earlier one."""
        return self.ran_elsewhere or self.ran_here

    @property
    def ran_here(self) -> bool:
        """Tells whether the program has succeeded in its folder."""
        return (self.folder / MARK_NAME).is_file()

    @property
    def standing(self) -> "Outcome":
        """Returns the job's outcome from the files that any queue has left in its folder."""
        failure = self.folder / FAILURE_NAME
        if not self.done and failure.is_file():
            message = json.loads(failure.read_text())["message"]
            return Outcome(name=self.name, status="failed", message=message)
        return Outcome(name=self.name, status="done" if self.done else "waiting", message="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The state of a job.

    Attributes:
      name: name of the job.
      status: "done"; "failed" with an exit code; "stopped" by a request to stop, to the queue or
        to the program alone; "waiting" to be started.
      message: last line of the output of a failed job, "" for other jobs.
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
    """A queue that runs jobs; SIGTERM and SIGINT stop it gracefully."""

    def __init__(self, jobs: Sequence[Job], *, sets: Sequence[DeviceSet], locks: pathlib.Path):
        """Takes the jobs; `run` starts them.

        Args:
          jobs: jobs in the order in which they start.
          sets: device sets; one program at a time runs on each set.
          locks: folder of the locks of the sets. A program holds the locks of its set until it
            ends, even if its queue is killed.
        """
        self._jobs, self._sets, self._locks = tuple(jobs), tuple(sets), locks
        self._asked = False

    def run(self) -> list[Outcome]:
        """Runs the jobs that are not done; a job that fails does not prevent the others.

        On a request to stop, the queue asks the running programs to stop (SIGTERM), waits for
        them, and starts no more.

        Returns:
          The outcome of each job, in the order of the jobs.
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

    def _handle(self, number: int, frame: object) -> None:
        logging.warning("%s: stopping the running trials", signal.Signals(number).name)
        self._asked = True

    def _fill(self, waiting: list[Job], running: list[_Running]) -> None:
        """Starts jobs on all free device sets; a job that still runs for another queue waits."""
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
    """Returns the last line of a log that is not blank, or ""."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def hold(folder: pathlib.Path) -> IO | None:
    """Locks a folder until the file is closed; returns None if another process has the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    return take(folder / ".lock")


def _hold_all(folders: Sequence[pathlib.Path], stack: contextlib.ExitStack) -> list[IO] | None:
    """Locks all folders until the stack closes; returns None if another process has a lock."""
    locks = []
    for folder in folders:
        if (lock := hold(folder)) is None:
            return None
        locks.append(stack.enter_context(lock))
    return locks


def _take(job: Job, locks: list[IO], stack: contextlib.ExitStack) -> bool:
    """Adds a job's lock to its devices' locks; returns False if the job runs or ended elsewhere."""
    held = _hold_all([job.folder], stack)
    if held is None or job.done:
        return False
    locks += held
    return True


def _start(job: Job, devices: DeviceSet, locks: Sequence[IO]) -> _Running:
    """Starts a program that inherits the locks, which stay locked until the program ends.

    A queue that is killed leaves its programs running, and the next queue waits for them.
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
            # Ctrl-C reaches only the queue, which asks the programs to stop.
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(devices.environment),
        )
    devices.bind(process.pid)
    logging.info("%s: started, output in %s", job.name, job.folder / LOG_NAME)
    return _Running(job=job, process=process, began=time.monotonic())


def _stop(running: Sequence[_Running]) -> None:
    """Asks programs to stop, and waits until they have saved their state and ended."""
    for one in running:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
    for one in running:
        one.process.wait()


def _words(ended: _Running, outcome: Outcome) -> str:
    minutes = (time.monotonic() - ended.began) / 60
    said = f" ({outcome.message})" if outcome.message else ""
    return f"{outcome.name}: {outcome.status} after {minutes:.1f} min{said}"
