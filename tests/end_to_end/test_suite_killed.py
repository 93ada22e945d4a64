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


def moments(seconds):
    """(parts to wait for, seconds more), in order of the parts."""
    rng = random.Random(13)
    found = [(rng.randrange(PARTS), rng.uniform(0, seconds)) for _ in range(KILLS)]
    return sorted(found)


def unfinished(out):
    """Whether a training has begun whose part has no results yet."""
    suite = out / "suite" / "set"
    return any(
        not (suite / "eval" / f"{folder.name}.json").exists() for folder in suite.glob("finetune/*")
    )


def test_killed_at_ten_random_moments_it_ends_with_the_same_table(finished, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    output = finish(finished, whole)
    assert output.count(": done\n") == PARTS, output
    seconds = (time.monotonic() - began) / PARTS
    hit = []
    for parts, more in moments(seconds):
        process = start(finished, out)
        line = f"[{parts}/{PARTS}]"
        reached = runs.wait_for(
            process, lambda line=line, p=process: line in p.printed() or line[1] == "0", _LIMIT
        )
        runs.wait_for(process, lambda: False, timeout=more)
        process.send_signal(signal.SIGKILL)
        code, output = runs.finish(process)
        assert reached and code == -signal.SIGKILL, output
        hit.append((parts, round(more, 1), unfinished(out)))
    finish(finished, out)
    with capsys.disabled():
        print(f"\nkilled after (parts, seconds, whether in a training): {hit}")
    assert len(hit) == KILLS and any(training for _, _, training in hit)
    for name in TABLE:
        assert (out / "eval" / name).read_bytes() == (whole / "eval" / name).read_bytes(), name
    for path in sorted((whole / "suite" / "set" / "eval").iterdir()):
        other = out / "suite" / "set" / "eval" / path.name
        if path.suffix == ".json":
            assert other.read_bytes() == path.read_bytes(), path.name
        else:
            assert other.is_file(), path.name
