"""Peers on a store that is a dictionary, with heartbeats of a second and a half."""

import threading
import time

import pytest
from jax.errors import JaxRuntimeError

from prior_jax.processes import peers as peers_lib
from prior_jax.processes.cards import Verdict
from prior_jax.processes.peers import EXIT_LOST, LostProcess, Peers

HEARTBEAT = 1.5


class Store:
    """What the coordination service keeps."""

    def __init__(self):
        self.values, self.changed, self.gone = {}, threading.Condition(), False

    def _check(self):
        if self.gone:
            raise JaxRuntimeError("UNAVAILABLE: Socket closed")

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            self._check()
            if key in self.values and not allow_overwrite:
                raise JaxRuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self.changed:
            self.changed.wait_for(lambda: key in self.values or self.gone, timeout_in_ms / 1000)
            self._check()
            if key not in self.values:
                raise JaxRuntimeError(f"DEADLINE_EXCEEDED: {key}")
            return self.values[key]

    def key_value_dir_get(self, key):
        with self.changed:
            self._check()
            return [(k, v) for k, v in self.values.items() if k.startswith(f"{key}/")]

    def close(self):
        with self.changed:
            self.gone = True
            self.changed.notify_all()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(peers_lib, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(peers_lib, "_LINGER_SECONDS", 0.2)


class Run:
    """Processes of which each is a `Peers` in this one."""

    def __init__(self, count):
        self.store, self.codes, self.listens = Store(), {}, True
        self.all = [
            Peers(
                self.store,
                process=i,
                processes=count,
                heartbeat_seconds=HEARTBEAT,
                reachable=lambda: self.listens,
                leave=lambda code, i=i: self.codes.setdefault(i, code),
            )
            for i in range(count)
        ]
        for one in self.all:
            one.start()

    def freeze(self, process):
        """Its card is handed in no more, not even by a thread that is about to."""
        self.all[process]._closed.set()
        self.all[process]._threads[0].join()

    def wait_for(self, *processes):
        end = time.monotonic() + 5
        while not set(processes) <= set(self.codes) and time.monotonic() < end:
            time.sleep(0.02)
        return [self.codes.get(process) for process in processes]


@pytest.fixture
def run():
    found = Run(3)
    yield found
    for process in range(3):
        found.freeze(process)
    found.store.close()
    for thread in (thread for one in found.all for thread in one._threads):
        thread.join()  # what they say belongs to this test


def test_a_silent_process_is_named_and_ends_the_others(run, capfd):
    run.freeze(2)
    assert run.wait_for(0, 1) == [EXIT_LOST, EXIT_LOST]
    lines = [x for x in capfd.readouterr().err.splitlines() if "was lost" in x]
    assert len(lines) == 2 and all(x.startswith("process 2 (host ") for x in lines)
    assert "run the same command again" in lines[0]


def test_while_all_are_there_nothing_ends(run):
    time.sleep(2 * HEARTBEAT)
    assert run.codes == {}


def test_process_0_is_named_when_the_store_is_gone(run, capfd):
    time.sleep(HEARTBEAT / 5)  # the others have seen its card by then
    run.freeze(0)
    run.store.close()
    assert run.wait_for(1, 2) == [EXIT_LOST, EXIT_LOST]
    assert "process 0 (host " in capfd.readouterr().err


def test_process_0_is_named_when_no_call_of_the_store_comes_back(run, capfd):
    time.sleep(HEARTBEAT / 5)
    run.freeze(0)
    with run.store.changed:  # as jaxlib keeps its lock while it aborts
        run.listens = False
        began = time.monotonic()
        assert run.wait_for(1, 2) == [EXIT_LOST, EXIT_LOST]
        assert time.monotonic() - began < HEARTBEAT
    assert "process 0 (host " in capfd.readouterr().err


def test_the_error_of_one_is_what_the_others_end_with(run, capfd):
    run.all[1].report(ValueError("a torn page"))
    assert run.wait_for(0, 2) == [EXIT_LOST, EXIT_LOST]
    assert "ended in " in (said := capfd.readouterr().err) and "ValueError: a torn page" in said


def test_process_0_stays_until_the_one_with_the_error_has_left(run, monkeypatch):
    monkeypatch.setattr(peers_lib, "_LINGER_SECONDS", 3.0)
    run.all[1].report(ValueError("a torn page"))
    run.wait_for(2)
    time.sleep(0.5)
    assert 0 not in run.codes
    run.all[1].depart()
    assert run.wait_for(0) == [EXIT_LOST]


def test_a_failed_collective_is_blamed_on_the_lost_process(run):
    run.freeze(2)
    error = ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")
    with pytest.raises(LostProcess, match=r"^process 2 \(host .* was lost"):
        run.all[1].report(error)
    assert run.wait_for(0) == [EXIT_LOST]


def test_an_error_behind_another_is_seen(run):
    run.freeze(2)
    error = RuntimeError("the save failed")
    error.__cause__ = ValueError("Gloo: Connection closed by peer")
    with pytest.raises(LostProcess):
        run.all[0].report(error)
    assert run.wait_for(1) == [EXIT_LOST]


def test_a_failed_collective_with_all_there_is_ones_own_fault(run):
    run.all[0].report(ValueError("Gloo: out of memory"))
    assert "Gloo: out of memory" in run.store.values["prior_jax/verdict"]


def test_the_first_verdict_counts(run):
    first = Verdict(code=77, cause="first", lost=(1,))
    assert run.all[0].tell(first) == first
    assert run.all[1].tell(Verdict(code=76, cause="second", lost=())) == first
    assert run.wait_for(0, 1, 2) == [77, 77, 77]
