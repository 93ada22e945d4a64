"""Killed at any moment, the same command ends with the same bits."""

import random
import signal

import pytest

from tests.end_to_end import runs

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
KILLS, WHILE_SAVING = 10, 4
SAVES_EVERY = 4


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    """A second run that nothing disturbed."""
    workdir = runs.folder(tmp_path_factory.mktemp("whole") / "run", finished)
    runs.go(workdir, *finished.data)
    return workdir


def test_two_undisturbed_runs_are_the_same(finished, whole):
    assert runs.numbers(whole) == runs.numbers(finished.workdir)
    assert runs.final_bits(whole) == runs.final_bits(finished.workdir)


def moments():
    """(lines to wait for, whether to wait for a save then, seconds more): in order of lines."""
    rng = random.Random(0)
    found = [(rng.randint(1, runs.STEPS - 1), False, rng.random() * 0.3) for _ in range(KILLS)]
    # Checkpoints are written after each fourth step; one of these saves in each stage is hit.
    spread = [runs.STEPS * i // WHILE_SAVING for i in range(WHILE_SAVING)]
    for i, line in enumerate(spread):
        found[i] = (line + SAVES_EVERY - 1, True, rng.random() * 0.02)
    return sorted(found)


def kill(workdir, options, *, at_line, while_saving, seconds):
    """Starts the run, kills it at a moment; gives the lines there were, and whether it saved."""
    process = runs.start(workdir, *options)
    reached = runs.wait_for(process, lambda: runs.logged(workdir) >= at_line)
    if while_saving:
        reached = reached and runs.wait_for(process, lambda: runs.saving(workdir))
    runs.wait_for(process, lambda: False, timeout=seconds)
    process.send_signal(signal.SIGKILL)
    code, output = runs.finish(process)
    assert reached and code == -signal.SIGKILL, output
    return runs.logged(workdir), runs.saving(workdir)


def test_killed_ten_times_it_ends_as_if_never_killed(finished, whole, tmp_path, capsys):
    workdir = runs.folder(tmp_path / "run", finished)
    hit = []
    for at_line, while_saving, seconds in moments():
        hit.append(
            kill(
                workdir, finished.data, at_line=at_line, while_saving=while_saving, seconds=seconds
            )
        )
    output = runs.go(workdir, *finished.data)
    assert "restored" in output
    with capsys.disabled():
        print(f"\nkilled after (lines, while saving): {hit}")
    assert len(hit) == KILLS and sum(saving for _, saving in hit) >= 2
    assert {(line - 1) // runs.STAGE_STEPS for line, _ in hit} == {0, 1, 2}
    assert runs.numbers(workdir) == runs.numbers(whole)
    assert runs.final_bits(workdir) == runs.final_bits(whole)


def test_told_to_stop_it_saves_and_says_so(finished, whole, tmp_path):
    workdir = runs.folder(tmp_path / "run", finished)
    process = runs.start(workdir, *finished.data)
    assert runs.wait_for(process, lambda: runs.logged(workdir) >= 10)
    process.send_signal(signal.SIGTERM)
    code, output = runs.finish(process)
    assert code == 75, output
    assert "Run the same command again to resume." in output
    before = runs.logged(workdir)
    again = runs.go(workdir, *finished.data)
    assert f"restored {workdir}/checkpoints/{before}" in again
    assert runs.numbers(workdir) == runs.numbers(whole)
    assert runs.final_bits(workdir) == runs.final_bits(whole)
