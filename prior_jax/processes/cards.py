"""What the processes of a run write down for each other, and where they write it."""

import dataclasses
import json
import os
import socket
import time
from typing import Protocol

from prior_jax.processes import activities


class Store(Protocol):
    """What is used of `DistributedRuntimeClient`; every call may raise `JaxRuntimeError`."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        """Sets a value; an error if there is one that may not be overwritten."""

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        """Waits for a value."""
        ...

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """All values under a key."""
        ...

    def wait_at_barrier(self, barrier_id: str, timeout_in_ms: int) -> None:
        """Waits for all processes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a process says of itself.

    Attributes:
      process: its index.
      host: name of its machine.
      pid: of the process on that machine.
      activity: where it is, see `activities`.
      step: of the run, or None before the first.
      seconds: how long it has been there.
      beat: counted up with each card.
      notice: name of the signal that asked it to stop, or None.
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
        """How messages call it."""
        return f"process {self.process} (host {self.host}, pid {self.pid})"

    @property
    def where(self) -> str:
        """Stage and step in words."""
        return str(activities.Place(self.activity, self.step, 0.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What ended the run.

    Attributes:
      code: exit code of the processes that have no error of their own.
      cause: one line.
      lost: indices of those that are gone, whom nobody waits for.
      grace_seconds: how long the others may take to end by themselves, e.g. with the same error.
    """

    code: int
    cause: str
    lost: tuple[int, ...]
    grace_seconds: float = 0.0


def own_card(process: int, *, beat: int = 0, notice: str | None = None) -> Card:
    """What this process says of itself now."""
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
    """A verdict from its JSON."""
    fields = json.loads(text)
    return Verdict(**(fields | {"lost": tuple(fields["lost"])}))


def say(line: str) -> None:
    """Writes a line to stderr, whatever another thread is doing to it."""
    os.write(2, f"{' '.join(line.split())}\n".encode())
