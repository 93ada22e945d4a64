"""Non-maximum suppression against a plain loop over the boxes."""

import functools

import jax
import numpy as np
import pytest

from prior_jax.nn.nms import non_maximum_suppression


def overlap_of(one, other):
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = np.prod(np.maximum(sides, np.float32(0)))
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return both / (areas[0] + areas[1] - both + np.float32(1e-16))


def plain_loop(boxes, scores, classes, *, least, overlap):
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if scores[index] < least:
            continue
        same = [other for other in kept if classes[other] == classes[index]]
        if all(overlap_of(boxes[other], boxes[index]) < overlap for other in same):
            kept.append(index)
    return sorted(kept)


def random_sets(count, *, seed, rows=12):
    """Boxes on a coarse grid, with many equal scores, equal boxes and empty ones."""
    random = np.random.default_rng(seed)
    low = random.integers(0, 12, (count, rows, 2))
    size = random.integers(0, 8, (count, rows, 2))
    boxes = np.concatenate([low, low + size], axis=-1).astype(np.float32)
    scores = random.integers(0, 9, (count, rows)).astype(np.float32) / 8
    return boxes, scores, random.integers(0, 3, (count, rows)).astype(np.int32)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_equals_a_plain_loop(count):
    boxes, scores, classes = random_sets(count, seed=count)
    suppress = functools.partial(non_maximum_suppression, least_score=0.25, overlap=0.3)
    kept = np.asarray(jax.jit(suppress)(boxes, scores, classes))
    for image in range(count):
        expected = plain_loop(boxes[image], scores[image], classes[image], least=0.25, overlap=0.3)
        assert np.flatnonzero(kept[image]).tolist() == expected, image


def test_an_image_without_a_box_above_the_threshold_keeps_none():
    boxes, scores, classes = random_sets(4, seed=0)
    kept = non_maximum_suppression(boxes, 0 * scores, classes, least_score=0.1, overlap=0.5)
    assert not np.asarray(kept).any()
