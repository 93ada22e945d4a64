"""What a user gets wrong is one line that names it, and exit code 2."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from tests import fixtures

ROOT = pathlib.Path(__file__).parents[2]
TRAIN, EVALUATE = "launch.train", "launch.evaluate"
SUBMIT, SWEEP = "launch.submit", "launch.sweep"
EXPORT, IMPORT = "launch.export", "launch.import_weights"
EVALUATING = ("--config.data.batch_size=4", "--config.evaluate_every=1")
DEBUG, SMALL = "--config=configs/debug.py", "--config=configs/small.py"
WORKDIR = "--workdir={tmp}/run"
SET = ["--config.data.path={tmp}/set", "--config.data.tokenizer.path={tmp}/tokenizer.model"]
CLIP = "--config=configs/baselines/phantom.py:clip"
RETRIEVAL = "--task=configs/eval/retrieval.py"
GROUNDING = "--task=configs/eval/grounding.py"
OBJECTIVES = "--config=configs/sweeps/objectives.py"
SLURM, TPU = "--cluster=configs/clusters/slurm_gpu.py", "--cluster=configs/clusters/tpu_v5e.py"

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
        ["--config=configs/phantom.py:x", WORKDIR],
        r"--config=configs/phantom\.py:x: TypeError: get_config\(\) takes 0 positional",
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
    "a file without a config after training": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.after=('configs/eval/__init__.py',)"],
        r"^config\.after: The file configs/eval/__init__\.py has no function get_config",
    ),
    "prompts while training that are not known": (
        TRAIN,
        [DEBUG, WORKDIR, *EVALUATING, "--config.evaluate.prompts=bogus"],
        r"^config\.evaluate\.prompts: The value is 'bogus'\. It must be one of described",
    ),
    "a rank of no result": (
        EVALUATE,
        ["--workdir={tmp}/trained", RETRIEVAL, "--task.retrieval.ranks=(0,)"],
        r"^task\.retrieval\.ranks: The value is \(0,\)",
    ),
    "a set whose path is empty": (
        EVALUATE,
        ["--workdir={tmp}/trained", RETRIEVAL, "--task.data.path="],
        r"^task\.data\.path: The value is ''\. It must be the folder of a prepared set",
    ),
    "results in the folder of another run": (
        EVALUATE,
        ["--workdir={tmp}/trained", RETRIEVAL, "--out={tmp}/begun"],
        r"^--out: The folder .*begun belongs to another run: it holds config\.json",
    ),
    "passes without end": (
        EVALUATE,
        [
            "--workdir={tmp}/trained",
            "--task=configs/eval/finetune.py",
            "--task.finetune.epochs=inf",
        ],
        r"^task\.finetune\.epochs: The value is inf\. It must be a finite number above 0",
    ),
    "a set without reports": (
        TRAIN,
        [DEBUG, WORKDIR, *SET, "--config.data.path={tmp}/no_text", "--config.validate_every=0"],
        r"^config\.data\.path: No record of the training split of .*no_text has a report",
    ),
    "unknown section": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.dta.path=x"],
        r"config\.dta\.path: There is no setting 'dta' in config\. Did you mean 'data'\?",
    ),
    "wrong type": (TRAIN, [DEBUG, WORKDIR, "--config.seed=x"], r"config\.seed: .*'x'"),
    "not one of the choices": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.model.fidelity=faithful"],
        r"config\.model\.fidelity.*faithful.*paper",
    ),
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
    "seed out of range": (TRAIN, [DEBUG, WORKDIR, "--config.seed=-1"], r"config\.seed.*-1"),
    "unknown objective": (TRAIN, [DEBUG, WORKDIR, "--config.objective=clop"], "config.objective"),
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
    "early stopping without its numbers": (
        TRAIN,
        ["--config=configs/baselines/lovt.py", WORKDIR, "--config.validate_every=None"],
        r"^config\.validate_every: Early stopping .* validations, .* early_stopping to None\.$",
    ),
    "a best checkpoint by what is never evaluated": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.checkpoint.best_metric=evaluate_knn_macro_auroc"],
        r"^config\.evaluate_every: .*'evaluate_knn_macro_auroc'.*turns them off\. Set it to a",
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
    "evaluation without its section": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.evaluate_every=4", "--config.evaluate=None"],
        r"^config\.evaluate: The value is None\. It must be a section, or",
    ),
    "evaluation of text by a classifier": (
        TRAIN,
        [
            "--config=configs/finetune/debug.py",
            WORKDIR,
            "--config.evaluate_every=4",
            "--config.evaluate.tasks=('knn','retrieval')",
        ],
        r"^config\.evaluate\.tasks: .*'retrieval' read text, .*--config\.evaluate\.tasks=\"\('knn'",
    ),
    "a set without a split to evaluate on": (
        TRAIN,
        [
            SMALL,
            WORKDIR,
            "--config.data.path={tmp}/two_splits",
            "--config.validate_every=0",
            "--config.evaluate_every=1",
        ],
        r"^config\.evaluate\.split: The split is 'validate', .* in train, test only\. Name another",
    ),
    "evaluation of a subset that is too small": (
        TRAIN,
        [SMALL, WORKDIR, *SET, *EVALUATING, "--config.evaluate.tasks=('retrieval',)"],
        r"^config\.evaluate\.tasks: retrieval cannot be measured: the \d+ studies are fewer than",
    ),
    "a number that no evaluation returns": (
        TRAIN,
        [
            SMALL,
            WORKDIR,
            *SET,
            *EVALUATING,
            "--config.evaluate.ranks=(1,2)",
            "--config.checkpoint.best_metric=evaluate_auroc",
        ],
        r"^config\.checkpoint\.best_metric: The evaluations .*'evaluate_auroc'\. Choose one of ev",
    ),
    "a number that no validation returns": (
        TRAIN,
        [
            SMALL,
            WORKDIR,
            *SET,
            "--config.data.batch_size=4",
            "--config.checkpoint.best_metric=total_loss",
        ],
        r"^config\.checkpoint\.best_metric: The validations .*'total_loss'\. Choose one of valid",
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
    "no studies to draw": (
        TRAIN,
        [DEBUG, "--workdir={tmp}/absent", "--config.prepare.phantom.studies=0"],
        r"^config\.prepare\.phantom\.studies: The value is 0\. It must be at least 1",
    ),
    "a tokenizer without words": (
        TRAIN,
        [DEBUG, "--workdir={tmp}/absent", "--config.prepare.vocab_size=5"],
        r"^config\.prepare\.vocab_size: The value is 5\. It must be more than 6",
    ),
    "masks that are not there": (
        EVALUATE,
        ["--workdir={tmp}/begun", GROUNDING, "--task.masks={tmp}/nothing"],
        r"^task\.masks: \{tmp\}/nothing holds no phantom: .* Give the folder that data_prep",
    ),
    "a run without masks": (
        EVALUATE,
        ["--workdir={tmp}/begun", GROUNDING],
        r"^task\.masks: \{tmp\}/begun/data/raw holds no phantom",
    ),
    "a batch of nothing": (
        EVALUATE,
        ["--workdir={tmp}/begun", RETRIEVAL, "--task.batch_size=0"],
        r"^task\.batch_size: The value is 0\. It must be at least 1\.$",
    ),
    "an argument": (TRAIN, [DEBUG, WORKDIR, "now"], "The argument 'now' is not a flag"),
    "mesh that does not divide": (
        TRAIN,
        [DEBUG, WORKDIR, "--cpu_devices=2", "--config.mesh.axes.data=3"],
        r"config\.mesh\.axes: The axes \{'data': 3\} do not fit the 2 devices",
    ),
    "batch that does not divide": (
        TRAIN,
        [DEBUG, WORKDIR, "--cpu_devices=3"],
        r"config\.data\.batch_size: The value is 16\. It must be a positive multiple of 3",
    ),
    "machine of other devices": (
        TRAIN,
        [DEBUG, WORKDIR, "--cpu_devices=2", "--machine=configs/machines/v5e_16.py"],
        r"--machine: The machine v5e_16 has 16 chips, and this run has 2 devices",
    ),
    "machine and mesh": (
        TRAIN,
        [DEBUG, WORKDIR, "--machine=configs/machines/cpu.py", "--config.mesh.axes.data=1"],
        r"--config\.mesh\.axes\.data: .*--machine sets it too",
    ),
    "batch given twice": (
        SUBMIT,
        [DEBUG, WORKDIR, SLURM, "--pairs_per_chip=4", "--config.data.batch_size=8", "--dry_run"],
        r"--config\.data\.batch_size: .*--pairs_per_chip sets it too",
    ),
    "machine that evaluation lacks": (
        EVALUATE,
        [WORKDIR, RETRIEVAL, "--machine=configs/machines/cpu.py", "--machine.local_devices=3"],
        r"--machine: The machine cpu has 3 chips",
    ),
    "bank on an axis that is not there": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.mesh.bank_axis=bank"],
        r"config\.mesh\.bank_axis: The value is 'bank'",
    ),
    "half an address": (
        TRAIN,
        [DEBUG, WORKDIR, "--distributed=explicit"],
        r"^--coordinator: .*given with the mode 'explicit'",
    ),
    "a task that is not there": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.after=('configs/eval/none.py',)"],
        r"config\.after\[0\].*configs/eval/none\.py",
    ),
    "a task of another kind": (
        EVALUATE,
        [WORKDIR, "--task=configs/debug.py"],
        r"task\.task: The task is None, .*one of zero_shot, retrieval",
    ),
    "an unknown key of a task": (
        EVALUATE,
        [WORKDIR, RETRIEVAL, "--task.splt=x"],
        r"task\.splt: .*'split'",
    ),
    "a wrong value of a task": (
        EVALUATE,
        ["--workdir={tmp}/trained", RETRIEVAL, "--task.split=dev"],
        r"task\.split: The value is 'dev'\. It must be one of train, validate, test",
    ),
    "a folder without a run": (
        EVALUATE,
        ["--workdir={tmp}", RETRIEVAL],
        r"\{tmp\} is not the folder of a run: config\.json .*No such file or directory.*--workdir",
    ),
    "a run without a checkpoint": (
        EVALUATE,
        ["--workdir={tmp}/trained", RETRIEVAL],
        r"\{tmp\}/trained/checkpoints: There is no checkpoint\. Train",
    ),
    "no cluster": (SUBMIT, [DEBUG, WORKDIR], "--cluster"),
    "an unknown key of a cluster": (SUBMIT, [SLURM, DEBUG, WORKDIR, "--cluster.node=2"], "'nodes'"),
    "a cluster that lacks something": (
        SUBMIT,
        [TPU, DEBUG, WORKDIR, "--cluster.zone="],
        r"cluster\.zone: The setting is empty\. .*--cluster\.zone=VALUE",
    ),
    "a run that no cluster would begin": (
        SUBMIT,
        [SLURM, DEBUG, WORKDIR, "--config.optimizer.beta1=2.0"],
        r"config\.optimizer\.beta1: The value is 2\.0",
    ),
    "a sweep for another cluster": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--queue=slurm", TPU],
        r"cluster\.kind: The cluster is of kind 'tpu'",
    ),
    "no such cluster": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--queue=slurm", "--cluster=configs/none.py"],
        r"configs/none\.py",
    ),
    "a sweep for no cluster": (SWEEP, [OBJECTIVES, WORKDIR, "--queue=slurm"], "--cluster"),
    "device sets of another queue": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--queue=print", "--device_sets=gpu:0;1"],
        r"--device_sets: The value 'gpu:0;1'",
    ),
    "two numbers of trials at a time": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--parallel=2", "--device_sets=gpu:0"],
        r"--device_sets: .*--parallel",
    ),
    "a trial of no sweep": (SWEEP, [OBJECTIVES, WORKDIR, "--trial=0"], r"\{tmp\}/run"),
}


def small_run(folder, prepared, tokenizer):
    """The folder of a run that has only just begun."""
    from configs import small

    config = small.get_config()
    config.data.path, config.data.tokenizer.path = str(prepared), str(tokenizer)
    config.data.batch_size = 4
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("errors")
    prepared = fixtures.write_prepared(tmp / "set", studies=20, validate=4, test=4)
    tokenizer = fixtures.train_sentencepiece(tmp / "tokenizer.model")
    fixtures.write_prepared(tmp / "two_splits", studies=20, validate=0, test=4)
    mute = [fixtures.without_text(fixtures.draw_record(number)) for number in range(4)]
    fixtures.write_prepared(tmp / "no_text", records=mute)
    (tmp / "file").write_text("")
    for name in ("trained", "begun"):
        small_run(tmp / name, prepared, tokenizer)
    (tmp / "swept").mkdir()
    (tmp / "swept" / "sweep.json").write_text("{}")
    cases = [
        {
            "program": program,
            "argv": [argument.replace("{tmp}", str(tmp)) for argument in argv]
            # A mistake that is not found must not submit anything.
            + ["--dry_run"] * (program in (SUBMIT, SWEEP) and "--trial=0" not in argv),
        }
        for program, argv, _ in CASES.values()
    ]
    (tmp / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-m", "tests.launch.forks", tmp / "cases.json", tmp / "found.json"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    found = json.loads((tmp / "found.json").read_text())
    for result in found:
        result["err"] = result["err"].replace(str(tmp), "{tmp}")
    return {"tmp": tmp, **dict(zip(CASES, found, strict=True))}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_exit_code_2(results, case):
    result = results[case]
    assert result["code"] == 2, result["err"]
    assert "Traceback" not in result["err"]
    # Progress of the data's preparation may stand before it.
    said = [line for line in result["err"].splitlines() if not re.match(r"[IW]\d{4} ", line)]
    assert len(said) == 1, result["err"]
    assert re.search(CASES[case][2], said[0]), said[0]


@pytest.mark.parametrize(
    "case",
    [
        "unknown key",
        "optimizer out of range",
        "a file for a workdir",
        "data path that is not there",
        "a set without a split to validate on",
    ],
)
def test_nothing_is_begun_before_settings_are_checked(results, case):
    assert re.match(r"[IW]\d{4} ", results[case]["err"]) is None, results[case]["err"]


def test_a_refused_folder_is_left_as_it_was(results):
    tmp = results["tmp"]
    assert [path.name for path in (tmp / "begun").iterdir()] == ["config.json"]
    assert [path.name for path in (tmp / "swept").iterdir()] == ["sweep.json"]
    assert not (tmp / "absent").exists()
