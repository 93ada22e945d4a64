"""Several processes of which one is lost, fails or stalls: the others end, and say why."""

import os
import random
import re
import signal
import time

import pytest

from tests.train.test_processes import finish, pair, wait_for_lines

pytestmark = pytest.mark.multiprocess
LONGEST = 60  # seconds from the fault to the last end


def strike(workdir, cache, number, *, victim, lines=2, pause=0.0):
    """Sends a signal to one of two processes at a step; (code, errors) of the other."""
    processes = pair(workdir, cache, "--slow", "0.1", "--heartbeat", "5")
    wait_for_lines(workdir, processes[0], lines)
    time.sleep(pause)
    processes[victim].send_signal(number)
    struck = time.monotonic()
    result = finish(processes[1 - victim], timeout=LONGEST)
    seconds = time.monotonic() - struck
    processes[victim].kill()
    finish(processes[victim])
    return (*result, processes[victim].pid, seconds)


def assert_named(errors, process, pid):
    line = rf"^process {process} \(host {os.uname().nodename}, pid {pid}\) was lost in .*"
    assert re.search(line + "run the same command again", errors, re.MULTILINE), errors


def test_a_process_that_fails_ends_the_others_with_its_error(tmp_path, compilation_cache):
    processes = pair(tmp_path, compilation_cache, second=("--fail_at", "3"))
    (code, errors), (own_code, own) = [finish(process) for process in processes]
    assert own_code == 2 and "record 7: received 'a torn page'" in own, own
    assert code == 76, errors
    assert f"pid {processes[1].pid}) ended in" in errors
    assert "DataError: record 7: received 'a torn page'" in errors


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_named_by_the_other(victim, tmp_path, compilation_cache):
    pause = random.random() * 0.3
    code, errors, pid, seconds = strike(
        tmp_path, compilation_cache, signal.SIGKILL, victim=victim, pause=pause
    )
    assert code == 76, errors
    assert_named(errors, victim, pid)
    assert seconds < 15


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_frozen_process_is_named_by_the_other(victim, tmp_path, compilation_cache):
    code, errors, pid, seconds = strike(tmp_path, compilation_cache, signal.SIGSTOP, victim=victim)
    assert code == 76, errors
    assert_named(errors, victim, pid)
    assert seconds < 20
