"""A fault in one of two processes ends both, with a line that names it, and loses nothing."""

import dataclasses
import re
import signal
import time

import pytest

from tests.end_to_end import runs
from tests.end_to_end.test_faults import Place, flip, place  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess, pytest.mark.timeout(1800)]
END_SECONDS = 180
QUICK = ("--heartbeat_seconds=10",)
WATCHED = ("--config.watchdog.warn_seconds=5", "--config.watchdog.end_seconds=15")


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done to one process, and what is seen.

    Attributes:
      codes: exit codes of process 0 and 1.
      says: what is in the log of process 0, and of process 1.
      kind: function of faulty_train.py.
      process: in which it is.
    """

    codes: tuple[int, int]
    says: tuple[str, str]
    kind: str
    process: int = 1


BOTH = (2, 2)
FAULTS = {
    "NaN in the images of one process": Fault(
        BOTH,
        (
            r"step 13 \(stage2\): .* not finite: .*nan.*nonfinite\.json",
            r"step 13 \(stage2\): .* not finite: .*nan",
        ),
        "poisoned_batch",
    ),
    "clocks an hour apart": Fault(
        BOTH,
        (r"clocks of the processes are 36\d\d\.\d s apart, .* process 1 is the last",) * 2,
        "late_clock",
    ),
    "other code": Fault(
        BOTH,
        (r"The code of the processes \[1\] differs from that of process 0",) * 2,
        "other_code",
    ),
    "a fault of the program": Fault(
        (76, 1),
        (
            r"process 1 \(.*pid \d+\) ended in .*: RuntimeError: a fault of the program",
            r"RuntimeError: a fault of the program",
        ),
        "programming_error",
    ),
    "a fault of the program in process 0": Fault(
        (1, 76),
        (
            r"RuntimeError: a fault of the program",
            r"process 0 \(.*pid \d+\) ended in .*: RuntimeError: a fault of the program",
        ),
        "programming_error",
        process=0,
    ),
    "an input that stalls": Fault(
        (77, 77),
        (r"process 1 \(.*pid \d+\) .*input", r"input"),
        "stalled_input",
    ),
    "a save that stalls": Fault(
        (77, 77),
        (r"process 1 \(.*pid \d+\) .*save", r"save"),
        "stalled_save",
    ),
}


def go_on(place, single):  # noqa: F811
    """The fault is gone: one process more or less goes on to the same numbers."""
    output = runs.go(place.workdir, *place.options)
    assert "restored" in output
    worst = runs.worst_difference(single, place.workdir)
    assert worst[0] < 1e-4, worst


def ended(place, processes, *, steps):  # noqa: F811
    """Codes and logs once both have ended; checkpoints that were there still are."""
    codes, logs = zip(*runs.finish_all(processes, timeout=END_SECONDS), strict=True)
    assert steps[-1] in runs.saved_steps(place.workdir), logs
    return codes, logs


@pytest.mark.parametrize("name", FAULTS)
def test_both_end_by_name_and_the_run_goes_on(place, single, name):  # noqa: F811
    fault = FAULTS[name]
    steps = runs.saved_steps(place.workdir)
    wrapper = ("tests.end_to_end.faulty_train", fault.kind, str(fault.process))
    options = (*place.options, *QUICK, *(WATCHED if 77 in fault.codes else ()))
    processes = runs.together(place.workdir, *options, program=wrapper)
    codes, logs = ended(place, processes, steps=steps)
    assert codes == fault.codes, logs
    for log, says in zip(logs, fault.says, strict=True):
        assert re.search(says, log), log
    go_on(place, single)


def test_a_corrupt_record_is_named_by_both(place, single, finished):  # noqa: F811
    steps, kept = runs.saved_steps(place.workdir), place.shard.read_bytes()
    flip(place.shard)
    processes = runs.together(place.workdir, *place.options, *QUICK)
    codes, logs = ended(place, processes, steps=steps)
    assert 2 in codes and set(codes) <= {2, 76}, logs
    for log in logs:
        assert re.search(r"train\.array_record", log), log
    place.shard.write_bytes(kept)
    go_on(place, single)


def test_another_seed_in_one_process(place, single):  # noqa: F811
    processes = runs.together(place.workdir, *place.options, last=("--config.seed=7",))
    codes, logs = ended(place, processes, steps=runs.saved_steps(place.workdir))
    assert codes == BOTH, logs
    for log in logs:
        assert re.search(r"seed of the processes \[1\] differs from", log), log
    go_on(place, single)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_frozen_process_is_lost(place, single, victim):  # noqa: F811
    steps = runs.saved_steps(place.workdir)
    processes = runs.together(place.workdir, *place.options, *QUICK)
    before = runs.logged(place.workdir)
    assert runs.wait_for(processes[0], lambda: runs.logged(place.workdir) > before)
    processes[victim].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    other = processes[1 - victim]
    assert runs.wait_for(other, lambda: False, timeout=END_SECONDS) is False
    assert time.monotonic() - began < END_SECONDS, other.printed()
    processes[victim].send_signal(signal.SIGCONT)
    codes, logs = ended(place, processes, steps=steps)
    assert codes[1 - victim] == 76 and codes[victim] != 0, logs
    assert re.search(rf"process {victim} \(.*\) was lost", logs[1 - victim]), logs
    go_on(place, single)


def test_a_process_that_never_comes_is_reported(place, single):  # noqa: F811
    first, second = runs.together(place.workdir, *place.options, "--start_seconds=20")
    second.kill()
    code, output = runs.finish(first, timeout=END_SECONDS)
    runs.finish(second)
    assert code == 2, output
    says = r"^--distributed: In the mode 'explicit' not all processes of 2 have started within 20 s"
    assert re.search(says, output, re.MULTILINE), output
    go_on(place, single)
