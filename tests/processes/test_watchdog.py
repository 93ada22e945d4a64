"""The watchdog, with limits of a fraction of a second and others that are made up."""

import dataclasses
import json
import threading
import time

import jax
import jax.numpy as jnp
import pytest
from absl import logging

from prior_jax.errors import ConfigError
from prior_jax.processes import activities
from prior_jax.processes.cards import own_card
from prior_jax.processes.watchdog import EXIT_CODE, Watchdog, WatchdogConfig, describe, stacks

CONFIG = WatchdogConfig(warn_seconds=10.0, end_seconds=20.0, compile_seconds=100.0)


class Clock:
    """Seconds since the stage began that is looked at."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead


class Others:
    """Peers whose cards are made up."""

    process = 0

    def __init__(self, *cards):
        self.given, self.verdicts = {card.process: card for card in cards}, []

    def own(self):
        return own_card(0)

    def cards(self):
        return self.given

    def tell(self, verdict):
        return verdict

    def end(self, verdict):
        self.verdicts.append(verdict)


def card(process, activity, step=7, seconds=31.0):
    return dataclasses.replace(
        own_card(process), host="h", pid=process, activity=activity, step=step, seconds=seconds
    )


@pytest.fixture
def errors(monkeypatch):
    found = []
    monkeypatch.setattr(logging, "error", lambda text, *values: found.append(text % values))
    return found


def looked(seconds, *, peers=None, activity=activities.INPUT, config=CONFIG):
    """Exit codes after one look, so many seconds after a stage began."""
    clock, codes = Clock(), []
    dog = Watchdog(config, peers=peers, clock=clock, leave=codes.append)
    with activities.doing(activity, step=7):
        clock.ahead = seconds
        dog.look()
        dog.look()
    return codes


def test_a_stage_within_its_limit_is_left_alone(errors):
    assert looked(9.0) == [] and errors == []


def test_a_long_stage_is_named_once_with_stacks(errors):
    assert looked(12.0) == []
    assert len(errors) == 1
    assert "input at step 7 has lasted 12 s" in errors[0]
    assert "test_watchdog.py" not in errors[0] or "thread" in errors[0]


def test_a_stage_without_end_ends_the_process_by_name(errors, capfd):
    assert EXIT_CODE in looked(21.0)
    line = capfd.readouterr().err.splitlines()[0]
    assert line.startswith("no progress for 20 s (config.watchdog.end_seconds): process 0 (host ")
    assert "is in input at step 7" in line


def test_no_end_is_set_by_none(errors):
    config = dataclasses.replace(CONFIG, end_seconds=None)
    assert looked(10_000.0, config=config) == [] and len(errors) == 1


@pytest.mark.parametrize(("seconds", "warned", "ended"), [(109, 0, 0), (112, 1, 0), (121, 1, 1)])
def test_the_others_wait_longer_for_one_that_compiles(seconds, warned, ended, errors):
    peers = Others(card(1, activities.COMPILE))
    looked(float(seconds), peers=peers, activity=activities.STEP)
    assert (len(errors), bool(peers.verdicts)) == (warned, bool(ended))


def test_the_verdict_names_who_stalls_the_others(errors):
    peers = Others(card(1, activities.INPUT), card(2, activities.STEP, step=6))
    looked(21.0, peers=peers, activity=activities.STEP)
    verdict = peers.verdicts[0]
    assert verdict.code == EXIT_CODE
    assert "process 1 (host h, pid 1) is in input at step 7 for 31 s" in verdict.cause


def test_who_is_behind_is_named_before_those_that_wait():
    cards = [card(0, "step"), card(1, "input"), card(2, "step"), card(3, "collective")]
    text = describe({one.process: one for one in cards})
    assert text == (
        "process 1 (host h, pid 1) is in input at step 7 for 31 s; "
        "processes 0, 2 wait in step at step 7; process 3 waits in collective at step 7"
    )


def test_where_all_wait_the_one_furthest_behind_is_named():
    cards = {0: card(0, "step", 8), 1: card(1, "step", 7), 2: card(2, "collective", 8)}
    assert describe(cards).startswith("process 1 (host h, pid 1) is in step at step 7 for 31 s; ")


def test_stacks_are_those_of_all_other_threads():
    found = []
    thread = threading.Thread(target=lambda: found.append(stacks()), name="asks")
    thread.start()
    thread.join()
    assert found[0].startswith("thread MainThread:")
    assert "in test_stacks_are_those_of_all_other_threads" in found[0]
    assert "thread asks" not in found[0]


def test_the_thread_watches_while_it_is_a_context(errors):
    config = WatchdogConfig(warn_seconds=0.05, end_seconds=None, compile_seconds=0.0)
    with Watchdog(config, peers=None), activities.doing(activities.SAVE, step=3):
        time.sleep(0.3)
    assert len(errors) == 1 and errors[0].startswith("save at step 3 has lasted")
    assert "time.sleep(0.3)" in errors[0]
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_compiling_is_a_stage_of_its_own():
    seen = []

    def listen(event, duration_secs, **kwargs):
        seen.append(activities.place().activity)

    with Watchdog(CONFIG, peers=None), activities.doing(activities.STEP, step=2):
        jax.monitoring.register_event_duration_secs_listener(listen)
        jax.jit(lambda x: x * 2 + jnp.float32(len(seen)))(jnp.ones(3)).block_until_ready()
        assert activities.place().activity == activities.STEP
        jax.monitoring.unregister_event_duration_listener(listen)
    assert activities.COMPILE in seen


def test_an_inner_stage_is_progress_of_the_outer_one():
    with activities.doing(activities.EVALUATE, step=4):
        began = activities.place()
        assert list(activities.each(activities.INPUT, "ab")) == ["a", "b"]
        assert activities.place().activity == activities.EVALUATE
        assert activities.place().since > began.since and activities.place().step == 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (dict(warn_seconds=0.0), "warn_seconds"),
        (dict(end_seconds=5.0), "end_seconds"),
        (dict(compile_seconds=-1.0), "compile_seconds"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(changes, field):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        dataclasses.replace(CONFIG, **changes)


def test_a_card_is_json():
    assert json.loads(json.dumps(dataclasses.asdict(own_card(3))))["process"] == 3
