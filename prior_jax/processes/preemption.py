"""Saves and stops a run in an orderly way when its machine is taken away."""

import signal
import time
import types

from absl import logging
from jax.experimental import multihost_utils

from prior_jax.processes import activities, distributed, interrupts, signals

EXIT_CODE = 75
"""Exit status of a run that saved and stopped on request: EX_TEMPFAIL, "run it again"."""


class Stopped(Exception):
    """A program was asked to stop, and all that it had done is kept; run the command again."""


class Preempted(Stopped):
    """The run was asked to stop and has saved its state; run the command again to continue."""

    def __init__(self, step: int):
        """Stores the number of steps that were done and saved."""
        self.step = step
        super().__init__(f"The run was asked to stop, and has saved its state after step {step}.")


class PreemptionGuard:
    """Turns SIGTERM, and the first SIGINT, into a flag that the loop checks after each step.

    With one process the signal's handler sets the flag. With several processes, JAX's coordination
    service makes all of them stop after the same step; its own handler of SIGTERM is kept, and
    called by this one, so that the log says which process got the signal. A second SIGINT
    interrupts at once.
    """

    def __init__(self):
        """Creates a guard without a request to stop."""
        self._peers = distributed.peers()
        self._asked: str | None = None
        self._told = self._interrupted = False
        self._noticed = self._stopping = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "PreemptionGuard":
        """Installs the handlers; only the main thread may do so."""
        self._service = signals.handler_of(signal.SIGTERM)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        """Restores the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        if self._peers is not None:
            signals.set_handler(signal.SIGTERM, self._service)
        self._before.clear()

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if number == signal.SIGINT:
            interrupts.note()
            if self._interrupted:  # by users who cannot wait for the save
                raise KeyboardInterrupt
            self._interrupted = True
        name = signal.Signals(number).name
        logging.warning("%s: the run saves its state after this step, and then stops", name)
        if self._asked is None:
            self._asked, self._noticed = name, time.monotonic()
        if self._peers is not None:
            signals.caller(self._service)(signal.SIGTERM)

    def requested(self) -> bool:
        """Returns whether to save and stop now; every process has to call this after every step.

        All processes stop at the same call: the one after the last that any of them has made when
        the request comes. So the calls are counted from the start of the processes on, by all
        guards together: one that began to count anew would pass that call by.

        Returns:
          The same answer in every process.
        """
        if self._peers is None:
            stop = self._asked is not None
        else:
            if self._asked is not None and not self._told:
                # The notice is published before all processes stop, so that their logs can name
                # the process that got the signal.
                self._peers.asked_to_stop(self._asked)
                self._told = True
            with activities.doing(activities.COLLECTIVE):
                stop = multihost_utils.reached_preemption_sync_point(self._peers.next_turn())
        if stop:
            self._stopping = time.monotonic()
        return stop

    def log_saved(self, step: int) -> None:
        """Logs how long the requested save took, and how long ago the signal came."""
        now = time.monotonic()
        message = f"saved step {step} in {now - self._stopping:.1f} s"
        if self._asked is not None:
            message += f", {now - self._noticed:.1f} s after the notice"
        elif self._peers is not None:
            asked = [card for card in self._peers.cards().values() if card.notice is not None]
            message += "".join(f"; {card.name} got {card.notice}" for card in asked)
        logging.warning("%s", message)
