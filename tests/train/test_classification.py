"""A classifier on the one training loop: it learns, resumes bit for bit, and leaves the frozen."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.evaluate.class_scores import AUROC
from prior_jax.evaluate.validation import Validation
from prior_jax.nn.classification_head import HeadConfig
from prior_jax.objectives.classification import ClassificationObjective
from prior_jax.objectives.on_images import FINE_TUNED, FROZEN
from prior_jax.sharding.rules import Rule
from prior_jax.train.patience import EarlyStoppingConfig
from prior_jax.train.program import Program
from prior_jax.types import Batch
from tests.objectives.test_classification import LABELS, SIDE, config_of
from tests.train import toy

CONFIG = config_of(
    head=HeadConfig(kind="mlp", hidden=8, dropout=0.1), encoder_rate=0.5, layer_decay=0.8
)
STEPS = 6
STAGES = tuple(
    toy.stage(name, STEPS, schedule="constant", warmup_steps=0, learning_rate=3e-2)
    for name in (FROZEN, FINE_TUNED)
)
RULES = (Rule(".*", ()),)


class Images(toy.ToyData):
    """Images whose brightness on the left and on the right are the labels of two classes."""

    def batch(self, step):
        rng, rows = np.random.default_rng([3, step]), self.batch_size
        present = rng.integers(0, 2, (rows, 2))
        image = rng.normal(size=(rows, SIDE, SIDE, 1)) * 0.3
        image[:, :, : SIDE // 2] += present[:, 0, None, None, None]
        image[:, :, SIDE // 2 :] -= present[:, 1, None, None, None]
        labels = np.full((rows, len(LABELS)), -2)
        labels[:, LABELS.index("Pneumonia")] = present[:, 0]
        labels[:, LABELS.index("Edema")] = np.where(rng.random(rows) < 0.1, -1, present[:, 1])
        return Batch(
            image=image.astype(np.float32),
            tokens=np.zeros((rows, 3), np.int32),
            token_mask=np.zeros((rows, 3), bool),
            sentence_index=np.full((rows, 3), -1, np.int32),
            sentence_mask=np.zeros((rows, 1), bool),
            labels=labels.astype(np.int8),
            weight=np.ones(rows, np.float32),
            record=(np.arange(rows) + step * rows).astype(np.int32),
        )


class StopAt(Images):
    """Raises in place of the batch of one step, as if the machine had died there."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def batch(self, step):
        if step == self.step:
            raise toy.Died
        return super().batch(step)


def objective_of(config=CONFIG):
    return ClassificationObjective(config, labels=LABELS)


def go(workdir, *, config=CONFIG, **changes):
    fields = dict(data=Images(), stages=STAGES, rules=RULES) | changes
    return toy.run(workdir, objective=objective_of(config), **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, go(workdir)


def test_the_loss_falls(whole):
    losses = [line["classification_loss"] for line in toy.lines(whole[0])]
    assert len(losses) == 2 * STEPS
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.parametrize("stopped", [3, STEPS + 3])
def test_a_resumed_run_ends_with_the_same_bits(whole, tmp_path, stopped):
    with pytest.raises(toy.Died):
        go(tmp_path, data=StopAt(stopped))
    found = go(tmp_path)
    toy.assert_same_bits(toy.arrays(found), toy.arrays(whole[1]))
    assert toy.losses(tmp_path) == toy.losses(whole[0])


def initial():
    """Every array of the model before the first step."""
    program = Program(
        objective=objective_of(), stages=STAGES, optimizer=toy.OPTIMIZER,
        mesh=toy.mesh_of(), rules=RULES, data_axes=("data",),
    )  # fmt: skip
    state = program.initial(seed=toy.options().seed, values=None)
    return {name: np.asarray(x) for name, x in {**state.params, **state.rest}.items()}


def changed(found, before):
    return {name for name in found if found[name].tobytes() != before[name].tobytes()}


def test_a_frozen_encoder_is_left_as_it_is(tmp_path):
    found, before = toy.arrays(go(tmp_path, stages=STAGES[:1])), initial()
    assert found.keys() == before.keys()
    moved = changed(found, before)
    assert moved and {name.split("/")[0] for name in moved} == {"head"}
    assert "head/classifier/kernel" in moved


def test_the_statistics_of_a_frozen_encoder_drift_where_they_are_to(tmp_path):
    config = dataclasses.replace(CONFIG, drifting_statistics=True)
    found, before = toy.arrays(go(tmp_path, config=config, stages=STAGES[:1])), initial()
    moved = {name for name in changed(found, before) if name.startswith("image_encoder/")}
    assert moved and all(name.rsplit("/", 1)[-1] in ("mean", "var") for name in moved)


def test_fine_tuning_trains_the_encoder(whole):
    encoder = {name for name in initial() if name.startswith("image_encoder/")}
    assert encoder <= changed(toy.arrays(whole[1]), initial())


def test_the_batch_may_be_spread_over_devices(whole, tmp_path):
    go(tmp_path, devices=4)
    for one, other in zip(toy.lines(whole[0]), toy.lines(tmp_path), strict=True):
        for name in ("classification_loss", "grad_norm"):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, err_msg=str(one["step"]))


