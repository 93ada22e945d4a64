"""The loop: resuming, logging, stopping."""

import contextlib
import json
import os
import signal
import time

import jax
import numpy as np
import pytest

from prior_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
    WeightsError,
)
from prior_jax.processes.preemption import EXIT_CODE, Preempted
from prior_jax.train import metrics, run_log
from prior_jax.train.checkpoint import Checkpoints
from tests.train import toy


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, toy.run(workdir)


def test_every_step_is_logged_once_with_every_term(whole):
    found = toy.lines(whole[0])
    assert [line["step"] for line in found] == list(range(1, 13))
    assert [line["stage"] for line in found] == ["first"] * 6 + ["second"] * 6
    for line in found:
        names = {"batch", "lr", "total_loss", "contrast_loss", "grad_norm", "spread"}
        assert names | set(toy.TIMINGS) <= line.keys()
        assert ("bank_loss" in line) == (line["stage"] == "second")
        assert 0 <= line["input_wait"] <= 1
        assert line["pairs_per_second"] > 0
    assert len({line["batch"] for line in found}) == 12
    total = found[-1]["contrast_loss"] + 0.5 * found[-1]["bank_loss"]
    np.testing.assert_allclose(found[-1]["total_loss"], total, rtol=1e-6)


class SlowToCompile(toy.ToyObjective):
    def loss_terms(self, *args, **kwargs):
        time.sleep(2)
        return super().loss_terms(*args, **kwargs)


