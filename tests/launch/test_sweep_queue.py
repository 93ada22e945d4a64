"""Programs in a queue: each runs once, whatever is killed."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch.sweeps.device_sets import device_sets, places
from launch.sweeps.queue import Job, Queue, hold, last_line
from prior_jax.errors import ConfigError

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
from launch.sweeps.device_sets import places
from launch.sweeps.queue import Job, Queue
listed = json.loads(sys.argv[1])
jobs = [Job(name=n, folder=pathlib.Path(f), command=tuple(c)) for n, f, c in listed]
print("ready", flush=True)
sets, locks = places(int(sys.argv[2])), pathlib.Path(sys.argv[3])
print(json.dumps([one.status for one in Queue(jobs, sets=sets, locks=locks).run()]))
"""


def job(folder, name, *, steps):
    place = folder / name
    command = (sys.executable, "-c", TRIAL, str(place), str(steps))
    return Job(name=name, folder=place, command=command)


def locks_of(jobs):
    return jobs[0].folder.parent / "devices"


def run(jobs, *, parallel=2):
    return Queue(jobs, sets=places(parallel), locks=locks_of(jobs)).run()


def statuses(jobs, *, parallel=2):
    return [outcome.status for outcome in run(jobs, parallel=parallel)]


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
    arguments = [json.dumps(listed), str(parallel), str(locks_of(jobs))]
    command = [sys.executable, "-c", QUEUE, *arguments]
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
    bad, good = run(jobs, parallel=1)
    assert (bad.status, bad.message) == ("failed", "exit code 1: the bang")
    assert good.status == "done"
    # Known to whoever looks at the folder later.
    assert (jobs[0].standing, jobs[1].standing) == (bad, good)
    again = [job(tmp_path, "bad", steps=2), jobs[1]]
    assert statuses(again) == ["done", "done"] and again[0].standing.status == "done"
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


def test_a_program_whose_queue_was_killed_is_never_run_twice_and_keeps_its_devices(tmp_path):
    jobs = [job(tmp_path, "long", steps=50), job(tmp_path, "next", steps=2)]
    process = start_queue(jobs, parallel=1)
    wait_for(lambda: count(jobs[0]) > 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert hold(jobs[0].folder) is None
    assert statuses(jobs, parallel=1) == ["done", "done"] and count(jobs[0]) == 50
    (_, end), *others = spans(*jobs)
    assert len(others) == 2 and all(end <= begin for begin, _ in others)


def test_a_program_that_was_stopped_alone_has_not_failed(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    stopping = TRIAL.replace('note("spans"', f'exec("{code}")\nnote("spans"', 1)
    place = tmp_path / "stopped"
    one = Job(name="one", folder=place, command=(sys.executable, "-c", stopping, str(place), "3"))
    assert statuses([one]) == ["stopped"] and one.standing.status == "waiting"


def test_each_program_has_a_set_of_devices_for_itself(tmp_path):
    code = TRIAL + 'import os\nnote("gpus", os.environ["CUDA_VISIBLE_DEVICES"])\n'
    jobs = [
        Job(name=name, folder=tmp_path / name, command=(sys.executable, "-c", code, folder, "5"))
        for name in "abcd"
        for folder in [str(tmp_path / name)]
    ]
    sets = device_sets("gpu:0;2,3")
    assert {one.status for one in Queue(jobs, sets=sets, locks=locks_of(jobs)).run()} == {"done"}
    used = {one.name: (one.folder / "gpus").read_text() for one in jobs}
    assert {used["a"], used["b"]} == set(used.values()) == {"0", "2,3"}
    for gpus in set(used.values()):
        times = spans(*(one for one in jobs if used[one.name] == gpus))
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    assert "$ CUDA_VISIBLE_DEVICES=" in (jobs[0].folder / "log.txt").read_text()


def test_a_program_is_kept_to_its_cores(tmp_path):
    core = min(os.sched_getaffinity(0))
    code = "import os, sys, time; time.sleep(0.1); sys.exit(len(os.sched_getaffinity(0)) - 1)"
    one = Job(name="one", folder=tmp_path / "one", command=(sys.executable, "-c", code))
    queue = Queue([one], sets=device_sets(f"cpu:{core}"), locks=tmp_path / "devices")
    assert queue.run()[0].status == "done"


REFUSED = ["0;1", "gpu:", "gpu:0;0", "gpu:0;1,0-2", "tpu:0", "cpu:0;9999", "gpu:0,3-1"]


@pytest.mark.parametrize("text", [*REFUSED, "cpu:0-9999999999", "gpu:0-9999999999"])
def test_other_device_sets_are_refused_by_name(text):
    with pytest.raises(ConfigError, match="--device_sets"):
        device_sets(text)


def test_the_last_line_is_the_last_with_words(tmp_path):
    (tmp_path / "log").write_text("one\n" * 3000 + "two \n\n  \n")
    assert last_line(tmp_path / "log") == "two"
    assert last_line(tmp_path / "none") == ""
