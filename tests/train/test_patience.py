"""Rates that wait for validations, and stages that end early: exact over every interruption."""

import math

import numpy as np
import pytest

from prior_jax.errors import CheckpointError, ConfigError
from prior_jax.train.patience import EarlyStoppingConfig, Patience, Wait
from prior_jax.train.stages import PlateauConfig
from tests.train import toy

PLATEAU = PlateauConfig(
    metric="loss", factor=0.5, patience=0, threshold=1e-4, min_learning_rate=0.0
)
STOPPING = EarlyStoppingConfig(metric="loss", patience=2, mode="min", min_delta=0.0)
FLAT = dict(schedule="plateau", plateau=PLATEAU, warmup_steps=0)
STAGES = (toy.stage("first", 8, **FLAT), toy.stage("second", 6, **FLAT))
# The first stage's rate is halved after step 4, and the stage ended after step 6.
SCORES = {2: 1.0, 4: 1.0, 6: 1.0, 10: 3.0, 12: 3.0, 14: 2.0}


def scored(scores=None):
    scores = SCORES if scores is None else scores
    return lambda snapshot: {"loss": scores[snapshot.step]}


def patient(**changes):
    return toy.options(**(dict(validate_every=2, early_stopping=STOPPING) | changes))


def run(workdir, **changes):
    return toy.run(workdir, **(dict(stages=STAGES, options=patient(), validate=scored()) | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, its data and its model."""
    workdir, data = tmp_path_factory.mktemp("whole"), toy.ToyData()
    return workdir, data, run(workdir, data=data)


def after(values, *, plateau=None, stopping=None, peak=1e-2):
    schedule = "constant" if plateau is None else "plateau"
    stage = toy.stage("first", 4, schedule=schedule, plateau=plateau, learning_rate=peak)
    found = [Patience()]
    for value in values:
        found.append(found[-1].after({"loss": value}, stage=stage, stopping=stopping))
    return found[1:]


def test_a_rate_falls_after_more_than_patience_validations_without_gain():
    plateau = toy.replace(PLATEAU, patience=1)
    found = after([1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5], plateau=plateau)
    assert [p.factor for p in found] == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_a_gain_below_the_threshold_is_none():
    plateau = toy.replace(PLATEAU, threshold=0.1)
    assert [p.factor for p in after([1.0, 0.91], plateau=plateau)] == [1, 0.5]
    assert [p.factor for p in after([1.0, 0.89], plateau=plateau)] == [1, 1]


def test_a_rate_falls_no_further_than_its_least():
    plateau = toy.replace(PLATEAU, min_learning_rate=3e-3)
    factors = [p.factor for p in after([1.0] * 4, plateau=plateau)]
    np.testing.assert_allclose(factors, [1, 0.5, 0.3, 0.3], rtol=1e-12)
    # torch makes no reduction by 1e-8 or less.
    assert [p.factor for p in after([1.0] * 3, plateau=PLATEAU, peak=3e-8)] == [1, 0.5, 0.5]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_no_gain_and_no_best(bad):
    found = after([bad, 1.0, bad], plateau=PLATEAU, stopping=STOPPING)
    assert [p.factor for p in found] == [0.5, 0.5, 0.25]
    assert [p.stopping for p in found] == [Wait(None, 1), Wait(1.0, 0), Wait(1.0, 1)]


@pytest.mark.parametrize("mode, sign", [("min", 1), ("max", -1)])
def test_a_stage_ends_after_patience_validations_without_gain(mode, sign):
    stopping = toy.replace(STOPPING, mode=mode, min_delta=0.1)
    values = [sign * value for value in (1.0, 0.8, 0.75, 0.6, 0.55, 0.51)]
    found = after(values, stopping=stopping)
    assert [p.stopping.bad for p in found] == [0, 0, 1, 0, 1, 2]
    assert [p.ended for p in found] == [False] * 5 + [True]


def test_what_a_checkpoint_holds_comes_back():
    for patience in after([1.0, 1.0, 0.1], plateau=PLATEAU, stopping=STOPPING):
        assert Patience.from_json(patience.as_json()) == patience


@pytest.mark.parametrize(
    "changes", [{"factor": 1.0}, {"factor": 0.0}, {"patience": -1}, {"threshold": -0.1},
                {"min_learning_rate": -1.0}]
)  # fmt: skip
def test_bad_plateaus_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=rf"^plateau\.{next(iter(changes))}: "):
        toy.replace(STAGES[0], plateau=toy.replace(PLATEAU, **changes))


@pytest.mark.parametrize(
    "changes", [{"patience": 0}, {"mode": "lowest"}, {"min_delta": -1.0}, {"min_delta": math.inf}]
)
def test_bad_early_stopping_is_refused_by_name(changes):
    with pytest.raises(ConfigError, match=f"^{next(iter(changes))}: "):
        toy.replace(STOPPING, **changes)


def test_the_rate_falls_and_the_next_stage_starts_where_it_would_have(whole):
    workdir, data, final = whole
    found = toy.lines(workdir)
    assert [line["step"] for line in found] == [*range(1, 7), *range(9, 15)]
    assert [line["stage"] for line in found] == ["first"] * 6 + ["second"] * 6
    rates = [line["lr"] for line in found]
    wanted = [1e-2] * 4 + [5e-3] * 2 + [1e-2] * 4 + [5e-3] * 2
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)
    assert data.opened == [(0, 0, 1), (8, 0, 1)]
    assert (final.step, final.stage) == (14, "second")


class Counting(toy.ToyObjective):
    """Counts how often each stage's step is traced."""

    def __init__(self):
        super().__init__()
        self.traced = []

    def loss_terms(self, model, batch, *, stage, **rest):
        self.traced.append(stage)
        return super().loss_terms(model, batch, stage=stage, **rest)


def test_a_lower_rate_compiles_nothing(whole, tmp_path):
    objective = Counting()
    run(tmp_path, objective=objective)
    assert objective.traced == ["first", "second"]
    assert toy.losses(tmp_path) == toy.losses(whole[0])


# Every fourth step and the ends of stages are saved: 4, 6, 8, 12, 14.
@pytest.mark.parametrize("killed, resumed", [(3, 0), (5, 4), (8, 8), (11, 8), (13, 12)])
def test_a_run_stopped_anywhere_ends_as_if_never_stopped(whole, tmp_path, killed, resumed):
    with pytest.raises(toy.Died):
        run(tmp_path, data=toy.StopAt(killed))
    data = toy.ToyData()
    final = run(tmp_path, data=data)
    assert data.opened[0] == (resumed, 0, 1)
    assert toy.losses(tmp_path) == toy.losses(whole[0])
    toy.assert_same_bits(toy.arrays(final), toy.arrays(whole[2]))


def test_a_run_whose_last_stage_ended_early_is_over(tmp_path):
    data = toy.ToyData()
    one = run(tmp_path, stages=STAGES[:1])
    again = run(tmp_path, stages=STAGES[:1], data=data)
    assert one.step == again.step == 6
    assert data.opened == []
    toy.assert_same_bits(toy.arrays(one), toy.arrays(again))


def test_a_stage_added_after_an_early_end_starts_at_its_own_step(whole, tmp_path):
    run(tmp_path, stages=STAGES[:1])
    final = run(tmp_path)
    assert toy.losses(tmp_path) == toy.losses(whole[0])
    toy.assert_same_bits(toy.arrays(final), toy.arrays(whole[2]))


def test_the_best_checkpoint_outlives_an_early_end(tmp_path):
    checkpoint = toy.replace(toy.CHECKPOINT, keep_last=1, keep_best=1, best_metric="loss")
    options = patient(checkpoint=checkpoint)
    run(tmp_path, stages=STAGES[:1], options=options)
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "6"}


def test_settings_that_validations_obey_may_not_change(tmp_path):
    with pytest.raises(toy.Died):
        run(tmp_path, data=toy.StopAt(5))
    other = toy.replace(STOPPING, patience=3)
    with pytest.raises(CheckpointError, match=r"config\.early_stopping\.patience: .* 3, but"):
        run(tmp_path, options=patient(early_stopping=other))
    with pytest.raises(CheckpointError, match=r"config\.validate_every: .* every 1 steps, but"):
        run(tmp_path, options=patient(validate_every=1))
    with pytest.raises(CheckpointError, match=r"config\.stages\.first\.plateau"):
        changed = toy.replace(STAGES[0], plateau=toy.replace(PLATEAU, factor=0.1))
        run(tmp_path, stages=(changed, STAGES[1]))


def test_waiting_for_a_metric_that_nobody_gives_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"^validate_every: .*early_stopping"):
        patient(validate_every=0)
    with pytest.raises(ConfigError, match=r"^validate_every: The value is -1"):
        toy.options(validate_every=-1)
    with pytest.raises(ConfigError, match=r"validate_every.*stages\.first\.plateau"):
        run(tmp_path / "a", options=toy.options(validate_every=0))
    with pytest.raises(ConfigError, match=r"early_stopping.*stages|stages.*early_stopping"):
        run(tmp_path / "b", validate=None)
    stopping = toy.replace(STOPPING, metric="auroc")
    with pytest.raises(ConfigError, match=r"early_stopping\.metric: .*'auroc'.*Choose.*loss"):
        run(tmp_path / "c", options=patient(early_stopping=stopping))
    stages = (toy.replace(STAGES[0], plateau=toy.replace(PLATEAU, metric="dice")),)
    with pytest.raises(ConfigError, match=r"stages\.first\.plateau\.metric: .*'dice'"):
        run(tmp_path / "d", stages=stages)
