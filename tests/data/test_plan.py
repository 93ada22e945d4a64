"""The batch plan: a pure function of seed and step, cheap in padding, each record once."""

import pickle

import numpy as np
import pytest

from prior_jax.data import plan as plan_lib
from prior_jax.errors import ConfigError

COUNTS = np.random.default_rng(0).integers(5, 97, 103).astype(np.int32)
BUCKETS = (16, 32, 48, 64, 80, 96)


def make(**changes):
    values = dict(
        token_counts=COUNTS,
        candidates=np.arange(len(COUNTS)),
        batch_size=8,
        seed=3,
        buckets=BUCKETS,
        window=1,
        shuffle=True,
        drop_last=True,
    )
    return plan_lib.BatchPlan(**(values | changes))


def records(plan, steps):
    return [plan.batch(step).records.tolist() for step in steps]


@pytest.mark.parametrize("window", [1, 4, 100])
def test_an_epoch_holds_every_record_at_most_once_and_all_but_a_rest(window):
    plan = make(window=window)
    assert plan.steps_per_epoch == 12
    for epoch in range(3):
        seen = np.concatenate(records(plan, range(12 * epoch, 12 * epoch + 12)))
        assert len(set(seen.tolist())) == len(seen) == 96
    left_out = [
        set(range(103)) - set(np.concatenate(records(plan, range(12 * e, 12 * e + 12))).tolist())
        for e in range(2)
    ]
    assert left_out[0] != left_out[1]


def test_batches_are_a_function_of_seed_and_step():
    plan = make(window=4)
    wanted = records(plan, range(40))
    order = np.random.default_rng(0).permutation(40)
    other = pickle.loads(pickle.dumps(plan))
    assert [records(other, [int(step)])[0] for step in order] == [wanted[s] for s in order]
    assert records(make(window=4, seed=4), range(12)) != wanted[:12]
    assert wanted[:12] != wanted[12:24]


def test_only_candidates_are_used():
    chosen = np.arange(1, 103, 2)
    plan = make(candidates=chosen, batch_size=5)
    seen = np.concatenate(records(plan, range(plan.steps_per_epoch)))
    assert set(seen.tolist()) <= set(chosen.tolist())


@pytest.mark.parametrize("window", [1, 4])
def test_the_padded_length_is_the_smallest_bucket_that_holds_the_longest(window):
    plan = make(window=window)
    for step in range(plan.steps_per_epoch):
        batch = plan.batch(step)
        longest = COUNTS[batch.records].max()
        assert batch.length == min(b for b in BUCKETS if b >= longest)


def test_a_window_saves_padding_and_leaves_batches_in_random_order():
    cost = {}
    for window in (1, 4):
        plan = make(window=window)
        batches = [plan.batch(step) for step in range(plan.steps_per_epoch)]
        cost[window] = sum(batch.length for batch in batches)
        real = sum(int(COUNTS[batch.records].sum()) for batch in batches) / 8
    assert cost[4] < 0.8 * cost[1]
    assert cost[4] < 1.4 * real
    orders = {
        tuple(np.argsort([make(window=4, seed=s).batch(i).length for i in range(4)]))
        for s in range(6)
    }
    assert len(orders) > 1


def test_in_order_and_filled_up():
    plan = make(shuffle=False, drop_last=False, candidates=np.arange(0, 103, 5))
    assert plan.steps_per_epoch == 3
    flat = np.concatenate(records(plan, range(3)))
    assert flat.tolist() == [*range(0, 103, 5), -1, -1, -1]
    assert plan.batch(2).length == min(b for b in BUCKETS if b >= COUNTS[80:101:5].max())


def test_epochs_are_counted_and_memory_is_bounded():
    plan = make()
    assert [plan.batch(step).epoch for step in (0, 11, 12, 36)] == [0, 0, 1, 3]
    for step in range(0, 12 * 50, 12):
        plan.batch(step)
    assert len(plan._epochs) == 2


def test_chances_of_a_record_differ_by_seed_epoch_and_record_alone():
    def draw(seed, epoch, record):
        return plan_lib.record_rng(seed=seed, epoch=epoch, record=record).integers(1 << 60)

    assert draw(1, 2, 3) == draw(1, 2, 3)
    drawn = {draw(s, e, r) for s in range(4) for e in range(4) for r in range(4)}
    assert len(drawn) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "config.data.batch_size"),
        ({"batch_size": 104}, "104 records.*103 usable records.*103 or less"),
        ({"candidates": np.arange(0)}, "no usable record"),
        ({"seed": -1}, "config.data.seed"),
        ({"seed": 2**32}, "config.data.seed"),
        ({"window": 0}, "config.data.bucket_window"),
        ({"buckets": (32, 64)}, "config.data.buckets.*at least 96"),
        ({"buckets": (64, 32, 96)}, "config.data.buckets"),
        ({"buckets": ()}, "config.data.buckets"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)
