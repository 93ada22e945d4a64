"""Stopping in good order when the machine is taken away."""

import os
import signal
import types

import jax
from absl import logging
from jax.experimental import multihost_utils

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
    service catches SIGTERM in any of them and lets all stop after the same step; a SIGINT is
    handed on to it. A second SIGINT interrupts at once.
    """

    def __init__(self):
        """Starts without having been asked to stop."""
        self._asked = False
        self._distributed = jax.distributed.is_initialized()
        self._before: dict[int, object] = {}

    def __enter__(self) -> "PreemptionGuard":
        """Installs the handlers; only the main thread may."""
        # The coordination service has its own handler for SIGTERM, which ours would replace.
        signals = (signal.SIGINT,) if self._distributed else (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        """Puts back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before.clear()

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if number == signal.SIGINT:
            # The next one is Python's KeyboardInterrupt, for those who cannot wait for the save.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        logging.warning("%s: saving after this step, then stopping", signal.Signals(number).name)
        if self._distributed:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._asked = True

    def requested(self, step: int) -> bool:
        """Whether to save and stop now.

        Args:
          step: steps done so far; every process has to ask after every step.

        Returns:
          The same answer in every process.
        """
        if self._distributed:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked
