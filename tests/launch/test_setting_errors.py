"""A wrong setting, or a config that is not there, is one line that names it, and exit code 2."""

import pytest

from tests.launch import mistakes
from tests.launch.mistakes import DEBUG, EVALUATE, SET, SMALL, TRAIN, WORKDIR

CLIP = "--config=configs/baselines/phantom.py:clip"

# Name of the case -> program, arguments, pattern that the line matches.
CASES = {
    "unknown key": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.data.pth=x"],
        r"^config\.data\.pth: There is no setting 'pth' in config\.data\. Did you mean 'path'\? "
        r"Use one of .*batch_size, .*tokenizer",
    ),
    "an unknown key like no other": (
        TRAIN,
        [CLIP, WORKDIR, "--config.model.redundancy=0.1"],
        r"^config\.model\.redundancy: There is no setting 'redundancy' in config\.model\. "
        r"Use one of .*embed_dim, .*text_pool\.$",
    ),
    "unknown section": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.dta.path=x"],
        r"config\.dta\.path: There is no setting 'dta' in config\. Did you mean 'data'\?",
    ),
    "a set whose variable is not set": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.data.path="],
        r"^config\.data\.path: The value is ''\. It must be the folder of a prepared set, or None",
    ),
    "a tokenizer whose variable is not set": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.data.tokenizer.path="],
        r"^config\.data\.tokenizer\.path: The value is ''\. It must be a file, or None",
    ),
    "a setting below a value": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.data.batch_size.rows=3"],
        r"config\.data\.batch_size is not a section; its value is 16\. Set --config\.data\.batch",
    ),
    "a place beyond a tuple": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.data.buckets[7]=3"],
        r"config\.data\.buckets\[7\]: config\.data\.buckets has 1 values, and none at \[7\]",
    ),
    "a size of two numbers": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.data.image.size=(64,48)"],
        r"^--config\.data\.image\.size: The value is '\(64,48\)'\. It must be one whole number, "
        r"the side of a square in pixels\.$",
    ),
    "a number that is none": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.data.batch_size=many"],
        r"^--config\.data\.batch_size: The value is 'many'\. It must be one whole number\.$",
    ),
    "a size that the cells do not fill": (
        TRAIN,
        [
            "--config=configs/finetune/any_set_segmentation.py",
            WORKDIR,
            SET[0],
            "--config.data.image.size=100",
        ],
        r"^config\.data\.image\.size: The value is 100\. It must be a multiple of 32, the pixels "
        r"of a cell of the last map\. Images are squares of this side\.$",
    ),
    "an argument that a config does not take": (
        TRAIN,
        ["--config=configs/baselines/phantom.py:clop", WORKDIR],
        r"^objective: The value is 'clop'\. It must be one of convirt, clip",
    ),
    "an argument that a config refuses": (
        TRAIN,
        ["--config=configs/finetune/debug.py:0", WORKDIR],
        r"^percent: The value is '0'\. It must be a number above 0 and at most 100\.$",
    ),
    "an argument of a config that takes none": (
        TRAIN,
        ["--config=configs/small.py:x", WORKDIR],
        r"--config=configs/small\.py:x: TypeError: get_config\(\) takes 0 positional",
    ),
    "half a section": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.early_stopping={'metric'"],
        r"^config\.early_stopping: .* neither None nor a section .* Give None, or a section",
    ),
    "a text for a section": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.early_stopping=loss"],
        r"^config\.early_stopping: .* neither None nor a section",
    ),
    "wrong type": (TRAIN, [DEBUG, WORKDIR, "--config.seed=x"], r"config\.seed: .*'x'"),
    "not one of the choices": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.model.fidelity=faithful"],
        r"config\.model\.fidelity.*faithful.*paper",
    ),
    "seed out of range": (TRAIN, [DEBUG, WORKDIR, "--config.seed=-1"], r"config\.seed.*-1"),
    "unknown objective": (TRAIN, [DEBUG, WORKDIR, "--config.objective=clop"], "config.objective"),
    "optimizer out of range": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.optimizer.beta1=2.0"],
        r"config\.optimizer\.beta1: The value is 2\.0",
    ),
    "stage out of range": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.stages.stage2.warmup=99"],
        r"config\.stages\.stage2\.warmup: The warm-up is 99 and the stage's length 8, in steps, so "
        r"the warm-up does not fit into the stage\. Lower the warmup or raise the length of the "
        r"stage 'stage2'\.$",
    ),
    "a stage as short as its warm-up": (
        TRAIN,
        [SMALL, WORKDIR, "--config.stages.stage1.length=1"],
        r"config\.stages\.stage1\.warmup: The warm-up is 1 .* length 1, in epochs",
    ),
    "a stage of no length": (
        TRAIN,
        [SMALL, WORKDIR, "--config.stages.stage1.length=0"],
        r"config\.stages\.stage1\.length: The value is 0\.0\. .* number of epochs above 0",
    ),
    "early stopping without its numbers": (
        TRAIN,
        ["--config=configs/baselines/lovt.py", WORKDIR, "--config.validate_every=None"],
        r"^config\.validate_every: Early stopping .* validations, .* early_stopping to None\.$",
    ),
    "a section that is needed": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.optimizer=None"],
        r"^config\.optimizer: The value is None\. It must be a section with the settings beta1",
    ),
    "a mesh that is needed": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.mesh=None", "--machine=configs/machines/cpu.py"],
        r"^config\.mesh: The value is None\. It must be a section\.$",
    ),
    "no such config": (
        TRAIN,
        ["--config=configs/none.py", WORKDIR],
        r"^--config: There is no file 'configs/none\.py'\. Give the file of a config\.$",
    ),
    "a misspelt config": (
        TRAIN,
        ["--config=configs/debg.py:clip", WORKDIR],
        r"^--config: There is no file 'configs/debg\.py'\. Did you mean 'configs/debug\.py' or "
        r".*\? Give the file of a config\.$",
    ),
    "a misspelt task": (
        EVALUATE,
        [WORKDIR, "--task=configs/zeroshot.py"],
        r"^--task: There is no file 'configs/zeroshot\.py'\. Did you mean "
        r"'configs/eval/zero_shot\.py'",
    ),
    "no such config, with an override": (
        TRAIN,
        ["--config", "configs/none.py:x", WORKDIR, "--config.seed=1"],
        r"^--config: There is no file 'configs/none\.py'\. Give the file of a config\.$",
    ),
    "no config": (TRAIN, [WORKDIR], "--config"),
    "an argument": (TRAIN, [DEBUG, WORKDIR, "now"], "The argument 'now' is not a flag"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_exit_code_2(said, case):
    mistakes.assert_one_line(said[case], CASES[case][2])


@pytest.mark.parametrize("case", ["unknown key", "optimizer out of range"])
def test_nothing_is_begun_before_settings_are_checked(said, case):
    assert not mistakes.begins_with_progress(said[case]), said[case]["err"]
