"""Ctrl-C within code that must not be interrupted, and after it."""

import os
import signal
import threading

import pytest

from prior_jax.processes import interrupts
from prior_jax.processes.preemption import PreemptionGuard

pytestmark = pytest.mark.usefixtures("handled_interrupts")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("error", [None, RuntimeError("Event loop is closed")])
def test_the_first_waits_for_the_end_and_hides_what_became_of_it(error):
    reached, seen = [], interrupts.seen()
    with pytest.raises(KeyboardInterrupt) as ended, interrupts.held("reading"):
        interrupt()
        reached.append(True)
        if error is not None:
            raise error
    assert reached and ended.value.__suppress_context__
    assert interrupts.seen() == seen + 1


def test_the_second_is_raised_at_once_and_cannot_be_swallowed():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts.held("reading"):
        interrupt()
        try:
            interrupt()
            reached.append(True)
        except KeyboardInterrupt:
            pass  # as an event loop does
    assert not reached


def test_without_an_interrupt_results_and_errors_pass():
    with interrupts.held("reading"):
        pass
    with pytest.raises(ValueError, match="bad"), interrupts.held("reading"):
        raise ValueError("bad")


def test_blocks_nest():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts.held("saving"):
        with interrupts.held("reading"):
            interrupt()
        reached.append(True)
    assert reached


def test_a_training_notes_the_first_and_the_second_waits_for_the_block():
    with PreemptionGuard() as guard:
        with interrupts.held("reading"):
            interrupt()
        assert guard.requested()
        reached = []
        with pytest.raises(KeyboardInterrupt), interrupts.held("reading"):
            interrupt()
            reached.append(True)
        assert reached
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_another_thread_holds_nothing_back():
    found = []

    def work():
        with interrupts.held("reading"), interrupts.noted():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_what_the_shell_ignores_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen = interrupts.seen()
    try:
        with interrupts.noted(), interrupts.held("reading"):
            interrupt()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert interrupts.seen() == seen


def test_interrupts_are_counted_even_if_they_are_swallowed():
    seen = interrupts.seen()
    with interrupts.noted():
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        with pytest.raises(KeyboardInterrupt), interrupts.held("reading"):
            interrupt()
    assert interrupts.seen() == seen + 2
