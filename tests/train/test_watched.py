"""Validations and evaluations at steps of their own, and the decisions that wait for either."""

import math
import re

import pytest

from prior_jax.errors import CheckpointError, ConfigError
from prior_jax.train import watched
from prior_jax.train.patience import EarlyStoppingConfig, Patience
from tests.train import toy

AUROC = "evaluate_knn_macro_auroc"
STOPPING = EarlyStoppingConfig(metric=AUROC, patience=2, mode="max", min_delta=0.0)


def validate(snapshot):
    return {"validation_total_loss": 10.0 - snapshot.step}


def evaluate(snapshot):
    """Best after step 4."""
    return {AUROC: 1.0 - abs(4 - snapshot.step) / 10}


def run(workdir, *, stages=toy.STAGES, data=None, **changes):
    options = dict(validate_every=3, evaluate_every=2) | changes
    return toy.run(
        workdir, stages=stages, options=toy.options(**options), validate=validate,
        evaluate=evaluate, data=data or toy.ToyData(),
    )  # fmt: skip


def test_each_is_computed_at_its_own_steps_the_last_and_evaluations_before_the_first(tmp_path):
    run(tmp_path, stages=(toy.stage("first", 7),))
    lines = {line["step"]: line for line in toy.lines(tmp_path)}
    assert list(lines) == list(range(8))
    assert lines[0] == {"step": 0, "stage": "first", AUROC: 0.6}
    assert [step for step, line in lines.items() if AUROC in line] == [0, 2, 4, 6, 7]
    validated = [step for step, line in lines.items() if "validation_total_loss" in line]
    assert validated == [3, 6, 7]


@pytest.mark.parametrize("dies_at", [2, 9])
def test_killed_and_resumed_the_lines_are_the_same(tmp_path, dies_at):
    run(tmp_path / "whole")
    with pytest.raises(toy.Died):
        run(tmp_path / "killed", data=toy.StopAt(dies_at))
    run(tmp_path / "killed")
    assert toy.losses(tmp_path / "killed") == toy.losses(tmp_path / "whole")


def test_a_stage_ends_by_evaluations_and_the_best_is_kept_by_them(tmp_path):
    checkpoint = toy.replace(
        toy.CHECKPOINT, keep_last=1, keep_best=1, best_metric=AUROC, best_is="highest"
    )
    run(tmp_path, stages=(toy.stage("first", 20),), early_stopping=STOPPING, checkpoint=checkpoint)
    # Evaluations of steps 6 and 8 are no better than that of step 4; validations do not count.
    assert toy.lines(tmp_path)[-1]["step"] == 8
    assert {int(p.name) for p in (tmp_path / "checkpoints").iterdir()} == {4, 8}


def test_a_step_is_saved_that_is_one_of_the_best_and_not_the_best(tmp_path):
    losses = {2: 1.0, 4: 0.5, 6: 0.55, 8: 0.9}
    checkpoint = toy.replace(
        toy.CHECKPOINT, keep_last=1, keep_best=3, best_metric="validation_total_loss"
    )
    toy.run(
        tmp_path, stages=(toy.stage("first", 8),),
        options=toy.options(validate_every=2, checkpoint=checkpoint),
        validate=lambda snapshot: {"validation_total_loss": losses[snapshot.step]},
    )  # fmt: skip
    assert {int(p.name) for p in (tmp_path / "checkpoints").iterdir()} == {4, 6, 8}


@pytest.mark.parametrize("dies_at", [None, 7])
def test_an_early_end_of_the_run_is_validated_and_evaluated(tmp_path, dies_at):
    """As the last step is, wherever the run was killed before."""
    stages = (toy.stage("first", 20),)
    changes = dict(stages=stages, validate_every=5, early_stopping=STOPPING)
    if dies_at is not None:
        with pytest.raises(toy.Died):
            run(tmp_path, data=toy.StopAt(dies_at), **changes)
    for _ in range(2):  # the second time it is over
        run(tmp_path, **changes)
    lines = toy.lines(tmp_path)
    validated = [line["step"] for line in lines if "validation_total_loss" in line]
    assert validated == [5, 8] and lines[-1]["step"] == 8
    assert [line["step"] for line in lines if AUROC in line] == [0, 2, 4, 6, 8]


