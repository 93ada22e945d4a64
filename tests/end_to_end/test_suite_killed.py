"""A suite with trainings in it, killed at any moment, ends with the same table."""

import random
import signal
import time

import pytest

from tests.end_to_end import runs

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
KILLS = 10
TASKS = ("zero_shot.py", "probe.py", "finetune.py:linear", "finetune.py")
PARTS = 10  # the first one once, the others with half of the patients for two seeds, and with all
TABLE = ("suite.json", "suite.csv")
_LIMIT = 7200  # seconds, of a busy machine


def start(finished, out):
    tasks = tuple(f"configs/eval/{name}" for name in TASKS)
    return runs.start(
        finished.workdir,
        "--task=configs/eval/suite.py",
        f"--task.tasks={tasks}",
        "--task.fractions=(0.5, 1.0)",
        "--task.seeds=(0, 1)",
        "--task.max_steps=8",
        "--task.bootstrap.resamples=20",
        f"--out={out}",
        program="launch.evaluate",
    )


def finish(finished, out):
    code, output = runs.finish(start(finished, out), timeout=_LIMIT)
    assert code == 0, output
    return output


def same(out, whole):
    """Checks that the table and the results of every part are the same bytes."""
    for name in TABLE:
        assert (out / "eval" / name).read_bytes() == (whole / "eval" / name).read_bytes(), name
    for path in sorted((whole / "suite" / "set" / "eval").iterdir()):
        other = out / "suite" / "set" / "eval" / path.name
        if path.suffix == ".json":
            assert other.read_bytes() == path.read_bytes(), path.name
        else:
            assert other.is_file(), path.name


def reaches(process, part):
    """Waits until a part is done, or for nothing with part 0; says whether it is."""
    line = f"[{part}/{PARTS}]"
    return not part or runs.wait_for(process, lambda: line in process.printed(), _LIMIT)


def timed(finished, out):
    """Runs the suite; gives the mean seconds of a part but the first, which waits for the start."""
    process = start(finished, out)
    reached = reaches(process, 1)
    began = time.monotonic()
    code, output = runs.finish(process, timeout=_LIMIT)
    assert reached and code == 0 and output.count(": done\n") == PARTS, output
    return (time.monotonic() - began) / (PARTS - 1)


def moments(seconds):
    """(parts to wait for, seconds more), in order; three parts or more are left to be done."""
    rng = random.Random(13)
    found = [(rng.randrange(PARTS - 2), rng.uniform(0, seconds)) for _ in range(KILLS)]
    return sorted(found)


def unfinished(out):
    """Whether a training has begun whose part has no results yet."""
    suite = out / "suite" / "set"
    return any(
        not (suite / "eval" / f"{folder.name}.json").exists() for folder in suite.glob("finetune/*")
    )


def test_killed_at_ten_random_moments_it_ends_with_the_same_table(finished, tmp_path, capsys):
    whole, again, out = tmp_path / "whole", tmp_path / "again", tmp_path / "killed"
    finish(finished, whole)
    seconds = timed(finished, again)  # its programs are compiled already, as after a kill
    same(again, whole)
    hit = []
    for parts, more in moments(seconds):
        process = start(finished, out)
        reached = reaches(process, parts)
        runs.wait_for(process, lambda: False, timeout=more)
        process.send_signal(signal.SIGKILL)
        code, output = runs.finish(process)
        assert reached and code == -signal.SIGKILL, output
        hit.append((parts, round(more, 1), unfinished(out)))
    finish(finished, out)
    with capsys.disabled():
        print(f"\nkilled after (parts, seconds, whether in a training): {hit}")
    assert len(hit) == KILLS and any(training for _, _, training in hit)
    same(out, whole)
