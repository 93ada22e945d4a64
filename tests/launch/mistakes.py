"""Command lines with one mistake each, what they are about, and what a user sees of them."""

import dataclasses
import re

from configs import small
from tests import fixtures
from tests.launch import forks

TRAIN, EVALUATE = "launch.train", "launch.evaluate"
SUBMIT, SWEEP = "launch.submit", "launch.sweep"
EXPORT, IMPORT = "launch.export", "launch.import_weights"
COMPILE_CHECK = "launch.compile_check"
DEBUG, SMALL = "--config=configs/debug.py", "--config=configs/small.py"
WORKDIR = "--workdir={tmp}/run"
SET = ["--config.data.path={tmp}/set", "--config.data.tokenizer.path={tmp}/tokenizer.model"]
RETRIEVAL = "--task=configs/eval/retrieval.py"
OBJECTIVES = "--config=configs/sweeps/objectives.py"
SLURM = "--cluster=configs/clusters/slurm_gpu.py"

# The start of a line of progress in the log.
_PROGRESS = re.compile(r"[IW]\d{4} ")


def small_run(folder, prepared, tokenizer):
    """The folder of a run that has only just begun."""
    config = small.get_config()
    config.data.path, config.data.tokenizer.path = str(prepared), str(tokenizer)
    config.data.batch_size = 4
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())


def write_folders(tmp):
    """Sets, a tokenizer, two runs and a sweep, all of them in one folder."""
    prepared = fixtures.write_prepared(tmp / "set", studies=20, validate=4, test=4)
    tokenizer = fixtures.train_sentencepiece(tmp / "tokenizer.model")
    fixtures.write_prepared(tmp / "two_splits", studies=20, validate=0, test=4)
    mute = [fixtures.without_text(fixtures.draw_record(number)) for number in range(4)]
    fixtures.write_prepared(tmp / "no_text", records=mute)
    blank = [dataclasses.replace(one, labels=(0, 0, 1)) for one in mute]
    drawn = [fixtures.draw_record(number) for number in range(20)]
    fixtures.write_splits(tmp / "no_positive", {"train": drawn, "validate": blank})
    (tmp / "file").write_text("")
    for name in ("trained", "begun"):
        small_run(tmp / name, prepared, tokenizer)
    (tmp / "swept").mkdir()
    (tmp / "swept" / "sweep.json").write_text("{}")


def answers(cases, tmp):
    """What the programs say to their arguments, by the name of the case.

    Args:
      cases: name of the case -> program, arguments and more. `{tmp}` in an argument stands for the
        folder, and so it does in what is said.
      tmp: folder of `write_folders`.
    """
    command_lines = [
        (
            program,
            [argument.replace("{tmp}", str(tmp)) for argument in argv]
            # A mistake that is not found must not submit anything.
            + ["--dry_run"] * (program in (SUBMIT, SWEEP) and "--trial=0" not in argv),
        )
        for program, argv, _ in cases.values()
    ]
    found = forks.run_all(command_lines)
    for result in found:
        result["err"] = result["err"].replace(str(tmp), "{tmp}")
    return dict(zip(cases, found, strict=True))


def assert_one_line(result, pattern):
    """Asserts that a program ended with code 2 and one line that matches a pattern."""
    assert result["code"] == 2, result["err"]
    assert "Traceback" not in result["err"]
    # Progress of the data's preparation may stand before it.
    said = [line for line in result["err"].splitlines() if not _PROGRESS.match(line)]
    assert len(said) == 1, result["err"]
    assert re.search(pattern, said[0]), said[0]


def begins_with_progress(result):
    """Whether a program had begun something before it said anything else."""
    return _PROGRESS.match(result["err"]) is not None
