"""Status cards and verdicts that the processes of a run write to a shared store."""

import dataclasses
import json
import os
import socket
import time
from typing import Protocol

from prior_jax.processes import activities


class Store(Protocol):
    """The used methods of `DistributedRuntimeClient`; every call may raise `JaxRuntimeError`."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        """Sets a value; raises if the key has a value that may not be overwritten."""

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        """Waits for a value and returns it."""
        ...

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """Returns all values under a key."""
        ...

    def wait_at_barrier(self, barrier_id: str, timeout_in_ms: int) -> None:
        """Waits for all processes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Status card of a process.

    Attributes:
      process: index of the process.
      host: name of the machine.
      pid: process id on that machine.
      activity: current activity, see `activities`.
      step: step of the run, or None before the first.
      seconds: duration of the activity so far.
      beat: counter that increases with each card.
      notice: name of the signal that asked the process to stop, or None.
    """

    process: int
    host: str
    pid: int
    activity: str
    step: int | None
    seconds: float
    beat: int
    notice: str | None = None

    @property
    def name(self) -> str:
        """Returns the name of the process for messages."""
        return f"process {self.process} (host {self.host}, pid {self.pid})"

    @property
    def where(self) -> str:
        """Returns activity and step in words."""
        return str(activities.Place(self.activity, self.step, 0.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The reason for which the run ends.

    Attributes:
      code: exit code of the processes that have no error of their own.
      cause: reason in one line.
      lost: indices of the lost processes, for which no other process waits.
      grace_seconds: time for the others to end by themselves, e.g. with the same error.
    """

    code: int
    cause: str
    lost: tuple[int, ...]
    grace_seconds: float = 0.0


def own_card(process: int, *, beat: int = 0, notice: str | None = None) -> Card:
    """Returns the current status card of this process."""
    place = activities.place()
    return Card(
        process=process,
        host=socket.gethostname(),
        pid=os.getpid(),
        activity=place.activity,
        step=place.step,
        seconds=round(time.monotonic() - place.since, 1),
        beat=beat,
        notice=notice,
    )


def read_verdict(text: str) -> Verdict:
    """Parses a verdict from its JSON."""
    fields = json.loads(text)
    return Verdict(**(fields | {"lost": tuple(fields["lost"])}))


def say(line: str) -> None:
    """Writes a line to stderr without buffers or locks that another thread could hold."""
    os.write(2, f"{' '.join(line.split())}\n".encode())
