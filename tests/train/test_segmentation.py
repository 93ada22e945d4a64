"""Segmentation on the one training loop: it learns, resumes bit for bit, and may be spread out."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.evaluate import mask_scores, segmentation
from prior_jax.evaluate.validation import Validation
from prior_jax.objectives.on_images import FINE_TUNED, FROZEN
from prior_jax.objectives.segmentation import SegmentationObjective
from tests.objectives.test_segmentation import batch_of, config_of
from tests.train import toy
from tests.train.test_classification import RULES

CONFIG = config_of(encoder_rate=0.5)
STEPS = 4
STAGES = tuple(
    toy.stage(name, STEPS, schedule="constant", warmup_steps=0, learning_rate=1e-2)
    for name in (FROZEN, FINE_TUNED)
)


class Squares(toy.ToyData):
    """Images with a bright square, which is to be found."""

    def __init__(self, *, stop=None):
        super().__init__(batch_size=8)
        self.stop = stop

    def batch(self, step):
        if step == self.stop:
            raise toy.Died
        found = batch_of(self.batch_size, seed=step)
        return found.replace(record=found.record + step * self.batch_size)


def go(workdir, **changes):
    fields = dict(data=Squares(), stages=STAGES, rules=RULES) | changes
    return toy.run(workdir, objective=SegmentationObjective(CONFIG), **fields)


def evaluation(batches):
    objective, known = SegmentationObjective(CONFIG), {}

    def evaluate(snapshot):
        validation = known.setdefault("one", Validation(objective, snapshot.model.merge))
        return validation(
            snapshot.params, snapshot.rest, batches, stage=snapshot.stage, step=snapshot.step
        )

    return evaluate


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that keeps the checkpoint of the best Dice, and the batches of its validation."""
    workdir, batches = tmp_path_factory.mktemp("whole"), [Squares().batch(n) for n in (100, 101)]
    batches[1] = batches[1].replace(weight=jnp.asarray([1.0] * 5 + [0.0] * 3))
    best = dataclasses.replace(
        toy.CHECKPOINT, keep_best=1, best_metric=mask_scores.DICE, best_is="highest"
    )
    options = toy.options(validate_every=2 * STEPS, checkpoint=best)
    return workdir, go(workdir, options=options, validate=evaluation(batches)), batches


def test_the_loss_falls_and_the_frozen_encoder_is_released(whole):
    losses = [line["segmentation_loss"] for line in toy.lines(whole[0])]
    assert len(losses) == 2 * STEPS and np.mean(losses[-2:]) < np.mean(losses[:2])


def test_validation_counts_the_pixels_of_real_rows_in_each_paper_s_way(whole):
    workdir, final, batches = whole
    line = toy.lines(workdir)[-1]
    objective, model = SegmentationObjective(CONFIG), final.module()
    odds = np.concatenate([objective.segment(model, one.image) for one in batches])
    truth, weight = (
        np.concatenate([getattr(one, name) for one in batches]) for name in ("masks", "weight")
    )
    odds, truth, wanted = odds[weight > 0], truth[weight > 0], []
    for k in range(truth.shape[-1]):
        counts = segmentation.mask_counts(1 / (1 + np.exp(-odds[..., k])), truth[..., k])
        one = np.ones((1, len(odds)))
        wanted.append(
            [
                segmentation.pixel_scores(counts, weights=one)["dice"][0],
                segmentation.image_dice(counts, weights=one)[0],
                segmentation.with_background(counts, weights=one)["mdice"][0],
            ]
        )
    found = [line[name] for name in mask_scores.NAMES]
    np.testing.assert_allclose(found, np.mean(wanted, axis=0), rtol=1e-5)


def test_a_split_without_a_mask_has_no_dice(whole):
    _, final, batches = whole
    empty = batches[0].replace(masks=jnp.zeros_like(batches[0].masks))
    found = evaluation([empty])(final)
    assert "validation_segmentation_loss" in found and mask_scores.DICE not in found


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    wanted = go(tmp_path / "whole")
    for stopped in (2, STEPS + 2):
        workdir = tmp_path / str(stopped)
        with pytest.raises(toy.Died):
            go(workdir, data=Squares(stop=stopped))
        toy.assert_same_bits(toy.arrays(go(workdir)), toy.arrays(wanted))
        assert toy.losses(workdir) == toy.losses(tmp_path / "whole")


@pytest.mark.slow
def test_the_batch_may_be_spread_over_eight_devices(whole, tmp_path):
    go(tmp_path, devices=8)
    for one, other in zip(toy.lines(whole[0]), toy.lines(tmp_path), strict=True):
        for name in ("segmentation_loss", "grad_norm"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3, err_msg=str(one["step"]))