def test_an_early_end_of_an_earlier_stage_is_no_last_step(tmp_path):
    stages = (toy.stage("first", 20), toy.stage("second", 1, warmup_steps=0))
    run(tmp_path, stages=stages, validate_every=5, early_stopping=STOPPING)
    lines = toy.lines(tmp_path)
    validated = [line["step"] for line in lines if "validation_total_loss" in line]
    assert validated == [5, 21] and [line["step"] for line in lines[-2:]] == [8, 21]


@pytest.mark.parametrize("best_is, worse", [("lowest", math.inf), ("highest", -math.inf)])
def test_a_number_that_is_not_finite_is_saved_and_never_the_best(tmp_path, best_is, worse):
    values = {1: math.nan, 2: 0.5, 3: -worse, 4: worse}
    checkpoint = toy.replace(
        toy.CHECKPOINT, every_steps=1, keep_last=1, keep_best=1, best_is=best_is,
        best_metric="validation_total_loss",
    )  # fmt: skip
    toy.run(
        tmp_path, stages=(toy.stage("first", 4),),
        options=toy.options(validate_every=1, checkpoint=checkpoint),
        validate=lambda snapshot: {"validation_total_loss": values[snapshot.step]},
    )  # fmt: skip
    found = [line["validation_total_loss"] for line in toy.lines(tmp_path)]
    assert found == [None, 0.5, None, None]
    assert {int(p.name) for p in (tmp_path / "checkpoints").iterdir()} == {2, 4}


def test_a_wait_stays_as_it_is_at_steps_of_the_other_kind():
    stage = toy.stage("first", 4)
    begun = Patience().after({AUROC: 0.5}, stage=stage, stopping=STOPPING)
    other = begun.after({"validation_total_loss": 1.0}, stage=stage, stopping=STOPPING)
    assert other.stopping == begun.stopping and not other.ended
    both = begun.after({"validation_total_loss": 1.0, AUROC: 0.4}, stage=stage, stopping=STOPPING)
    assert both.stopping.bad == 1


def test_a_number_that_is_never_computed_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ConfigError, match=r"^evaluate_every: Early stopping .* evaluations"):
        toy.options(validate_every=3, early_stopping=STOPPING)
    best = toy.replace(toy.CHECKPOINT, keep_best=1, best_metric=AUROC)
    with pytest.raises(ConfigError, match=rf"^evaluate_every: .*'{AUROC}'.*best_metric"):
        toy.options(validate_every=3, checkpoint=best)
    with pytest.raises(ConfigError, match=r"^evaluate_every: The value is -1"):
        toy.options(evaluate_every=-1)
    options = toy.options(evaluate_every=2, early_stopping=STOPPING)
    with pytest.raises(ConfigError, match=r"config\.evaluate_every: .*config\.early_stopping"):
        toy.run(tmp_path, options=options, validate=validate)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_refused_with_the_names_of_its_kind_first():
    known = {watched.VALIDATE: {"validation_total_loss"}, watched.EVALUATE: (AUROC,)}
    watched.check_names({"a": AUROC, "b": "validation_total_loss"}, known=known)
    for name, kind in (("evaluate_knn_auroc", "evaluations"), ("auroc", "validations")):
        with pytest.raises(ConfigError, match=rf"^config\.x: The {kind} .*{name}.*{AUROC}, val"):
            watched.check_names({"config.x": name}, known=known)


def test_settings_of_evaluations_may_change_unless_a_decision_waits_for_them(tmp_path):
    for name, stopping in (("free", None), ("bound", STOPPING)):
        with pytest.raises(toy.Died):
            run(
                tmp_path / name, data=toy.StopAt(5), early_stopping=stopping,
                evaluation={"studies": 8},
            )  # fmt: skip
    run(tmp_path / "free", evaluate_every=3, evaluation={"studies": 9})
    refusals = {
        r"config\.evaluate_every: .*evaluated every 3 steps": dict(
            evaluate_every=3, evaluation={"studies": 8}
        ),
        r"config\.evaluate\.studies: The value is 9.*with 8": dict(evaluation={"studies": 9}),
    }
    for pattern, changes in refusals.items():
        with pytest.raises(CheckpointError, match=pattern) as error:
            run(tmp_path / "bound", early_stopping=STOPPING, **changes)
        assert re.search(r"Set it.* to resume, or use another --workdir", str(error.value))
