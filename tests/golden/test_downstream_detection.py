"""mAP in the three countings and FROC against LoVT's, MGCA's and COCO's own code."""

import dataclasses

import numpy as np
import pytest

from prior_jax.evaluate import detection, froc
from tests.golden import reader

pytestmark = pytest.mark.golden

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return reader.load_json(golden_dir, "downstream", "detection_metrics")


def corners(boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def images_of(recorded, case):
    multi = case == "multi"
    found = []
    for one in recorded["images"]:
        boxes, truth = corners(one["pred_boxes_xywh"]), corners(one["gt_boxes_xywh"])
        found.append(
            detection.ImageBoxes(
                truth=truth,
                truth_classes=np.asarray(
                    one["gt_classes_multi"] if multi else [0] * len(truth), int
                ),
                boxes=boxes,
                scores=np.asarray(one["pred_scores_ties" if case == "ties" else "pred_scores"]),
                classes=np.asarray(one["pred_classes_multi"] if multi else [0] * len(boxes), int),
            )
        )
    return found


def classes_of(recorded, case):
    return recorded["config"]["multi_num_classes"] if case == "multi" else 1


def table(images, counting, *, classes):
    """AP float[O, K] of all images."""
    weights = np.ones((1, len(images)))
    matches = detection.matched(images, classes=classes, counting=counting)
    columns = [
        detection.average_precision(one, weights=weights, counting=counting)[0] for one in matches
    ]
    return np.stack(columns, axis=1)


def out(recorded, *names):
    """The entry below these names, which the file nests or joins by "/"."""
    found = recorded
    for name in ("out", *names):
        found = found[name]
    return found


@pytest.mark.parametrize("case", ["unique", "ties", "multi"])
@pytest.mark.parametrize("which", ["lovt", "lovt_pos"])
def test_lovt(recorded, case, which):
    images = images_of(recorded, case)
    counting = detection.LOVT
    if which == "lovt_pos":
        counting = dataclasses.replace(counting, images="with_truth")
    found = table(images, counting, classes=classes_of(recorded, case))
    expected = out(recorded, case, which)
    if case == "ties":  # its sort is unstable; the file says what a stable one gives
        stable = expected["stable_sort"]
        assert abs(found.mean() - stable["mAP"]) <= TOLERANCE
        np.testing.assert_allclose(found.mean(axis=0), stable["class_mAP"], atol=TOLERANCE)
        return
    np.testing.assert_allclose(found.T, expected["ap_per_iou"], atol=TOLERANCE)
    assert abs(found.mean() - expected["mAP"]) <= TOLERANCE
    assert abs(found[2].mean() - expected["mAP@0.5"]) <= TOLERANCE


@pytest.mark.parametrize("case", ["unique", "ties", "multi"])
def test_coco(recorded, case):
    images = images_of(recorded, case)
    classes = classes_of(recorded, case)
    for name, counting in (
        ("coco", detection.COCO),
        ("coco_iou40_75", detection.STRICT),
        ("coco_mgca_images", detection.MGCA),
    ):
        if name not in out(recorded, case):
            continue
        expected = out(recorded, case, name)
        found = table(images, counting, classes=classes)
        whole = np.where(np.isnan(found), -1.0, found)  # COCO writes -1 for an undefined AP
        np.testing.assert_allclose(whole, expected["ap_per_iou_and_class"], atol=TOLERANCE)
        assert abs(np.nanmean(found) - expected["mean_over_iou"]) <= TOLERANCE


@pytest.mark.parametrize("case", ["unique", "ties"])
def test_mgca_drops_images(recorded, case):
    images = images_of(recorded, case)
    expected = out(recorded, case, "mgca_torchmetrics_1_9_0", "all_images")
    kept = [index for index, one in enumerate(images) if len(one.truth) and len(one.boxes)]
    assert kept == expected["images_kept"]
    found = table(images, detection.MGCA, classes=1)
    assert abs(found.mean() - expected["map"]) <= TOLERANCE


@pytest.mark.parametrize("case", ["unique", "ties"])
def test_froc(recorded, case):
    images = images_of(recorded, case)
    weights = np.ones((1, len(images)))
    default = recorded["config"]["froc_fps_default"]
    assert tuple(default) == froc.RATES
    for name, rates in (
        ("lovt_froc", default),
        ("lovt_froc_custom", recorded["config"]["froc_fps_custom"]),
    ):
        found = froc.froc(images, weights=weights, rates=rates, release=True)
        assert abs(found[0] - out(recorded, case, name)) <= TOLERANCE
    for rate, value in zip(
        default, out(recorded, case, "lovt_froc_one_rate_at_a_time"), strict=True
    ):
        for release in (False, True):
            found = froc.froc(images, weights=weights, rates=(rate,), release=release)
            assert abs(found[0] - value) <= TOLERANCE, (rate, release)


def test_froc_of_small_sets(recorded):
    images, cases = images_of(recorded, "unique"), out(recorded, "froc_cases")
    empty = np.zeros(0)
    silent = [
        dataclasses.replace(one, boxes=np.zeros((0, 4)), scores=empty, classes=empty.astype(int))
        for one in images
    ]
    for name, given in (("no_predictions", silent), ("first_5_images", images[:5])):
        found = froc.froc(given, weights=np.ones((1, len(given))), release=True)
        assert abs(found[0] - cases[name]) <= TOLERANCE, name
    negatives = [one for one in images if not len(one.truth)]
    assert np.isnan(froc.froc(negatives, weights=np.ones((1, len(negatives))))).all()
