"""A task or an evaluation while training that cannot be measured is refused in one line."""

import pytest

from tests.launch import mistakes
from tests.launch.mistakes import DEBUG, EVALUATE, RETRIEVAL, SET, SMALL, TRAIN, WORKDIR

EVALUATING = ("--config.data.batch_size=4", "--config.evaluate_every=1")

_LENGTHS = ("stage1.length=4", "stage1.warmup=1", "stage2.length=4", "stage2.warmup=1")


def best(metric, *, batch_size):
    """The arguments of a run that is validated in every stage and keeps the best checkpoint."""
    stages = [f"--config.stages.{length}" for length in _LENGTHS]
    validates = ["--config.stage_unit=steps", *stages, "--config.validate_every=4"]
    size = f"--config.data.batch_size={batch_size}"
    return [SMALL, WORKDIR, *SET, *validates, size, f"--config.checkpoint.best_metric={metric}"]


# Name of the case -> program, arguments, pattern that the line matches.
CASES = {
    "a file without a config after training": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.after=('configs/eval/__init__.py',)"],
        r"^config\.after: The file configs/eval/__init__\.py has no function get_config",
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
    "passes without end": (
        EVALUATE,
        [
            "--workdir={tmp}/trained",
            "--task=configs/eval/finetune.py",
            "--task.finetune.epochs=inf",
        ],
        r"^task\.finetune\.epochs: The value is inf\. It must be a finite number above 0",
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
    "prompts while training that are not known": (
        TRAIN,
        [DEBUG, WORKDIR, *EVALUATING, "--config.evaluate.prompts=bogus"],
        r"^config\.evaluate\.prompts: The value is 'bogus'\. It must be one of described",
    ),
    "a best checkpoint by what is never evaluated": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.checkpoint.best_metric=evaluate_knn_macro_auroc"],
        r"^config\.evaluate_every: .*'evaluate_knn_macro_auroc'.*turns them off\. Set it to a",
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
    "a number that no validation of the set returns": (
        TRAIN,
        [
            "--config=configs/finetune/debug.py",
            WORKDIR,
            "--config.data.path={tmp}/no_positive",
            "--config.data.batch_size=4",
            "--config.model.classes=('Effusion','Cardiomegaly')",
        ],
        r"^config\.checkpoint\.best_metric: 'validation_macro_auroc' cannot .* \(Effusion, Cardiom",
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
    "a number that the first stage does not have": (
        TRAIN,
        best("validation_prototype_loss", batch_size=4),
        r"^config\.checkpoint\.best_metric: The validations .*'validation_prototype_loss'\. Choose",
    ),
    "a number of local losses without a weight": (
        TRAIN,
        [
            *best("validation_local_image_use_share", batch_size=4),
            "--config.model.weights.stage2.local_image=0.0",
            "--config.model.weights.stage2.local_text=0.0",
        ],
        r"^config\.checkpoint\.best_metric: .*, and in stage2 none has a weight above 0\. Choose",
    ),
    "a number of another study's image where there is none": (
        TRAIN,
        best("validation_local_mirror_use", batch_size=1),
        r"^config\.checkpoint\.best_metric: .*the batches of a validation have 1 pair\. Choose",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_exit_code_2(said, case):
    mistakes.assert_one_line(said[case], CASES[case][2])
