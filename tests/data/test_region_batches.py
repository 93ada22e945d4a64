"""Batches of boxes and masks are the same however they are computed."""

import multiprocessing

import pytest

from prior_jax.types import BatchPart
from tests.data.batches import assert_same, assert_shares, take
from tests.data.region_sets import TURNED, targets


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_a_resumed_iterator_goes_on_with_the_same_boxes_and_masks(open_regions, kind):
    split = open_regions(regions=targets(kind, ("A", "B")), augment=TURNED)
    whole = take(split, 9)
    assert_same(take(split, 4, start_step=5), whole[5:])
    again = open_regions(regions=targets(kind, ("A", "B")), augment=TURNED, threads=1)
    assert_same(take(again, 9), whole)
    drawn = [batch.masks if kind == "masks" else batch.boxes.real for _, batch in whole]
    assert sum(int(one.any()) for one in drawn) > 4
    halves = [take(split, 3, part=BatchPart(blocks=(n,), count=2)) for n in range(2)]
    assert_shares(halves, whole[:3])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_workers_give_the_same_boxes_and_masks(open_regions, kind):
    chosen = dict(regions=targets(kind, ("A", "B")), augment=TURNED)
    assert_same(take(open_regions(workers=2, **chosen), 5), take(open_regions(**chosen), 5))
    assert not multiprocessing.active_children()
