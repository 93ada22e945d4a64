"""A set or a folder that a program cannot use is refused in one line, and left as it was."""

import pytest

from tests.launch import mistakes
from tests.launch.mistakes import (
    COMPILE_CHECK,
    DEBUG,
    EVALUATE,
    EXPORT,
    IMPORT,
    OBJECTIVES,
    RETRIEVAL,
    SET,
    SLURM,
    SMALL,
    SUBMIT,
    SWEEP,
    TRAIN,
    WORKDIR,
)

SMALL_POD = ["--config=configs/prior/paper.py", "--machine=configs/machines/v5e_16.py"]
GROUNDING = "--task=configs/eval/grounding.py"

# Name of the case -> program, arguments, pattern that the line matches.
CASES = {
    "a set without reports": (
        TRAIN,
        [DEBUG, WORKDIR, *SET, "--config.data.path={tmp}/no_text", "--config.validate_every=0"],
        r"^config\.data\.path: No record of the training split of .*no_text has a report",
    ),
    "no data": (
        TRAIN,
        [SMALL, WORKDIR],
        r"config\.data\.path: There is no data .*\.path=DIR",
    ),
    "data path that is not there": (
        TRAIN,
        [SMALL, WORKDIR, "--config.data.path={tmp}/nothing"],
        r"config\.data\.path: \{tmp\}/nothing is not a prepared set",
    ),
    "a set without a split to validate on": (
        TRAIN,
        [SMALL, WORKDIR, "--config.data.path={tmp}/two_splits"],
        r"config\.validate_every: The value is 100, but .* records in train, test only\. "
        r"Set --config\.validate_every=0, or prepare the set with a split validate\.$",
    ),
    "no vocabulary": (
        TRAIN,
        [
            "--config=configs/prior/release.py",
            WORKDIR,
            "--config.data.path={tmp}/set",
            "--config.data.batch_size=4",
        ],
        r"config\.data\.tokenizer\.path: There is no tokenizer",
    ),
    "tokenizer that is not there": (
        TRAIN,
        [SMALL, WORKDIR, SET[0], "--config.data.tokenizer.path={tmp}/nothing"],
        r"\{tmp\}/nothing",
    ),
    "more rows than pairs": (
        TRAIN,
        [SMALL, WORKDIR, *SET, "--config.data.batch_size=4000"],
        r"config\.data\.batch_size: A batch of 4000 pairs .*, which has 20 pairs\. .* at most 20",
    ),
    "no workdir": (TRAIN, [DEBUG], "--workdir"),
    "a file for a workdir": (TRAIN, [DEBUG, "--workdir={tmp}/file"], r"--workdir: .*\{tmp\}/file"),
    "a folder in a file": (TRAIN, [DEBUG, "--workdir={tmp}/file/a"], r"--workdir: .*\{tmp\}/file"),
    "no name of a folder": (
        TRAIN,
        [DEBUG, "--workdir="],
        r"^--workdir: The name .* empty",
    ),
    "no name to evaluate": (
        EVALUATE,
        ["--workdir=", RETRIEVAL],
        r"^--workdir: The name .* empty",
    ),
    "no name to export": (
        EXPORT,
        ["--workdir=", "--out={tmp}/out"],
        r"^--workdir: The name .* empty",
    ),
    "no name to export to": (
        EXPORT,
        ["--workdir={tmp}", "--out="],
        r"^--out: The name .* empty",
    ),
    "no name to import to": (
        IMPORT,
        ["--source=prior", "--checkpoint={tmp}/file", "--out="],
        r"^--out: The name .* empty",
    ),
    "no name to submit": (
        SUBMIT,
        [DEBUG, "--workdir=", SLURM],
        r"^--workdir: The name .* empty",
    ),
    "no name of a sweep's folder": (
        SWEEP,
        [OBJECTIVES, "--workdir="],
        r"^--workdir: The name .* empty",
    ),
    # Folders that are another program's, or not there, and stay so.
    "a run in a sweep's folder": (
        TRAIN,
        [DEBUG, "--workdir={tmp}/swept"],
        r"--workdir: The folder \{tmp\}/swept belongs to a sweep: it holds sweep\.json",
    ),
    "a sweep in a run's folder": (
        SWEEP,
        [OBJECTIVES, "--workdir={tmp}/begun"],
        r"--workdir: The folder \{tmp\}/begun belongs to a run: it holds config\.json",
    ),
    "results in the folder of another run": (
        EVALUATE,
        ["--workdir={tmp}/trained", RETRIEVAL, "--out={tmp}/begun"],
        r"^--out: The folder .*begun belongs to another run: it holds config\.json",
    ),
    "masks that are not there": (
        EVALUATE,
        ["--workdir={tmp}/begun", GROUNDING, "--task.masks={tmp}/nothing"],
        r"^task\.masks: \{tmp\}/nothing holds no phantom: .* Give the folder that data_prep",
    ),
    "a run without masks": (
        EVALUATE,
        ["--workdir={tmp}/begun", GROUNDING],
        r"^task\.data\.path: No finding can be located: the set has no .*--task\.masks=DIR",
    ),
    "a batch of nothing": (
        EVALUATE,
        ["--workdir={tmp}/begun", RETRIEVAL, "--task.batch_size=0"],
        r"^task\.batch_size: The value is 0\. It must be at least 1\.$",
    ),
    "no studies to draw": (
        TRAIN,
        [DEBUG, "--workdir={tmp}/absent", "--config.prepare.phantom.studies=0"],
        r"^config\.prepare\.phantom\.studies: The value is 0\. It must be at least 1",
    ),
    "a file of forecasts in a file": (
        COMPILE_CHECK,
        [*SMALL_POD, "--json={tmp}/file/found.json"],
        r"^--json: The file .*found\.json cannot be written",
    ),
    "a folder of compiled programs in a file": (
        COMPILE_CHECK,
        [*SMALL_POD, "--keep_hlo={tmp}/file/hlo"],
        r"^--keep_hlo: The results cannot be written to .*hlo: .*\(it is a file\)",
    ),
    "a tokenizer without words": (
        TRAIN,
        [DEBUG, "--workdir={tmp}/absent", "--config.prepare.vocab_size=5"],
        r"^config\.prepare\.vocab_size: The value is 5\. It must be more than 6",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_exit_code_2(said, case):
    mistakes.assert_one_line(said[case], CASES[case][2])


@pytest.mark.parametrize(
    "case",
    ["a file for a workdir", "data path that is not there", "a set without a split to validate on"],
)
def test_nothing_is_begun_before_settings_are_checked(said, case):
    assert not mistakes.begins_with_progress(said[case]), said[case]["err"]


@pytest.mark.usefixtures("said")
def test_a_refused_folder_is_left_as_it_was(mistake_folders):
    tmp = mistake_folders
    assert [path.name for path in (tmp / "begun").iterdir()] == ["config.json"]
    assert [path.name for path in (tmp / "swept").iterdir()] == ["sweep.json"]
    assert not (tmp / "absent").exists()
