"""Stopping in good order when the machine is taken away."""

import signal
import time
import types

from absl import logging
from jax.experimental import multihost_utils

from prior_jax.processes import activities, distributed, signals

EXIT_CODE = 75
"""Exit status of a run that saved and stopped on request: EX_TEMPFAIL, "run it again"."""


class Preempted(Exception):
    """The run was asked to stop and has saved its state; run it again to go on."""

    def __init__(self, step: int):
        """Keeps the number of steps that were done and saved."""
        self.step = step
        super().__init__(f"asked to stop; saved after step {step}")


class PreemptionGuard:
    """Turns SIGTERM, and the first SIGINT, into a question that the loop asks after each step.

    With one process a flag is set by the signal's handler. With several, JAX's coordination
    service lets all stop after the same step; its own handler of SIGTERM is kept, and told by
    this one, so that the log says which process was asked. A second SIGINT interrupts at once.
    """

    def __init__(self):
        """Starts without having been asked to stop."""
        self._peers = distributed.peers()
        self._asked: str | None = None
        self._told = False
        self._noticed = self._stopping = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "PreemptionGuard":
        """Installs the handlers; only the main thread may."""
        self._service = signals.handler_of(signal.SIGTERM)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        """Puts back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        if self._peers is not None:
            signals.set_handler(signal.SIGTERM, self._service)
        self._before.clear()

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if number == signal.SIGINT:
            # The next one is Python's KeyboardInterrupt, for those who cannot wait for the save.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        name = signal.Signals(number).name
        logging.warning("%s: saving after this step, then stopping", name)
        if self._asked is None:
            self._asked, self._noticed = name, time.monotonic()
        if self._peers is not None:
            signals.caller(self._service)(signal.SIGTERM)

    def requested(self, turn: int) -> bool:
        """Whether to save and stop now.

        Args:
          turn: 1, 2, 3, ... since the processes started; every process has to ask after every
            step. A request before the first turn stops all at turn 1, and at no other.

        Returns:
          The same answer in every process.
        """
        if self._peers is None:
            stop = self._asked is not None
        else:
            if self._asked is not None and not self._told:
                # Before the next step, and so before all stop: they can say who was asked.
                self._peers.asked_to_stop(self._asked)
                self._told = True
            with activities.doing(activities.COLLECTIVE):
                stop = multihost_utils.reached_preemption_sync_point(turn)
        if stop:
            self._stopping = time.monotonic()
        return stop

    def log_saved(self, step: int) -> None:
        """Says how long the save took that was asked for, and how long it is since the notice."""
        now = time.monotonic()
        message = f"saved step {step} in {now - self._stopping:.1f} s"
        if self._asked is not None:
            message += f", {now - self._noticed:.1f} s after the notice"
        elif self._peers is not None:
            asked = [card for card in self._peers.cards().values() if card.notice is not None]
            message += "".join(f"; {card.name} got {card.notice}" for card in asked)
        logging.warning("%s", message)