def test_compiling_is_announced_and_counts_in_no_rate(whole, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(run_log.logging, "info", lambda text, *values: said.append(text % values))
    toy.run(tmp_path, objective=SlowToCompile())
    assert [line for line in said if line.startswith("compiling")] == [
        f"compiling the training step of {stage} (a minute or more, once)"
        for stage in ("first", "second")
    ]
    assert toy.losses(tmp_path) == toy.losses(whole[0])
    first = {line["stage"]: line for line in reversed(toy.lines(tmp_path))}
    assert all(line["pairs_per_second"] > 16 / 2 for line in first.values())


def test_two_runs_are_the_same_bit_for_bit(whole, tmp_path):
    again = toy.run(tmp_path)
    assert toy.losses(tmp_path) == toy.losses(whole[0])
    toy.assert_same_bits(toy.arrays(again), toy.arrays(whole[1]))


class SameBatch(toy.ToyData):
    def batch(self, step):
        return super().batch(1)


def test_each_step_draws_its_own_noise(tmp_path):
    still = toy.stage("first", 3, learning_rate=0.0, learning_rate_start=0.0)
    toy.run(tmp_path, data=SameBatch(), stages=(still,))
    assert len({line["total_loss"] for line in toy.lines(tmp_path)}) == 3


def test_training_lowers_the_loss(tmp_path):
    toy.run(tmp_path, data=SameBatch())
    found = [line["contrast_loss"] for line in toy.lines(tmp_path)]
    assert found[-1] < 0.98 * found[0]


def keeping(seen):
    """An evaluation that keeps the arrays it is shown."""

    def evaluate(snapshot):
        seen.append(toy.arrays(snapshot))
        return {"seen": len(seen)}

    return evaluate


def test_frozen_parameters_are_neither_moved_nor_decayed(tmp_path):
    seen = []
    stages = tuple(toy.stage(name, 3, weight_decay=0.5) for name in ("first", "second"))
    drawn = {"head/kernel": np.full((8, 8), 0.5, np.float32)}
    toy.run(
        tmp_path, stages=stages, initial_values=lambda _: drawn,
        options=toy.options(validate_every=3), validate=keeping(seen),
    )  # fmt: skip
    first, second = seen
    toy.assert_same_bits({"head/kernel": first["head/kernel"]}, drawn)
    for name in ("head/kernel", "head/bias", "bank"):
        assert not np.array_equal(first[name], second[name]), name


@pytest.mark.parametrize("step", [1, 5, 6, 7, 11])
def test_a_run_stopped_anywhere_ends_as_if_never_stopped(whole, tmp_path, step):
    with pytest.raises(toy.Died):
        toy.run(tmp_path, data=toy.StopAt(step))
    data = toy.ToyData()
    final = toy.run(tmp_path, data=data)
    saved = [0, 4, 6, 8]  # every four steps, and the end of the stage
    assert data.opened == [(max(s for s in saved if s < step), 0, 1)]
    assert toy.losses(tmp_path) == toy.losses(whole[0])
    toy.assert_same_bits(toy.arrays(final), toy.arrays(whole[1]))


def test_a_finished_run_returns_its_model_again(whole):
    before = (whole[0] / "metrics.jsonl").read_bytes()
    data = toy.ToyData()
    again = toy.run(whole[0], data=data)
    assert data.opened == []
    toy.assert_same_bits(toy.arrays(again), toy.arrays(whole[1]))
    assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_sparse_logging_keeps_stage_ends_and_the_same_losses(whole, tmp_path):
    log = toy.replace(toy.LOG, every_steps=5)
    toy.run(tmp_path, options=toy.options(log=log))
    found = toy.losses(tmp_path)
    assert [line["step"] for line in found] == [5, 6, 10, 12]
    every = {line["step"]: line for line in toy.losses(whole[0])}
    assert found == [every[line["step"]] for line in found]


def test_sigterm_saves_and_the_rerun_goes_on(whole, tmp_path):
    class Terminated(toy.ToyData):
        def batch(self, step):
            if step == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(step)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as stopped:
        toy.run(tmp_path, data=Terminated())
    assert EXIT_CODE == 75
    assert signal.getsignal(signal.SIGTERM) == before
    data = toy.ToyData()
    final = toy.run(tmp_path, data=data)
    assert data.opened == [(stopped.value.step, 0, 1)]
    assert toy.losses(tmp_path) == toy.losses(whole[0])
    toy.assert_same_bits(toy.arrays(final), toy.arrays(whole[1]))


@pytest.mark.parametrize("in_mesh", [True, False])
def test_the_first_save_compiles_nothing(tmp_path, monkeypatch, in_mesh):
    """A signal to all processes of a job would end the compiler, and so the save."""
    compiled, saves, save = [], [], Checkpoints.save

    def counted(self, state, **values):
        before = len(compiled)
        save(self, state, **values)
        saves.append(compiled[before:])

    def listen(event, *_, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about["fun_name"])

    monkeypatch.setattr(Checkpoints, "save", counted)
    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.clear_caches()  # of the tests before
    with jax.set_mesh(toy.mesh_of()) if in_mesh else contextlib.nullcontext():
        toy.run(tmp_path, stages=(toy.STAGES[0],))
    jax.monitoring.unregister_event_duration_listener(listen)
    assert len(saves) >= 1 and not any(saves)
    assert "jit(_surveyed)" in compiled


@pytest.mark.parametrize("poisoned", [2, 4, 7])
def test_a_non_finite_loss_stops_with_a_report_and_saves_nothing(tmp_path, poisoned):
    with pytest.raises(NonFiniteLossError) as stopped:
        toy.run(tmp_path, objective=toy.ToyObjective(poison_at=poisoned))
    message = str(stopped.value)
    assert f"step {poisoned + 1}" in message
    assert "contrast_loss" in message
    assert f"study-{poisoned * 16}" in message
    assert "--config.stages." in message and "new --workdir" in message
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["step"] == poisoned + 1
    assert report["values"]["contrast_loss"] == "nan"
    assert report["records"] == [f"study-{poisoned * 16 + i}" for i in range(16)]
    assert [line["step"] for line in toy.lines(tmp_path)] == list(range(1, poisoned + 1))
    saved = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert saved == [step for step in (4, 6) if step <= poisoned]


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    """The loss of the last step is finite, but its update overflows."""
    huge = dict(learning_rate=3e38, learning_rate_start=0.0, warmup_steps=2, schedule_steps=3)
    stages = (toy.stage("first", 2, weight_decay=1e6, **huge),)
    with pytest.raises(NonFiniteLossError, match=r"step 2: The loss is finite, but .*params.*new"):
        toy.run(tmp_path, stages=stages)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_checkpoint_with_values_that_no_longer_exist_is_read(whole, tmp_path, monkeypatch):
    """Earlier versions stored the position of the input, which is the step."""
    save = Checkpoints.save

    def older(self, state, *, host, score):
        save(self, state, host={**host, "input_position": host["step"]}, score=score)

    monkeypatch.setattr(Checkpoints, "save", older)
    with pytest.raises(toy.Died):
        toy.run(tmp_path, data=toy.StopAt(7))
    monkeypatch.setattr(Checkpoints, "save", save)
    final = toy.run(tmp_path)
    toy.assert_same_bits(toy.arrays(final), toy.arrays(whole[1]))


def test_lines_after_the_checkpoint_and_a_cut_line_are_written_again(whole, tmp_path):
    with pytest.raises(toy.Died):
        toy.run(tmp_path, data=toy.StopAt(10))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 11, "stage": "sec')
    toy.run(tmp_path)
    assert toy.losses(tmp_path) == toy.losses(whole[0])


def test_evaluation_joins_the_line_and_the_best_is_kept(tmp_path):
    scores = {3: 5.0, 6: 1.0, 9: 4.0, 12: 3.0}
    evaluate = lambda snapshot: {"validation_loss": scores[snapshot.step]}  # noqa: E731
    checkpoint = toy.replace(
        toy.CHECKPOINT, keep_last=1, keep_best=1, best_metric="validation_loss"
    )
    log = toy.replace(toy.LOG, every_steps=100)
    settings = toy.options(validate_every=3, checkpoint=checkpoint, log=log)
    toy.run(tmp_path, options=settings, validate=evaluate)
    found = {line["step"]: line["validation_loss"] for line in toy.lines(tmp_path)}
    assert found == scores
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"6", "12"}


