"""What launch.train says at its end."""

import types

import pytest

from launch import train
from prior_jax.train.checkpoint_table import CheckpointConfig


def ended(monkeypatch, scores, *, step, metric="validation_dice", best_is="highest", keep_best=1):
    def score_of(path, **of):
        assert of == {"metric": metric, "evaluation": {}}
        return scores[int(path.name)]

    def best_step(folder, *, best_is, **of):
        known = [one for one, score in scores.items() if score is not None]
        choose = max if best_is == "highest" else min
        return choose(known, key=lambda one: scores[one]) if known else None

    monkeypatch.setattr(train, "score_of", score_of)
    monkeypatch.setattr(train, "best_step", best_step)
    kept = CheckpointConfig(
        every_steps=50,
        keep_last=1,
        keep_best=keep_best,
        best_metric=metric,
        best_is=best_is,
        directory=None,
    )
    options = types.SimpleNamespace(checkpoint=kept, evaluation={})
    return train.ended(step, workdir=types.SimpleNamespace(), options=options)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(CheckpointConfig, "folder", lambda self, workdir: tmp_path)


def test_the_best_step_is_named_with_the_flag_that_takes_it(monkeypatch):
    said = ended(monkeypatch, {100: 0.9141, 150: 0.7}, step=150)
    assert said == (
        "done at step 150; best validation_dice 0.9141 at step 100, which --step=100 names to "
        "other programs"
    )
    lowest = ended(monkeypatch, {100: 0.5, 150: 0.25}, step=150, best_is="lowest")
    assert lowest == "done at step 150, with the best validation_dice 0.25"


def test_without_a_best_checkpoint_the_last_step_is_said(monkeypatch):
    assert ended(monkeypatch, {150: None}, step=150) == "done at step 150"
    none = dict(metric=None, keep_best=0)
    assert ended(monkeypatch, {150: None}, step=150, **none) == "done at step 150"


def test_the_best_of_the_last_checkpoints_is_not_called_the_best(monkeypatch):
    """The best of all may have been deleted."""
    said = ended(monkeypatch, {900: 0.7, 1000: 0.6}, step=1000, keep_best=0)
    assert said == "done at step 1000"
