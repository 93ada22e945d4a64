"""A detector on the one training loop: it learns, resumes bit for bit, and spreads over devices."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import box_scores, found_boxes
from prior_jax.evaluate.validation import Validation
from prior_jax.objectives.detection import DetectionObjective
from prior_jax.objectives.on_images import FINE_TUNED, FROZEN
from prior_jax.sharding.rules import Rule
from prior_jax.train.program import Program
from prior_jax.types import Batch, Boxes, Detections
from tests.objectives.test_detection import SIDE, config_of
from tests.train import toy

CONFIG = config_of(classes=("Mass",), encoder_rate=0.5)
STEPS = 4
STAGES = tuple(
    toy.stage(name, STEPS, schedule="constant", warmup_steps=0, learning_rate=1e-2)
    for name in (FROZEN, FINE_TUNED)
)
RULES = (Rule(".*", ()),)


class Squares(toy.ToyData):
    """A bright square on each image, and its box in the first of two slots."""

    def batch(self, step):
        rng, rows = np.random.default_rng([5, step]), self.batch_size
        image = rng.normal(size=(rows, SIDE, SIDE, 1)) * 0.1
        corners = np.zeros((rows, 2, 4))
        for row in range(rows):
            left, top = rng.integers(0, SIDE - 12, 2)
            image[row, top : top + 12, left : left + 12] += 2
            corners[row, 0] = left, top, left + 12, top + 12
        real = np.tile([True, False], (rows, 1))
        real[0] = False  # an image whose square is no finding
        return Batch(
            image=image.astype(np.float32),
            tokens=np.zeros((rows, 3), np.int32),
            token_mask=np.zeros((rows, 3), bool),
            sentence_index=np.full((rows, 3), -1, np.int32),
            sentence_mask=np.zeros((rows, 1), bool),
            labels=np.zeros((rows, 1), np.int8),
            weight=np.ones(rows, np.float32),
            record=(np.arange(rows) + step * rows).astype(np.int32),
            boxes=Boxes(
                corners=(corners * real[..., None]).astype(np.float32),
                classes=np.zeros((rows, 2), np.int32),
                real=real,
            ),
        )


class StopAt(Squares):
    """Raises in place of the batch of one step, as if the machine had died there."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def batch(self, step):
        if step == self.step:
            raise toy.Died
        return super().batch(step)


def go(workdir, *, config=CONFIG, **changes):
    fields = dict(data=Squares(), stages=STAGES, rules=RULES) | changes
    return toy.run(workdir, objective=DetectionObjective(config), **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, go(workdir)


def totals(workdir):
    names = [f"{name}_loss" for name in ("x", "y", "width", "height", "object", "class")]
    return [sum(line[name] for name in names) for line in toy.lines(workdir)]


def test_the_loss_falls(whole):
    losses = totals(whole[0])
    assert len(losses) == 2 * STEPS
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])


@pytest.mark.parametrize("stopped", [pytest.param(2, marks=pytest.mark.slow), STEPS + 2])
def test_a_resumed_run_ends_with_the_same_bits(whole, tmp_path, stopped):
    with pytest.raises(toy.Died):
        go(tmp_path, data=StopAt(stopped))
    found = go(tmp_path)
    toy.assert_same_bits(toy.arrays(found), toy.arrays(whole[1]))
    assert toy.losses(tmp_path) == toy.losses(whole[0])


def initial():
    """Every array of the model before the first step."""
    program = Program(
        objective=DetectionObjective(CONFIG), stages=STAGES, optimizer=toy.OPTIMIZER,
        mesh=toy.mesh_of(), rules=RULES, data_axes=("data",),
    )  # fmt: skip
    state = program.initial(seed=toy.options().seed, values=None)
    return {name: np.asarray(x) for name, x in {**state.params, **state.rest}.items()}


def changed(found, before):
    return {name for name in found if found[name].tobytes() != before[name].tobytes()}