def test_a_missing_best_metric_is_named(tmp_path):
    checkpoint = toy.replace(toy.CHECKPOINT, best_metric="auroc")
    evaluate = lambda snapshot: {"validation_loss": 1.0}  # noqa: E731
    with pytest.raises(ConfigError, match="best_metric"):
        toy.run(
            tmp_path,
            options=toy.options(validate_every=2, checkpoint=checkpoint),
            validate=evaluate,
        )


def test_data_that_ends_early_is_refused(tmp_path):
    class Short(toy.ToyData):
        def train_batches(self, **where):
            for step, batch in super().train_batches(**where):
                if step == 3:
                    return
                yield step, batch

    with pytest.raises(DataError, match="ended before step 3"):
        toy.run(tmp_path, data=Short())


def test_another_seed_identity_or_past_stage_is_refused_by_name(tmp_path):
    same = dict(identity={"model": {"width": 8, "scale": {"learned": True}}})
    with pytest.raises(toy.Died):
        toy.run(tmp_path, data=toy.StopAt(9), options=toy.options(**same))
    with pytest.raises(CheckpointError, match=r"config\.seed: The value is 4, but"):
        toy.run(tmp_path, options=toy.options(seed=4, **same))
    other = {"model": {"width": 8, "scale": {"learned": False}}}
    with pytest.raises(
        CheckpointError, match=r"model\.scale\.learned: .* False, but .*Set it to True to resume"
    ):
        toy.run(tmp_path, options=toy.options(identity=other))
    changed = (toy.stage("first", 6, weight_decay=0.3), toy.STAGES[1])
    with pytest.raises(CheckpointError, match=r"config\.stages\.first\.weight_decay: .* 0\.3, but"):
        toy.run(tmp_path, stages=changed, options=toy.options(**same))
    with pytest.raises(CheckpointError, match=r"config\.stages: .* 6 steps"):
        toy.run(tmp_path, stages=toy.STAGES[:1], options=toy.options(**same))


def test_a_finished_run_goes_on_with_a_stage_added(whole, tmp_path):
    toy.run(tmp_path, stages=toy.STAGES[:1])
    final = toy.run(tmp_path)
    assert toy.losses(tmp_path) == toy.losses(whole[0])
    toy.assert_same_bits(toy.arrays(final), toy.arrays(whole[1]))


def test_an_unknown_stage_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="third"):
        toy.run(tmp_path, stages=(toy.stage("third", 2, warmup_steps=0),))


def test_initial_values_replace_drawn_ones_and_strange_names_are_refused(tmp_path):
    seen = []
    ones = {"head/kernel": np.ones((8, 8), np.float32)}
    only = toy.STAGES[:1]
    every = dict(stages=only, options=toy.options(validate_every=6), validate=keeping(seen))
    toy.run(tmp_path / "a", initial_values=lambda _: ones, **every)
    assert np.all(seen[0]["head/kernel"] == 1)
    # A run that goes on does not ask for them again.
    toy.run(tmp_path / "a", initial_values=lambda _: pytest.fail("asked again"), **every)
    with pytest.raises(WeightsError, match="head/kernal: The model has no array"):
        toy.run(tmp_path / "b", initial_values=lambda _: {"head/kernal": ones["head/kernel"]})
    with pytest.raises(WeightsError, match=r"head/bias: .*\(8, 8\).*\(8,\)"):
        toy.run(tmp_path / "c", initial_values=lambda _: {"head/bias": ones["head/kernel"]})


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(self, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics.MetricsFile, "write", full)
    with pytest.raises(CheckpointError, match="no space left on the device") as error:
        toy.run(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.multidevice
def test_eight_devices_train_as_one_does(whole, tmp_path):
    toy.run(tmp_path, devices=8)
    for one, many in zip(toy.losses(whole[0]), toy.losses(tmp_path), strict=True):
        for name, value in one.items():
            if isinstance(value, float):
                np.testing.assert_allclose(many[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
            else:
                assert many[name] == value


@pytest.mark.multidevice
def test_a_run_moves_from_eight_devices_to_one_and_back(whole, tmp_path):
    for devices, stop in ((8, 5), (1, 9)):
        with pytest.raises(toy.Died):
            toy.run(tmp_path, devices=devices, data=toy.StopAt(stop))
    final = toy.run(tmp_path, devices=8)
    assert len(final.params["bank"].sharding.device_set) == 8
    assert final.params["bank"].addressable_shards[0].data.shape == (2, 8)
    for name, value in toy.arrays(whole[1]).items():
        np.testing.assert_allclose(toy.arrays(final)[name], value, rtol=1e-3, atol=1e-4)
    steps = [line["step"] for line in toy.lines(tmp_path)]
    assert steps == list(range(1, 13))
