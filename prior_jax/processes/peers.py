"""Detects lost processes of a run, and ends all others with a message that names the lost one.

Each process keeps a status card in the key-value store of JAX's coordination service: its host and
pid, its activity, and a beat that increases with each update. Process 0 detects processes that are
silent; the others detect the loss of process 0, which holds the store. The first process that
learns why the run ends writes the verdict, for which all processes wait.
"""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from jax.errors import JaxRuntimeError

from prior_jax.errors import first_line
from prior_jax.processes.cards import Card, Store, Verdict, own_card, read_verdict, say

EXIT_LOST = 76
"""Exit status of a process that ended because another process did."""

_CARDS, _LEFT, _VERDICT, _END = (f"prior_jax/{name}" for name in ("card", "left", "verdict", "end"))
_LONGEST_BEAT_SECONDS = 2.0
_ROLL_CALL_BEATS = 5
_LATE_BEATS = 1.5
_GRACE_SECONDS = 5.0
_LINGER_SECONDS = 30.0
_DAY_MS = 24 * 3600 * 1000
_OF_OTHERS = (
    "Gloo",
    "NCCL",
    "coordination",
    "heartbeat",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "Connection closed by peer",
    "Connection reset by peer",
)
"""Words in the errors of collectives and barriers that another process did not reach."""


class LostProcess(Exception):
    """Another process of the run is gone; the message names it."""


