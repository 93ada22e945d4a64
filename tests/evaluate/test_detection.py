"""Average precision of random sets of boxes against COCO's, LoVT's and MGCA's libraries."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from prior_jax.errors import DataError
from prior_jax.evaluate import detection, froc

CLASSES = 3


def random_images(random, *, crowds=False):
    """A few images with equal scores, equal boxes, images without truth or without prediction."""
    images = []
    for _ in range(random.integers(1, 7)):
        truth = boxes_of(random, int(random.integers(0, 6)))
        copies = truth[random.integers(0, len(truth), 3)] if len(truth) else truth
        near = copies + random.integers(-2, 3, copies.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        boxes = np.concatenate([near, boxes_of(random, int(random.integers(0, 4)))])
        if random.random() < 0.2:
            boxes = boxes[:0]
        images.append(
            detection.ImageBoxes(
                truth=truth,
                truth_classes=random.integers(0, CLASSES - 1, len(truth)),  # the last never occurs
                boxes=boxes,
                scores=random.integers(1, 9, len(boxes)) / 8,
                classes=random.integers(0, CLASSES, len(boxes)),
                crowd=random.random(len(truth)) < 0.3 if crowds else None,
            )
        )
    return images


def boxes_of(random, count):
    low = random.integers(0, 20, (count, 2))
    return np.concatenate([low, low + random.integers(1, 14, (count, 2))], axis=1).astype(float)


def ours(images, counting):
    """AP float[O, K] with every image once."""
    weights = np.ones((1, len(images)))
    matches = detection.matched(images, classes=CLASSES, counting=counting)
    columns = [
        detection.average_precision(one, weights=weights, counting=counting)[0] for one in matches
    ]
    return np.stack(columns, axis=1)


def coco(images, counting):
    """The same by pycocotools; NaN for a class without a true box."""
    module = pytest.importorskip("pycocotools.cocoeval")
    from pycocotools.coco import COCO

    truths, results = [], []
    for index, one in enumerate(images):
        crowd = np.zeros(len(one.truth), bool) if one.crowd is None else one.crowd
        for box, name, many in zip(one.truth, one.truth_classes, crowd, strict=True):
            wide, high = box[2:] - box[:2]
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": index,
                    "category_id": int(name) + 1,
                    "bbox": [*box[:2], wide, high],
                    "area": wide * high,
                    "iscrowd": int(many),
                }
            )
        for box, name, score in zip(one.boxes, one.classes, one.scores, strict=True):
            results.append([index, *box[:2], *(box[2:] - box[:2]), score, int(name) + 1])
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": index} for index in range(len(images))],
            "annotations": truths,
            "categories": [{"id": name + 1} for name in range(CLASSES)],
        }
        truth.createIndex()
        if not results:
            found = np.full((len(counting.overlaps), CLASSES), np.nan)
            present = [name for one in images for name in one.truth_classes[no_crowd(one)]]
            found[:, sorted({int(name) for name in present})] = 0.0
            return found
        run = module.COCOeval(truth, truth.loadRes(np.asarray(results, float)), "bbox")
        run.params.iouThrs = np.asarray(counting.overlaps)
        run.evaluate()
        run.accumulate()
    table = run.eval["precision"][:, :, :, 0, -1]  # [O, recalls, K] at all areas, 100 boxes
    return np.where(table.max(axis=1) < 0, np.nan, table.mean(axis=1))


def no_crowd(one):
    return slice(None) if one.crowd is None else ~one.crowd


def lovt(images, counting):
    """The same by mean-average-precision, called as LoVT's release calls it."""
    module = pytest.importorskip("mean_average_precision")
    metric = module.MeanAveragePrecision2d(CLASSES)
    for one in images:
        truth = np.zeros((len(one.truth), 7))
        truth[:, :4], truth[:, 4] = one.truth, one.truth_classes
        # Its sort is unstable, and equal scores are common here: break ties in the images' order.
        metric.add(np.column_stack([one.boxes, one.classes, one.scores]).reshape(-1, 6), truth)
    value = metric.value(
        iou_thresholds=counting.overlaps, recall_thresholds=np.arange(0, 1.01, 0.01), mpolicy="soft"
    )
    return np.asarray(
        [[value[t][name]["ap"] for name in range(CLASSES)] for t in counting.overlaps]
    )


