"""The messages for a run that may not resume: each remedy is one that a user can follow."""

import pytest

from prior_jax.errors import CheckpointError
from prior_jax.interface.trained import schedule_of
from prior_jax.train import resume
from prior_jax.train.stages import PlateauConfig, Schedule
from tests.train import toy


def refusal(name, now, then):
    with pytest.raises(CheckpointError) as error:
        resume.check_identity({name: now}, {name: then}, workdir="/runs/one")
    return error.value


@pytest.mark.parametrize(
    ("name", "where", "flag"),
    [
        (resume.DATA_SET, "config.data.path", "--config.data.path=DIR"),
        (resume.TOKENIZER, "config.data.tokenizer.path", "--config.data.tokenizer.path=FILE"),
        (
            "config.data.fraction.ids",
            "config.data.fraction.ids",
            "--config.data.fraction.ids=FILE",
        ),
        (
            "config.init.text.weights",
            "config.init.text.path",
            "--config.init.text.path=DIR",
        ),
    ],
)
def test_of_a_fingerprint_the_input_is_asked_for(name, where, flag):
    error = refusal(name, "ec74", "876e")
    assert error.where == where
    assert "fingerprint ec74" in error.problem and "fingerprint 876e" in error.problem
    assert error.remedy == f"Give that one with {flag} to resume, or use another --workdir."


def test_weights_that_one_of_both_lacks_are_told():
    weights = {"weights": "876e", "adapt": []}
    error = refusal("config.init.image", None, weights)
    assert error.where == "config.init.image.path"
    assert error.problem.startswith("There is no folder of weights, but")
    assert "876e" in error.problem and "adapt" not in str(error)
    error = refusal("config.init.image", weights, None)
    assert error.problem == "The checkpoint in /runs/one was trained without a folder of weights."
    assert error.remedy.startswith("Set it to None to resume")


def test_a_plain_setting_is_named_with_both_values():
    error = refusal("config.model", {"embed_dim": 16}, {"embed_dim": 32})
    assert str(error) == (
        "config.model.embed_dim: The value is 16, but the checkpoint in /runs/one was trained "
        "with 32. Set it to 32 to resume, or use another --workdir."
    )


def test_a_section_is_not_spelled_out():
    error = refusal("config.data.fraction", None, {"share": 0.1, "ids": "876e"})
    assert "Set it as config.json in /runs/one has it to resume" in error.remedy


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        (dict(steps=7), "config.stages.first.length", "makes 7 steps, .* with 6 steps"),
        (dict(warmup_steps=1), "config.stages.first.warmup", "makes 1 steps, .* with 2 steps"),
        (dict(weight_decay=0.5), "config.stages.first.weight_decay", r"is 0\.5, .* with 0\.01"),
        (dict(name="second"), "config.stages", r"Give the stages first first"),
    ],
)
def test_a_stage_that_has_begun_is_named_as_the_config_names_it(changes, where, says):
    stages = toy.STAGES[:1]
    theirs = resume.settings_of(toy.options(), Schedule(stages)) | {"step": 3}
    schedule = Schedule([toy.replace(stages[0], **changes)])
    ours = resume.settings_of(toy.options(), schedule)
    with pytest.raises(CheckpointError, match=says) as error:
        resume.check_same(ours, theirs, schedule=schedule, workdir="/runs/one")
    assert error.value.where == where


@pytest.mark.parametrize(
    ("bank", "step", "jumps"), [("linear", 7, True), ("fixed", 7, False), ("linear", 6, False)]
)
def test_the_stages_keep_their_length_while_a_bank_cools_over_them(bank, step, jumps):
    """The first stage, which does not use the bank, has 6 steps."""
    options = toy.options(identity={"config.model": {"bank": {"schedule": bank}}})
    stages = [toy.stage("stage1", 6), toy.stage("stage2", 6), toy.stage("stage3", 3)]
    theirs = resume.settings_of(options, Schedule(stages[:2])) | {"step": step}
    schedule = Schedule(stages)
    ours = resume.settings_of(options, schedule)
    if jumps:
        with pytest.raises(CheckpointError, match="have 9 steps together, but had 6") as error:
            resume.check_same(ours, theirs, schedule=schedule, workdir="/runs/one")
        assert error.value.where == "config.stages"
    else:
        resume.check_same(ours, theirs, schedule=schedule, workdir="/runs/one")


def test_validations_are_told_in_steps():
    plateau = PlateauConfig(
        metric="loss", factor=0.5, patience=1, threshold=0.0, min_learning_rate=0.0
    )
    schedule = Schedule([toy.stage("first", 6, schedule="plateau", plateau=plateau)])
    theirs = resume.settings_of(toy.options(validate_every=60), schedule) | {"step": 3}
    ours = resume.settings_of(toy.options(validate_every=30), schedule)
    with pytest.raises(CheckpointError, match=r"every 30 steps, .*validate_unit") as error:
        resume.check_same(ours, theirs, schedule=schedule, workdir="/runs/one")
    assert "was validated every 60 steps" in error.value.problem


def test_the_stage_of_a_checkpoint_is_that_of_its_last_step():
    stages = [toy.stage("stage1", 6), toy.stage("stage2", 4)]
    host = resume.settings_of(toy.options(), Schedule(stages))
    schedule = schedule_of(host)
    names = [schedule.before(step).name for step in (0, 1, 6, 7, 10)]
    assert names == ["stage1", "stage1", "stage1", "stage2", "stage2"]