def test_a_frozen_encoder_is_left_as_it_is_and_a_released_one_is_trained(whole, tmp_path):
    found, before = toy.arrays(go(tmp_path, stages=STAGES[:1])), initial()
    assert {name.split("/")[0] for name in changed(found, before)} == {"head"}
    encoder = {name for name in before if name.startswith("image_encoder/")}
    assert encoder <= changed(toy.arrays(whole[1]), before)


@pytest.mark.slow
@pytest.mark.multidevice
def test_eight_devices_make_the_steps_of_one(whole, tmp_path):
    go(tmp_path, devices=8)
    for one, other in zip(toy.lines(whole[0]), toy.lines(tmp_path), strict=True):
        for name in ("x_loss", "object_loss", "grad_norm"):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-3, err_msg=str(one["step"]))


def evaluate(snapshot, batches, config=CONFIG):
    validation = Validation(DetectionObjective(config), snapshot.model.merge)
    return validation(
        snapshot.params, snapshot.rest, batches, stage=snapshot.stage, step=snapshot.step
    )


def test_validation_counts_the_boxes_of_the_whole_pass(whole):
    batches = [Squares().batch(step) for step in (100, 101)]
    filling = dataclasses.replace(batches[1], weight=np.zeros(16, np.float32))
    found = evaluate(whole[1], [*batches, filling])
    assert set(box_scores.NAMES) <= found.keys() and "validation_object_loss" in found
    detect = nnx.jit(DetectionObjective(CONFIG).detect)
    model = whole[1].module()
    parts = [(detect(model, jnp.asarray(b.image)), b.boxes, b.weight) for b in batches]
    wanted = box_scores.precision_of(parts, classes=1)
    for name in box_scores.NAMES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)


def test_true_boxes_as_predictions_are_precise_and_padding_rows_are_not_counted():
    batch = Squares().batch(0)
    truth = batch.boxes
    found = Detections(
        corners=truth.corners,
        classes=truth.classes,
        scores=truth.real.astype(np.float32),
        real=truth.real,
        found=truth.real.sum(axis=1),
    )
    perfect = box_scores.precision_of([(found, truth, batch.weight)], classes=1)
    assert perfect == dict.fromkeys(perfect, 1.0) and set(perfect) == set(box_scores.NAMES)
    wrong = dataclasses.replace(found, corners=found.corners + 200)
    padding = np.zeros_like(batch.weight)
    parts = [(found, truth, batch.weight), (wrong, truth, padding)]
    assert box_scores.precision_of(parts, classes=1) == perfect
    both = box_scores.precision_of([parts[0], (wrong, truth, batch.weight)], classes=1)
    assert all(both[name] < 1 for name in both)


def test_a_pass_without_a_box_has_no_precision(whole):
    batch = Squares().batch(0)
    none = dataclasses.replace(batch.boxes, real=np.zeros_like(batch.boxes.real))
    found = evaluate(whole[1], [dataclasses.replace(batch, boxes=none)])
    assert not set(box_scores.NAMES) & found.keys()


def test_boxes_beyond_the_room_are_refused_and_not_dropped(whole):
    post = dataclasses.replace(CONFIG.post, most_boxes=1, conf_threshold=0.0)
    tight = dataclasses.replace(CONFIG, post=post)
    with pytest.raises(ConfigError, match=r"config\.model\.post\.most_boxes: .*room for 1"):
        evaluate(whole[1], [Squares().batch(0)], config=tight)


def test_damaged_weights_do_not_pass_for_ones_that_find_nothing(whole):
    batch = Squares().batch(0)
    damaged = jnp.full(batch.image.shape, jnp.nan, jnp.float32)
    found = nnx.jit(DetectionObjective(CONFIG).detect)(whole[1].module(), damaged)
    with pytest.raises(DataError, match="NaN or infinity"):
        found_boxes.image_boxes(found, batch.boxes, batch.weight)
