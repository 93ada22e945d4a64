"""Programs in a queue: each runs once, whatever is killed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch.sweep_queue import Job, Queue, hold, last_line

ROOT = pathlib.Path(__file__).parents[2]

# Counts to a number, a letter a time, and goes on where it was stopped.
TRIAL = """
import pathlib, signal, sys, time
folder, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
def note(name, text="x"):
    with (folder / name).open("a") as file:
        file.write(text)
note("spans", f"{time.monotonic()} ")
count = folder / "count"
for _ in range(len(count.read_text()) if count.exists() else 0, steps):
    time.sleep(0.02)
    note("count")
if steps == 0:
    print("all went well until")
    sys.exit("the bang\\n")
note("spans", f"{time.monotonic()}\\n")
"""

# Runs a queue as a program of its own, to be killed.
QUEUE = """
import json, pathlib, sys
from launch.sweep_queue import Job, Queue
listed = json.loads(sys.argv[1])
jobs = [Job(name=n, folder=pathlib.Path(f), command=tuple(c)) for n, f, c in listed]
print("ready", flush=True)
print(json.dumps([one.status for one in Queue(jobs, parallel=int(sys.argv[2])).run()]))
"""


def job(folder, name, *, steps):
    place = folder / name
    command = (sys.executable, "-c", TRIAL, str(place), str(steps))
    return Job(name=name, folder=place, command=command)


def statuses(jobs, *, parallel=2):
    return [outcome.status for outcome in Queue(jobs, parallel=parallel).run()]


def spans(*jobs):
    """When each program that ended well began and ended, in the order of their ends."""
    lines = [line for one in jobs for line in (one.folder / "spans").read_text().splitlines()]
    return sorted((tuple(map(float, line.split())) for line in lines), key=lambda span: span[-1])


def count(one):
    return len((one.folder / "count").read_text()) if (one.folder / "count").exists() else 0


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def start_queue(jobs, *, parallel):
    listed = [[one.name, str(one.folder), list(one.command)] for one in jobs]
    command = [sys.executable, "-c", QUEUE, json.dumps(listed), str(parallel)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_every_job_runs_once_and_no_more_at_a_time_than_asked(tmp_path):
    jobs = [job(tmp_path, f"job{n}", steps=3) for n in range(4)]
    assert statuses(jobs, parallel=2) == ["done"] * 4
    times = spans(*jobs)
    for began, _ in times:
        assert sum(start <= began < end for start, end in times) <= 2
    assert statuses(jobs) == ["done"] * 4
    assert spans(*jobs) == times and all(count(one) == 3 for one in jobs)


def test_a_failure_is_told_by_its_last_line_and_stops_nobody(tmp_path):
    jobs = [job(tmp_path, "bad", steps=0), job(tmp_path, "good", steps=2)]
    bad, good = Queue(jobs, parallel=1).run()
    assert (bad.status, bad.message) == ("failed", "exit code 1: the bang")
    assert good.status == "done"
    again = [job(tmp_path, "bad", steps=2), jobs[1]]
    assert statuses(again) == ["done", "done"]
    assert count(jobs[1]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_queue_that_is_stopped_stops_its_programs_and_goes_on_later(tmp_path, number):
    jobs = [job(tmp_path, "long", steps=100), job(tmp_path, "next", steps=2)]
    process = start_queue(jobs, parallel=1)
    wait_for(lambda: count(jobs[0]) > 2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert json.loads(out.splitlines()[-1]) == ["stopped", "waiting"]
    reached = count(jobs[0])
    assert 2 < reached < 100 and not jobs[0].done
    shorter = [job(tmp_path, "long", steps=reached + 3), jobs[1]]
    assert statuses(shorter) == ["done", "done"]
    assert count(jobs[0]) == reached + 3


def test_a_program_whose_queue_was_killed_is_never_run_twice_at_a_time(tmp_path):
    one = job(tmp_path, "long", steps=50)
    process = start_queue([one], parallel=1)
    wait_for(lambda: count(one) > 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert hold(one.folder) is None
    assert statuses([one]) == ["done"]
    (_, end), (begin, _) = spans(one)
    assert end <= begin and count(one) == 50


def test_the_last_line_is_the_last_with_words(tmp_path):
    (tmp_path / "log").write_text("one\n" * 3000 + "two \n\n  \n")
    assert last_line(tmp_path / "log") == "two"
    assert last_line(tmp_path / "none") == ""
