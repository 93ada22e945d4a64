"""Runs of 2 and 4 processes, one of which is killed or told to stop, go on with 4 and 2.

Each history disturbs the debug job `KILLS` times, and begins it anew where it came to its end. The
number of processes changes at every start, each process is a victim in turn, and moments are drawn
at random: while the run starts, between two steps, and while a checkpoint is written.
"""

import dataclasses
import random
import signal
import time

import pytest

from tests.end_to_end import runs

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
KILLS = 20
RTOL = 1e-4
END_SECONDS = 180
"""Within which every process has ended after one was killed."""
SAVES_EVERY = 4


@dataclasses.dataclass(frozen=True)
class Moment:
    """When and how one life of a run is ended."""

    processes: int
    victim: int
    number: signal.Signals
    at_line: int
    where: str
    seconds: float


def moments(seed):
    """`KILLS` lives of one run, in order of lines."""
    rng = random.Random(seed)
    ahead = sorted(rng.randint(0, runs.STEPS - 3) for _ in range(KILLS))
    found = []
    for life, line in enumerate(ahead):
        processes = (2, 4)[(life + seed) % 2]
        where = ("step", "save", "step", "start", "save")[life % 5]
        if where == "save":
            line = line // SAVES_EVERY * SAVES_EVERY + SAVES_EVERY - 1
        found.append(
            Moment(
                processes=processes,
                victim=life // 2 % processes,
                number=signal.SIGTERM if life % 3 == 2 else signal.SIGKILL,
                at_line=min(line, runs.STEPS - 2),
                where=where,
                seconds=rng.random() * {"step": 0.3, "save": 0.02, "start": 10.0}[where],
            )
        )
    return found


def end_one(workdir, options, moment):
    """Lives until the moment; gives the exit codes, the seconds that ending took, and the logs."""
    processes = runs.together(workdir, *options, processes=moment.processes)
    first, victim = processes[0], processes[moment.victim]
    reached = runs.wait_for(victim, lambda: "has joined" in victim.printed())
    if moment.where != "start":  # lines of earlier lives do not count
        reached = reached and runs.wait_for(victim, lambda: "ETA" in first.printed())
        reached = reached and runs.wait_for(victim, lambda: runs.logged(workdir) >= moment.at_line)
    if moment.where == "save":
        reached = reached and runs.wait_for(victim, lambda: runs.saving(workdir))
    runs.wait_for(victim, lambda: False, timeout=moment.seconds)
    victim.send_signal(moment.number)
    began = time.monotonic()
    results = runs.finish_all(processes, timeout=END_SECONDS)
    seconds = time.monotonic() - began
    output = "\n".join(text for _, text in results)
    assert reached, output
    return [code for code, _ in results], seconds, output


def check_ended_well(moment, codes, output):
    """Every process has ended, with a code and a line that say why."""
    if moment.number == signal.SIGTERM:
        assert codes == [75] * moment.processes, output
        assert "asked to stop, and has saved its state after step" in output
        return
    others = [code for i, code in enumerate(codes) if i != moment.victim]
    assert codes[moment.victim] == -signal.SIGKILL, output
    assert others == [76] * len(others), (codes, output)
    assert f"process {moment.victim} " in output and "lost" in output, output


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_twenty_times_and_moved_it_ends_with_the_same_losses(
    finished, single, tmp_path, capsys, seed
):
    options = (*finished.data, *runs.GENTLE, "--heartbeat_seconds=10")
    todo, ended, workdir = moments(seed), [], runs.folder(tmp_path / "0", finished)
    slowest, saves = 0.0, 0
    while todo:
        before = max(runs.saved_steps(workdir), default=0)
        if before == runs.STEPS:
            ended.append(workdir)
            workdir = runs.folder(tmp_path / str(len(ended)), finished)
            continue
        codes, seconds, output = end_one(workdir, options, todo[0])
        after = max(runs.saved_steps(workdir), default=0)
        if after == runs.STEPS and set(codes) == {0}:
            continue  # the request came with the last step
        check_ended_well(todo[0], codes, output)
        assert before <= after, "one is lost"
        slowest, saves = max(slowest, seconds), saves + runs.saving(workdir)
        moment = todo.pop(0)
        with capsys.disabled():
            life = KILLS - len(todo)
            print(f"\n{life}/{KILLS} {moment} -> {codes} in {seconds:.1f} s", flush=True)
    results = runs.finish_all(runs.together(workdir, *options, processes=2))
    assert [code for code, _ in results] == [0, 0], results
    worst = max(runs.worst_difference(single, one) for one in (*ended, workdir))
    with capsys.disabled():
        print(
            f"\nsurvived {KILLS} / {KILLS}, {saves} in a save, over {len(ended) + 1} run(s);"
            f" ended within {slowest:.0f} s; losses differ by at most {worst[0]:.1e} ({worst[1]})"
        )
    assert worst[0] < RTOL, worst
