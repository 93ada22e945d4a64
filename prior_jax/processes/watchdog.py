"""Reports the process and activity in which a run stalls, and ends a run that does not recover."""

import dataclasses
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging
from jax.errors import JaxRuntimeError

from prior_jax.errors import check_field, check_least
from prior_jax.processes import activities
from prior_jax.processes.cards import Card, Verdict, own_card, say
from prior_jax.processes.peers import Peers

EXIT_CODE = 77
"""Exit status of a run that the watchdog ended."""

_LONGEST_TICK_SECONDS = 1.0
# Events that jax reports when a program has been lowered, and when it has been compiled.
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """Limits on an activity's duration without progress; the section `config.watchdog`.

    The activities are those of the module `activities`: input, step, collective, save, ...

    Attributes:
      warn_seconds: seconds until the log names activity and process, with the stacks of all
        threads.
      end_seconds: seconds until the run is ended with exit code 77, or None for never.
      compile_seconds: seconds by which both limits are extended while any process compiles.
    """

    warn_seconds: float
    end_seconds: float | None
    compile_seconds: float

    def __post_init__(self):
        """Refuses limits that are out of range or in the wrong order."""
        check_field(self, "warn_seconds", self.warn_seconds > 0, "above 0")
        ordered = self.end_seconds is None or self.end_seconds >= self.warn_seconds
        must_be = f"None, or at least warn_seconds, which is {self.warn_seconds}"
        check_field(self, "end_seconds", ordered, must_be)
        check_least(self, compile_seconds=0)


class Watchdog:
    """Context manager that monitors the main thread."""

    def __init__(
        self,
        config: WatchdogConfig,
        *,
        peers: Peers | None,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], Any] = os._exit,
    ):
        """Stores its arguments; no thread is started yet.

        Args:
          config: the limits.
          peers: this process among the others, or None if it is alone.
          clock: function that returns seconds of the clock that `activities` uses.
          leave: function that ends this process with an exit code, at once.
        """
        self._config, self._peers, self._clock, self._leave = config, peers, clock, leave
        self._closed = threading.Event()
        self._warned: activities.Place | None = None
        self._compiling: activities.Place | None = None
        self._tick = min(_LONGEST_TICK_SECONDS, config.warn_seconds / 4)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        """Starts the thread; from now on compiling is recorded as an activity."""
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        self._before = activities.enter(activities.START)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        """Stops the thread."""
        self._closed.set()
        self._thread.join()
        activities.leave(self._before)
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def look(self) -> None:
        """Compares the main thread's activity with the limits."""
        place = activities.place()
        seconds = self._clock() - place.since
        if self._warned is not None and self._warned != place:
            logging.warning("%s: the run makes progress again", self._warned)
            self._warned = None
        if seconds <= self._config.warn_seconds:
            return
        cards = self._cards()
        spare = self._config.compile_seconds * any(
            card.activity == activities.COMPILE for card in cards.values()
        )
        end = self._config.end_seconds
        if self._warned is None and seconds > self._config.warn_seconds + spare:
            self._warned = place
            logging.error(
                "%s has lasted %.0f s without progress (config.watchdog.warn_seconds = %g)\n%s\n%s",
                place,
                seconds,
                self._config.warn_seconds,
                describe(cards),
                stacks(),
            )
        if end is not None and seconds > end + spare:
            self._end(cards)

    def _run(self) -> None:
        while not self._closed.wait(self._tick):
            self.look()

    def _cards(self) -> Mapping[int, Card]:
        own = own_card(0) if self._peers is None else self._peers.own()
        try:
            others = {} if self._peers is None else self._peers.cards()
        except JaxRuntimeError:
            others = {}  # process 0 is gone, which the threads of `Peers` handle
        return {**others, own.process: own}

    def _end(self, cards: Mapping[int, Card]) -> None:
        cause = (
            f"no progress for {self._config.end_seconds:g} s "
            f"(config.watchdog.end_seconds): {describe(cards)}"
        )
        if self._peers is None:
            say(cause)
            self._leave(EXIT_CODE)
        else:
            verdict = Verdict(code=EXIT_CODE, cause=cause, lost=())
            self._peers.end(self._peers.tell(verdict))

    def _hear(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """Records compilation as an activity; jax calls this in the thread that compiles."""
        if threading.current_thread() is not threading.main_thread():
            return
        if event == _LOWERED:
            before = activities.enter(activities.COMPILE)
            if before.activity != activities.COMPILE:
                self._compiling = before
        elif event == _COMPILED and activities.place().activity == activities.COMPILE:
            if self._compiling is not None:
                activities.leave(self._compiling)


def describe(cards: Mapping[int, Card]) -> str:
    """Returns the activity of each process, first of those that the others wait for.

    Args:
      cards: newest card of each process, by index.
    """
    busy = [card for card in cards.values() if card.activity not in activities.WAITING]
    if not busy:
        least = min((card.step or 0, card.process) for card in cards.values())[0]
        busy = [card for card in cards.values() if (card.step or 0) == least]
    parts = [f"{card.name} is in {card.where} for {card.seconds:.0f} s" for card in busy]
    waiting: dict[str, list[int]] = {}
    for card in cards.values():
        if card not in busy:
            waiting.setdefault(card.where, []).append(card.process)
    for where, processes in waiting.items():
        some = len(processes) > 1
        numbers = ", ".join(map(str, sorted(processes)))
        parts.append(f"process{'es' * some} {numbers} wait{'s' * (not some)} in {where}")
    return "; ".join(parts)


def stacks() -> str:
    """Returns the stacks of all threads but the current one, the main thread's first."""
    frames, names = sys._current_frames(), {t.ident: t.name for t in threading.enumerate()}
    frames.pop(threading.get_ident())
    main = threading.main_thread().ident
    parts = []
    for ident in sorted(frames, key=lambda ident: (ident != main, ident)):
        trace = "".join(traceback.format_stack(frames[ident])).rstrip()
        parts.append(f"thread {names.get(ident, ident)}:\n{trace}")
    return "\n".join(parts)
