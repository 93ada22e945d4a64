"""The rates of a run: which time a step takes."""

import types

import numpy as np
import pytest

from prior_jax.train import metrics, run_log
from tests.train import toy


@pytest.fixture
def clocked(tmp_path, monkeypatch):
    """A log whose clock stands still: the clock, and functions that start a step and read it."""
    passed = [0.0]
    monkeypatch.setattr(run_log, "time", types.SimpleNamespace(monotonic=lambda: passed[0]))
    feed = types.SimpleNamespace(waited_seconds=0.0)
    log = run_log.RunLog(metrics.Writers([]), feed=feed, data=toy.ToyData(), workdir=tmp_path)

    def started(*, waited=0.0):
        feed.waited_seconds += waited
        found = types.SimpleNamespace(finite=True, pairs=16.0)
        pending = log.started(1, toy.STAGES[0], found, np.zeros(0))
        pending.ended.result()  # done at once
        return pending

    def read(pending):
        log.read(pending)
        found = log.rates()
        log.reset()
        return found["pairs_per_second"], found["input_wait"]

    return passed, log, started, read


def test_a_step_counts_the_time_from_the_end_of_the_step_before(clocked):
    """Not when it is read, after the next has been started."""
    passed, log, started, read = clocked
    passed[0] += 2
    first = started()
    passed[0] += 4  # the host reads the next batch
    second = started(waited=3)
    passed[0] += 1
    assert [read(first), read(second)] == [(8, 0), (4, 0.75)]
    passed[0] += 100  # evaluates and saves
    log.restart()
    passed[0] += 8
    assert read(started()) == (2, 0)


def test_compiling_for_longer_reports_counts_in_no_rate_either(clocked):
    passed, log, started, read = clocked

    def step(tokens, *, compiles=0.0):
        with log.compiling(toy.STAGES[0], {"tokens": np.zeros((16, tokens))}):
            passed[0] += compiles
        passed[0] += 2
        return started(waited=compiles)

    assert [read(step(6, compiles=60.0)), read(step(6))] == [(8, 0), (8, 0)]
    before, longer = step(6), step(9, compiles=50.0)  # compiled while the other is not yet read
    assert [read(before), read(longer), read(step(9)), read(step(6))] == [(8, 0)] * 4