def test_a_rate_of_its_own_scales_the_first_update_of_a_parameter(tmp_path):
    """Adam's first update does not depend on the gradient's size: it shows the rate."""
    stages = (toy.stage(FINE_TUNED, 1, schedule="constant", warmup_steps=0, weight_decay=0.0),)
    config = config_of(encoder_rate=0.1)
    moved = {}
    for name, value in (("own", config), ("shared", config_of())):
        found = toy.arrays(go(tmp_path / name, config=value, stages=stages))
        moved[name] = found
    start = {n: x for n, x in moved_from(stages).items()}
    for name in ("image_encoder/resnet/stem_conv/kernel", "head/classifier/kernel"):
        own, shared = (moved[kind][name] - start[name] for kind in ("own", "shared"))
        factor = 0.1 if name.startswith("image_encoder") else 1.0
        np.testing.assert_allclose(own, factor * shared, rtol=1e-3, atol=1e-6)


def moved_from(stages):
    program = Program(
        objective=objective_of(config_of()), stages=stages, optimizer=toy.OPTIMIZER,
        mesh=toy.mesh_of(), rules=RULES, data_axes=("data",),
    )  # fmt: skip
    return {
        name: np.asarray(value)
        for name, value in program.initial(seed=toy.options().seed, values=None).params.items()
    }


def evaluation(objective, batches):
    known = {}

    def evaluate(snapshot):
        validation = known.setdefault("one", Validation(objective, snapshot.model.merge))
        return validation(
            snapshot.params, snapshot.rest, batches, stage=snapshot.stage, step=snapshot.step
        )

    return evaluate


def test_validation_gives_the_area_by_which_the_best_is_kept_and_training_stops(tmp_path):
    import sklearn.metrics

    objective, batches = objective_of(), [Images().batch(step) for step in (100, 101)]
    checkpoint = dataclasses.replace(
        toy.CHECKPOINT, keep_best=1, best_metric=AUROC, best_is="highest"
    )
    stopping = EarlyStoppingConfig(metric=AUROC, patience=50, mode="max", min_delta=0.0)
    options = toy.options(validate_every=3, checkpoint=checkpoint, early_stopping=stopping)
    final = toy.run(
        tmp_path, objective=objective, data=Images(), stages=STAGES, rules=RULES,
        options=options, validate=evaluation(objective, batches),
    )  # fmt: skip
    found = [line for line in toy.lines(tmp_path) if AUROC in line]
    assert len(found) == 4
    assert "validation_classification_loss" in found[0]
    model = final.module()
    odds = np.concatenate([objective.classify(model, jnp.asarray(b.image)) for b in batches])
    labels = jnp.asarray(np.concatenate([b.labels for b in batches]))
    target, known = (np.asarray(part) for part in objective.targets(labels))
    areas = [
        sklearn.metrics.roc_auc_score(target[known[:, k] > 0, k], odds[known[:, k] > 0, k])
        for k in range(odds.shape[1])
    ]
    np.testing.assert_allclose(found[-1][AUROC], np.mean(areas), rtol=1e-6)


def test_a_class_without_both_states_leaves_the_area_out(tmp_path):
    batch = Images().batch(0)
    absent = batch.replace(labels=np.zeros_like(batch.labels))
    objective = objective_of()
    go_on = evaluation(objective, [absent])
    program = go(tmp_path, stages=STAGES[:1])
    assert AUROC not in go_on(program)