class Peers:
    """This process among the others; two threads update its card and wait for the verdict."""

    def __init__(
        self,
        store: Store,
        *,
        process: int,
        processes: int,
        heartbeat_seconds: float,
        reachable: Callable[[], bool],
        leave: Callable[[int], Any] = os._exit,
    ):
        """Stores its arguments; see `start`.

        Args:
          store: store that all processes share; process 0 holds it.
          process: index of this process.
          processes: number of processes.
          heartbeat_seconds: time of silence after which a process counts as lost.
          reachable: function that returns whether process 0 still accepts connections; False ends
            this process.
          leave: function that ends this process with an exit code, at once.
        """
        self.process, self.processes = process, processes
        self.beat_seconds = min(_LONGEST_BEAT_SECONDS, heartbeat_seconds / 10)
        self._store, self._limit, self._exit = store, heartbeat_seconds, leave
        self._reachable = reachable
        self._beat, self._notice, self._turns = 0, None, 0
        self._heard: dict[int, tuple[int, float]] = {}
        self._known: dict[int, Card] = {}
        self._judged = self._answered = time.monotonic()
        self._closed, self._told = threading.Event(), threading.Event()
        self._claim, self._verdict = threading.Lock(), None
        self._threads = [threading.Thread(target=self._carry, name="peers", daemon=True)]
        if process != 0:
            watch = threading.Thread(target=self._watch_store, name="peers_store", daemon=True)
            self._threads.append(watch)

    def start(self) -> None:
        """Writes the first card and starts the threads."""
        self._hand_in()
        for thread in self._threads:
            thread.start()

    def own(self) -> Card:
        """Returns this process's own card."""
        return own_card(self.process, beat=self._beat, notice=self._notice)

    def asked_to_stop(self, notice: str) -> None:
        """Records on the card that a signal asked this process to stop."""
        self._notice = notice
        self._hand_in()

    def next_turn(self) -> int:
        """Returns how often this was called, this time included, since the processes started."""
        self._turns += 1
        return self._turns

    def cards(self) -> dict[int, Card]:
        """Returns the newest card of each process, by index.

        Raises:
          JaxRuntimeError: if process 0 does not answer.
        """
        found = [Card(**json.loads(text)) for _, text in self._store.key_value_dir_get(_CARDS)]
        self._known |= {card.process: card for card in found}
        return {card.process: card for card in found}

    def tell(self, verdict: Verdict) -> Verdict:
        """Writes the verdict unless there is one already, and returns the one that holds."""
        text = json.dumps(dataclasses.asdict(verdict))
        try:
            self._store.key_value_set(_VERDICT, text)
        except JaxRuntimeError:
            # Either there is a verdict already, or the store is gone and this verdict holds.
            try:
                return read_verdict(self._store.blocking_key_value_get(_VERDICT, 1000))
            except JaxRuntimeError:
                return verdict
        return verdict

    def report(self, error: BaseException) -> None:
        """Finds out whether another process caused this one's error; if not, writes a verdict.

        The main thread calls this with the error that it is about to end with.

        Raises:
          LostProcess: naming the other process.
        """
        verdict = self._blame(error) if _is_of_others(error) else None
        self.claim()
        if verdict is not None:
            raise LostProcess(verdict.cause) from error
        card = self.own()
        self.tell(
            Verdict(
                code=EXIT_LOST,
                cause=f"{card.name} ended in {card.where}: {first_line(error)}",
                lost=(),
                grace_seconds=_GRACE_SECONDS,
            )
        )

    def claim(self) -> None:
        """Makes the caller the thread that ends the process; never returns if another thread is."""
        if not self._claim.acquire(blocking=False):
            time.sleep(2 * _LINGER_SECONDS)  # the other thread may linger too
            self._exit(EXIT_LOST)

    def finish(self) -> None:
        """Waits until all other processes have ended, then stops the threads."""
        try:
            self._store.wait_at_barrier(_END, _DAY_MS)
        except JaxRuntimeError as error:
            self._told.wait(self._limit)
            self.claim()
            say(first_line(error) if self._verdict is None else self._verdict.cause)
            self._exit(EXIT_LOST)
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def depart(self) -> None:
        """Marks this process as gone; process 0 then waits until the others are gone as well.

        The others would hang in jaxlib if process 0, which holds the store, ended first.
        """
        lost = set() if self._verdict is None else set(self._verdict.lost)
        waits = set(range(1, self.processes)) - lost
        try:
            self._store.key_value_set(f"{_LEFT}/{self.process}", "", True)
            end = time.monotonic() + _LINGER_SECONDS
            while self.process == 0 and waits and time.monotonic() < end:
                time.sleep(self.beat_seconds / 10)
                left = self._store.key_value_dir_get(_LEFT)
                waits -= {int(key.split("/")[-1]) for key, _ in left}
        except JaxRuntimeError:
            return  # the store is gone, and there is no process left to wait for

    def end(self, verdict: Verdict) -> None:
        """Ends this process from a monitoring thread, since the main thread may be stuck."""
        self._verdict = verdict
        self._told.set()
        time.sleep(verdict.grace_seconds)
        if self._claim.acquire(blocking=False):
            say(verdict.cause)
            if 0 not in verdict.lost:
                self.depart()
        else:
            time.sleep(2 * _LINGER_SECONDS)  # the main thread is about to end the process
        self._exit(verdict.code)

    def _hand_in(self) -> None:
        self._beat += 1  # two threads may call this; it matters only that the beat changes
        text = json.dumps(dataclasses.asdict(self.own()))
        self._store.key_value_set(f"{_CARDS}/{self.process}", text, True)

    def _carry(self) -> None:
        """Writes cards and waits for the verdict."""
        while not self._closed.is_set():
            try:
                self._hand_in()
                self._know_first()
                lost = self._silent(self.cards()) if self.process == 0 else ()
                verdict = self.tell(self._lost(lost)) if lost else self._await_verdict()
            except JaxRuntimeError:
                verdict = self._lost((0,))
            self._answered = time.monotonic()
            if verdict is not None:
                if not self._closed.is_set():
                    self.end(verdict)
                return

    def _know_first(self) -> None:
        """Stores the card of process 0, which cannot be read once process 0 is gone."""
        if self.process != 0:
            text = self._store.blocking_key_value_get(f"{_CARDS}/0", _DAY_MS)
            self._known[0] = Card(**json.loads(text))

    def _await_verdict(self) -> Verdict | None:
        try:
            wait = round(self.beat_seconds * 1000)
            return read_verdict(self._store.blocking_key_value_get(_VERDICT, wait))
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error):
                return None
            raise

    def _watch_store(self) -> None:
        """Ends this process when process 0 has not answered for too long, or is gone.

        From the moment at which jaxlib finds process 0 gone until it aborts, it can hold a lock
        that every call of the store needs, so no call of the store would return with an error.
        """
        before = time.monotonic()
        while not self._closed.wait(self.beat_seconds / 4):
            now = time.monotonic()
            if now - before > self._limit / 2:
                self._answered = now  # this process itself was suspended
            before = now
            silence = now - self._answered
            late = silence > _LATE_BEATS * self.beat_seconds
            if silence > self._limit or (late and not self._reachable()):
                self.end(self._lost((0,)))
                return

    def _silent(self, cards: dict[int, Card]) -> tuple[int, ...]:
        """Returns the processes whose beat has not changed for too long."""
        now = time.monotonic()
        if now - self._judged > self._limit / 2:
            self._heard.clear()  # this process itself was suspended and received no beats
        self._judged = now
        for process in range(1, self.processes):
            beat = cards[process].beat if process in cards else -1
            if self._heard.get(process, (None, now))[0] != beat:
                self._heard[process] = (beat, now)
        silence = {process: now - since for process, (_, since) in self._heard.items()}
        if not any(seconds > self._limit for seconds in silence.values()):
            return ()
        # All processes of a lost machine fall silent at about the same time.
        least = self._limit - 3 * self.beat_seconds
        return tuple(process for process, seconds in silence.items() if seconds > least)

    def _lost(self, lost: Iterable[int]) -> Verdict:
        lost = tuple(lost)
        named = [
            f"{self._known[i].name} was lost in {self._known[i].where}"
            if i in self._known
            else f"process {i} was lost"
            for i in lost
        ]
        again = "run the same command again to resume from the newest checkpoint"
        return Verdict(code=EXIT_LOST, cause=f"{', '.join(named)}; {again}", lost=lost)

    def _blame(self, error: BaseException) -> Verdict | None:
        """Checks all beats after a collective that failed; returns None if no process is lost."""
        try:
            before = self.cards()
            if not self._told.wait(_ROLL_CALL_BEATS * self.beat_seconds):
                after = self.cards()
                lost = [i for i in before if after[i].beat == before[i].beat and i != self.process]
                if not lost:
                    return None
                self._verdict = self.tell(self._lost(lost))
        except JaxRuntimeError:
            self._told.wait(self._limit)
        return self._verdict


def _is_of_others(error: BaseException | None) -> bool:
    """Returns whether an error or one of its causes is that of a collective that others missed."""
    while error is not None:
        if any(word in str(error) for word in _OF_OTHERS):
            return True
        error = error.__cause__ or error.__context__
    return False
