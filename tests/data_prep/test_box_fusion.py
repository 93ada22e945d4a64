"""Fused boxes against the package ensemble-boxes: its numbers, and, where it is there, itself."""

import numpy as np
import pytest

from data_prep.kit import box_fusion
from prior_jax.errors import DataError

# Recorded from ensemble-boxes 1.0.9, weighted_boxes_fusion, in pixels of 128.
RECORDED = [
    (
        [(45, 44, 78, 70), (39, 46, 66, 78), (45, 48, 69, 79), (35, 45, 66, 77), (16, 30, 51, 61)],
        [0.6, 0.82, 0.6, 1.0, 0.98],
        [(16, 30, 51, 61), (38.835, 46.083, 66.744, 77.835), (45, 44, 78, 70)],
    ),
    (
        [
            (11, 14, 42, 48),
            (28, 20, 50, 49),
            (14, 20, 36, 58),
            (14, 20, 50, 47),
            (16, 17, 43, 40),
            (9, 18, 44, 44),
        ],
        None,
        [(28, 20, 50, 49), (14, 20, 36, 58), (12.5, 17.25, 44.75, 44.75)],
    ),
]


def ordered(boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return boxes[np.lexsort(np.round(boxes, 5).T)]


@pytest.mark.parametrize("case", RECORDED)
def test_boxes_equal_those_of_ensemble_boxes(case):
    boxes, scores, expected = case
    found = box_fusion.fused(boxes, scores=scores)
    np.testing.assert_allclose(ordered(found), ordered(expected), atol=1e-3)


def test_boxes_equal_those_of_ensemble_boxes_where_it_is_installed():
    package = pytest.importorskip("ensemble_boxes")
    for seed in range(500):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 15))
        low = rng.uniform(0.1, 0.6, (3, 2))[rng.integers(0, 3, count)]
        low = low + rng.uniform(-0.04, 0.04, (count, 2))
        boxes = np.concatenate([low, low + 0.25 + rng.uniform(-0.08, 0.08, (count, 2))], axis=1)
        scores = rng.uniform(0.1, 1, count) if seed % 2 else np.ones(count)
        expected, _, _ = package.weighted_boxes_fusion(
            [boxes.tolist()], [scores.tolist()], [[0] * count], iou_thr=0.5
        )
        found = box_fusion.fused(boxes.tolist(), scores=scores.tolist())
        np.testing.assert_allclose(ordered(found), ordered(expected), atol=1e-6)


def test_three_readers_of_one_finding_make_their_mean():
    boxes = [(10, 10, 50, 50), (12, 8, 54, 50), (100, 100, 120, 130), (8, 12, 52, 56)]
    found = box_fusion.fused(boxes)
    np.testing.assert_allclose(ordered(found), [[10, 10, 52, 52], [100, 100, 120, 130]])
    assert box_fusion.fused([]) == []


def test_the_overlap_must_be_more_than_the_limit():
    boxes = [(0, 0, 2, 1), (0, 0, 1, 1)]  # their overlap is a half
    assert len(box_fusion.fused(boxes)) == 2
    assert box_fusion.fused(boxes, iou=0.49) == [(0.0, 0.0, 1.5, 1.0)]


@pytest.mark.parametrize("box", [(3, 3, 3, 9), (3, 3, 9, 3), (9, 3, 3, 9), (3, 3, float("nan"), 9)])
def test_boxes_without_area_are_refused_by_name(box):
    with pytest.raises(DataError, match=r"The box \[.*3\.0.*\] has no area"):
        box_fusion.fused([(0, 0, 2, 2), box, box])
