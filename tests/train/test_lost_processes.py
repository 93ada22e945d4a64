"""Several processes of which one is lost, fails or stalls: the others end, and say why."""

import os
import random
import re
import signal
import time

import pytest

from tests.train.test_processes import finish, pair, start, wait_for_lines

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


@pytest.mark.parametrize("step", ["3", pytest.param("5", id="after a save")])
def test_a_process_that_fails_ends_the_others_with_its_error(step, tmp_path, compilation_cache):
    processes = pair(tmp_path, compilation_cache, second=("--fail_at", step))
    (code, errors), (own_code, own) = [finish(process) for process in processes]
    assert own_code == 2 and "record 7: The page is torn." in own, own
    assert code == 76, errors
    assert f"pid {processes[1].pid}) ended in" in errors
    assert "DataError: record 7: The page is torn." in errors


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


@pytest.mark.slow
def test_a_stalled_input_is_named_in_all_logs_and_ends_the_run(tmp_path, compilation_cache):
    limits = ("--warn", "3", "--end", "6")
    processes = pair(tmp_path, compilation_cache, *limits, second=("--stall_at", "5"))
    results = [finish(process, timeout=LONGEST) for process in processes]
    name = rf"process 1 \(host \S+, pid {processes[1].pid}\) is in input at step 5 for \d+ s"
    for code, errors in results:
        assert code == 77, errors
        assert re.search(name + r"; process 0 waits in step at step \d", errors), errors
        assert re.search(r"^no progress for 6 s \(config.watchdog.end_seconds\)", errors, re.M)
        assert "thread MainThread:" in errors
    assert "time.sleep(1000)" in results[1][1] and "in batch" in results[1][1]


@pytest.mark.slow
def test_a_save_that_hangs_is_named(tmp_path, compilation_cache):
    limits = ("--warn", "3", "--end", "5")
    processes = pair(tmp_path, compilation_cache, *limits, second=("--hang_save",))
    for process in processes:
        code, errors = finish(process, timeout=LONGEST)
        assert code == 77, errors
        assert re.search(r"process 1 \(.*\) is in save at step 3 for", errors), errors


@pytest.mark.slow
def test_sigterm_while_a_step_compiles_is_heeded_after_it(tmp_path, compilation_cache):
    for step in (1, 2):  # of a new run, and of the one that goes on from it
        processes = pair(tmp_path, compilation_cache, "--slow_compile", "3", "--slow", "0.1")
        assert "started\n" in iter(processes[1].stdout.readline, "")
        time.sleep(2)
        processes[1].send_signal(signal.SIGTERM)
        results = [finish(process) for process in processes]
        assert [code for code, _ in results] == [75, 75], results
        saved = rf"saved step {step} in .* s"
        assert re.search(rf"{saved}, .* s after the notice", results[1][1]), results
        assert re.search(rf"{saved}; process 1 \(.*\) got SIGTERM", results[0][1]), results


@pytest.mark.slow
def test_sigterm_while_one_process_compiles_is_heeded(tmp_path, compilation_cache):
    process = start(tmp_path, compilation_cache, "--slow_compile", "3")
    assert "started\n" in iter(process.stdout.readline, "")
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 75, errors
    assert re.search(r"saved step 1 in .* s, .* s after the notice", errors), errors
