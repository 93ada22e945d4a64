"""Loss terms on held-out pairs, and the choice of the best checkpoint by any of them."""

import jax
import numpy as np
import pytest

from prior_jax.errors import DataError
from prior_jax.evaluate.validation import Validation
from prior_jax.train.state import define_model
from tests.train import toy


@pytest.fixture(scope="module")
def setup():
    """Validation of the toy objective's second stage, its arrays and two batches."""
    objective, data = toy.ToyObjective(), toy.ToyData()
    model = define_model(objective.init)
    draw = jax.jit(lambda key: model.split(objective.init(toy.nnx.Rngs(key))))
    validation = Validation(objective, model.merge)

    def run(batches):
        return validation(*draw(jax.random.key(0)), batches, stage="second", step=3)

    return run, [data.batch(1), data.batch(2)]


def weighing(batch, pairs):
    weight = np.arange(len(batch.weight)) < pairs
    return toy.replace(batch, weight=weight.astype(np.float32))


def test_every_term_and_the_total_are_given(setup):
    run, batches = setup
    found = run(batches)
    names = {f"validation_{name}_loss" for name in ("contrast", "bank", "total")}
    assert found.keys() == names
    total = found["validation_contrast_loss"] + 0.5 * found["validation_bank_loss"]
    np.testing.assert_allclose(found["validation_total_loss"], total, rtol=1e-6)


def test_batches_count_by_their_pairs(setup):
    run, (one, two) = setup
    first, second = run([one]), run([two])
    both = run([weighing(one, 4), weighing(two, 12)])
    for name, value in both.items():
        np.testing.assert_allclose(value, 0.25 * first[name] + 0.75 * second[name], rtol=1e-5)


def test_a_split_without_pairs_is_refused(setup):
    run, (one, _) = setup
    with pytest.raises(DataError, match="no pair"):
        run([weighing(one, 0)])


@pytest.mark.parametrize("name", ["validation_total_loss", "validation_contrast_loss"])
def test_the_best_checkpoint_is_that_of_the_metric_that_is_named(tmp_path, name):
    objective, held_out = toy.ToyObjective(), [toy.ToyData().batch(1)]
    known = {}

    def evaluate(snapshot):
        validation = known.setdefault("one", Validation(objective, snapshot.model.merge))
        place = dict(stage=snapshot.stage, step=snapshot.step)
        return validation(snapshot.params, snapshot.rest, held_out, **place)

    checkpoint = toy.replace(toy.CHECKPOINT, keep_last=1, keep_best=1, best_metric=name)
    # A rate so high that the loss is not lowest at the end.
    rising = toy.stage("first", 6, schedule="constant", learning_rate=3.0, warmup_steps=5)
    options = toy.options(validate_every=1, checkpoint=checkpoint)
    toy.run(
        tmp_path, objective=objective, stages=(rising,), options=options,
        validate=evaluate,
    )  # fmt: skip
    scores = {line["step"]: line[name] for line in toy.lines(tmp_path)}
    best = min(scores, key=lambda step: scores[step])
    assert best < 6
    assert {int(p.name) for p in (tmp_path / "checkpoints").iterdir()} == {best, 6}
