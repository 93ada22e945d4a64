"""Evaluation while training: equal numbers after a kill, curves in the report, early stopping."""

import json
import signal

import pytest

from tests.end_to_end import runs

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
EVERY = 8
AUROC = "evaluate_knn_macro_auroc"
TASKS = ("zero_shot", "retrieval", "knn")
FLAGS = (f"--config.evaluate_every={EVERY}", "--config.validate_every=None")


def of_tasks(line):
    return {task for task in TASKS if any(name.startswith(f"evaluate_{task}_") for name in line)}


def test_killed_in_between_it_ends_with_the_same_numbers_and_curves(finished, tmp_path):
    # With a task after training, so that the report is drawn.
    data = (*finished.data[:-1], "--config.after=('configs/eval/retrieval.py',)", *FLAGS)
    whole, killed = (runs.folder(tmp_path / name, finished) for name in ("whole", "killed"))
    runs.go(whole, *data)
    process = runs.start(killed, *data)
    assert runs.wait_for(process, lambda: runs.logged(killed) >= 12)
    process.send_signal(signal.SIGKILL)
    runs.finish(process)
    assert "restored" in runs.go(killed, *data)
    assert runs.numbers(killed) == runs.numbers(whole)
    lines = runs.numbers(whole)
    assert [line["step"] for line in lines] == list(range(runs.STEPS + 1))
    measured = [line["step"] for line in lines if of_tasks(line)]
    assert measured == [0, 8, 16, 24]
    for step in measured:
        assert of_tasks(lines[step]) == set(TASKS)
        found = [value for name, value in lines[step].items() if name.startswith("evaluate_")]
        assert len(found) == 11 and all(0 <= value <= 1 for value in found)
    # Training itself takes no notice of it.
    own = [{k: v for k, v in line.items() if not k.startswith("evaluate_")} for line in lines[1:]]
    undisturbed = runs.numbers(finished.workdir)
    plain = [
        {k: v for k, v in line.items() if not k.startswith("validation_")} for line in undisturbed
    ]
    assert own == plain
    page = (whole / "report" / "index.html").read_text()
    assert "Evaluated while training" in page and "Nearest-neighbour macro AUROC" in page


def test_a_stage_ends_and_the_best_is_kept_by_a_number_of_an_evaluation(finished, tmp_path):
    stopping = dict(metric=AUROC, patience=1, mode="min", min_delta=2.0)  # nothing improves so much
    workdir = runs.folder(tmp_path / "run", finished)
    runs.go(
        workdir,
        *finished.data,
        *FLAGS,
        "--config.evaluate_every=2",
        "--config.evaluate.tasks=('knn',)",
        f"--config.early_stopping={stopping}",
        f"--config.checkpoint.best_metric={AUROC}",
        "--config.checkpoint.best_is=highest",
    )
    lines = runs.numbers(workdir)
    # Each stage ends with its second evaluation.
    assert [line["step"] for line in lines[1:]] == [1, 2, 3, 4, 9, 10, 11, 12, 17, 18, 19, 20]
    scores = {line["step"]: line[AUROC] for line in lines if line.get(AUROC) and line["step"]}
    assert max(scores, key=lambda step: scores[step]) in runs.saved_steps(workdir)
    assert of_tasks(lines[0]) == {"knn"}
    assert json.loads((workdir / "config.json").read_text())["early_stopping"] == stopping
