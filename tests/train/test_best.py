"""The best checkpoints of a run: which are kept, and by which number."""

import math

import pytest

from prior_jax.train import checkpoint as checkpoint_lib
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.checkpoint_read import best_step, list_steps
from tests.train import saver, toy


def state_at(step):
    return saver.state_at(step, columns=4, mesh=toy.mesh_of())


def save(directory, *steps, config, scores):
    checkpoints = Checkpoints(directory, config)
    for step in steps:
        checkpoints.save(state_at(step), host={"step": step}, score=scores[step])
    checkpoints.wait()
    return checkpoints


def test_the_last_and_the_best_are_kept(tmp_path):
    config = toy.replace(toy.CHECKPOINT, keep_last=2, keep_best=1, best_metric="auroc")
    scores = {1: 0.3, 2: 0.1, 3: None, 4: 0.2, 5: 0.5}
    save(tmp_path, 1, 2, 3, 4, 5, config=config, scores=scores)
    assert list_steps(tmp_path) == [2, 4, 5]
    assert best_step(tmp_path, best_is="lowest", metric="auroc") == 2
    assert best_step(tmp_path, best_is="highest", metric="auroc") == 5
    again = Checkpoints(tmp_path, config)
    assert again.among_best(0.09) and not again.among_best(0.1) and not again.among_best(None)


def test_as_many_of_the_best_are_kept_as_asked_for(tmp_path):
    config = toy.replace(toy.CHECKPOINT, keep_last=1, keep_best=3, best_metric="loss")
    scores = {1: 1.0, 2: 0.5, 3: 0.55, 4: 0.9}
    checkpoints = save(tmp_path, 1, 2, config=config, scores=scores)
    assert checkpoints.among_best(9.0)  # there are two yet
    save(tmp_path, 3, 4, config=config, scores=scores)
    assert list_steps(tmp_path) == [2, 3, 4]
    again = Checkpoints(tmp_path, config)
    assert again.among_best(0.89) and not again.among_best(0.9)
    assert not Checkpoints(tmp_path, toy.CHECKPOINT).among_best(0.1)


def test_a_score_counts_for_the_number_alone_that_it_is(tmp_path):
    """A resumed run may choose the best checkpoint by another number."""
    config = toy.replace(toy.CHECKPOINT, keep_last=1, keep_best=1, best_metric="loss")
    save(tmp_path, 1, 2, config=config, scores={1: 5.0, 2: 7.0})
    other = toy.replace(config, best_metric="auroc", best_is="highest")
    assert best_step(tmp_path, best_is="lowest", metric="loss") == 1
    assert best_step(tmp_path, best_is="highest", metric="auroc") is None
    assert Checkpoints(tmp_path, other).among_best(0.1)
    save(tmp_path, 3, 4, config=other, scores={3: 0.6, 4: 0.4})
    assert list_steps(tmp_path) == [3, 4]
    assert best_step(tmp_path, best_is="highest", metric="auroc") == 3


def test_scores_of_evaluations_with_other_settings_do_not_count(tmp_path):
    name = "evaluate_knn_macro_auroc"
    config = toy.replace(toy.CHECKPOINT, keep_best=1, best_metric=name, best_is="highest")
    checkpoints = Checkpoints(tmp_path, config)
    checkpoints.save(state_at(1), host={"evaluate": {"ranks": [1, 5]}}, score=0.9)
    checkpoints.wait()
    for evaluation, counts in (({"ranks": (1, 5)}, True), ({"ranks": (1,)}, False), (None, True)):
        again = Checkpoints(tmp_path, config, evaluation=evaluation)
        assert again.among_best(0.8) != counts
        found = best_step(tmp_path, best_is="highest", metric=name, evaluation=evaluation)
        assert found == (1 if counts else None)


def test_scores_of_earlier_versions_count_for_any_number(tmp_path, monkeypatch):
    pack = checkpoint_lib.pack
    monkeypatch.setattr(
        checkpoint_lib, "pack", lambda d: pack({k: d[k] for k in d.keys() - {"metric"}})
    )
    config = toy.replace(toy.CHECKPOINT, keep_best=1, best_metric="loss")
    save(tmp_path, 1, config=config, scores={1: 0.3})
    assert best_step(tmp_path, best_is="lowest", metric="other") == 1


@pytest.mark.parametrize("best_is", ["lowest", "highest"])
def test_only_a_finite_score_is_better(best_is):
    config = toy.replace(toy.CHECKPOINT, best_is=best_is)
    for score in (None, math.nan, math.inf, -math.inf):
        assert not config.better(score, None) and not config.better(score, 1.0)
    assert config.better(1.0, None)