def without_ties(images, random):
    """The images with scores that all differ."""
    count = sum(len(one.boxes) for one in images)
    fresh = iter(random.permutation(count) / max(count, 1))
    return [
        dataclasses.replace(one, scores=np.asarray([next(fresh) for _ in one.scores]))
        for one in images
    ]


SETS = pytest.mark.parametrize("count", [25, pytest.param(500, marks=pytest.mark.slow)])


@SETS
@pytest.mark.parametrize("counting", [detection.COCO, detection.STRICT, detection.MGCA])
def test_equals_pycocotools(count, counting):
    random = np.random.default_rng(count)
    for case in range(count):
        images = random_images(random, crowds=case % 2 == 1)
        kept = images
        if counting.images == "with_both":
            kept = [one for one in images if len(one.truth) and len(one.boxes)]
        np.testing.assert_allclose(ours(images, counting), coco(kept, counting), atol=1e-6)


@SETS
def test_equals_the_library_that_lovt_uses(count):
    random = np.random.default_rng(count)
    for _ in range(count):
        images = without_ties(random_images(random), random)
        np.testing.assert_allclose(
            ours(images, detection.LOVT), lovt(images, detection.LOVT), atol=1e-6
        )


def test_a_weight_counts_an_image_so_often():
    random = np.random.default_rng(3)
    for _ in range(20):
        images = without_ties(random_images(random), random)
        counts = random.integers(0, 3, len(images))
        repeated = [one for one, count in zip(images, counts, strict=True) for _ in range(count)]
        if not repeated:
            continue
        matches = detection.matched(images, classes=CLASSES, counting=detection.STRICT)
        found = [
            detection.average_precision(one, weights=counts[None], counting=detection.STRICT)[0]
            for one in matches
        ]
        np.testing.assert_allclose(
            np.stack(found, axis=1), ours(repeated, detection.STRICT), atol=1e-9
        )
        score = froc.froc(images, weights=counts[None])
        again = froc.froc(repeated, weights=np.ones((1, len(repeated))))
        np.testing.assert_allclose(score, again, atol=1e-9)


def test_mirrored_and_padded_images_count_the_same():
    random = np.random.default_rng(4)
    images = [one for _ in range(6) for one in random_images(random)]

    def mirrored(boxes):
        return np.column_stack([40 - boxes[:, 2], boxes[:, 1], 40 - boxes[:, 0], boxes[:, 3]])

    for change in (mirrored, lambda boxes: boxes + np.asarray([7.0, 3.0, 7.0, 3.0])):
        changed = [
            dataclasses.replace(one, truth=change(one.truth), boxes=change(one.boxes))
            for one in images
        ]
        for counting in (detection.COCO, detection.LOVT, detection.MGCA):
            np.testing.assert_allclose(ours(changed, counting), ours(images, counting), atol=1e-9)
        weights = np.ones((1, len(images)))
        np.testing.assert_allclose(
            froc.froc(changed, weights=weights), froc.froc(images, weights=weights)
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.zeros(1)}, "one score and one class for each box"),
        ({"boxes": np.full((2, 4), np.nan)}, "not finite"),
        (
            {"boxes": np.zeros((2, 3))},
            r"predicted boxes have the shape \[2, 3\].*x1, y1, x2 and y2",
        ),
        ({"truth": np.zeros((1, 3)), "truth_classes": np.zeros(1, int)}, r"true boxes.*\[1, 3\]"),
        ({"classes": np.asarray([0, 7])}, "Number the classes from 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, words):
    good = detection.ImageBoxes(
        truth=np.zeros((0, 4)),
        truth_classes=np.zeros(0, int),
        boxes=np.asarray([[0.0, 0, 1, 1], [0, 0, 2, 2]]),
        scores=np.zeros(2),
        classes=np.zeros(2, int),
    )
    with pytest.raises(DataError, match=words):
        detection.matched([dataclasses.replace(good, **change)], classes=1, counting=detection.COCO)
