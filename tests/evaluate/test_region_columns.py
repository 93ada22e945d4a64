"""The columns of segmentation and detection: each has words, a meaning and a range."""

import numpy as np
import pytest

from prior_jax.evaluate import (
    bootstrap,
    detector,
    found_boxes,
    over_seeds,
    region_columns,
    results,
    segmenter,
)
from prior_jax.evaluate.detection import ImageBoxes
from prior_jax.evaluate.mask_file import KeptMasks
from prior_jax.report import tables

CLASSES = ("Lung Lesion", "Edema")
RESAMPLING = bootstrap.BootstrapConfig(resamples=5, confidence=0.95, seed=0)


def segmented(classes=CLASSES):
    counts = np.full((4, len(classes)), 6) + np.arange(4)[:, None]
    kept = KeptMasks(
        both=counts - 3,
        predicted=counts,
        truth=counts + 1,
        record=np.arange(4),
        ids=("a", "b", "c", "d"),
        size=(8, 8),
        classes=classes,
    )
    config = segmenter.SegmenterConfig(threshold=0.5, inclusive=False, release_batch=None)
    return segmenter.evaluate_segmenter(
        kept, patients=np.arange(4), config=config, resampling=RESAMPLING
    )


def detected(classes=CLASSES):
    box = np.array([[2.0, 2.0, 9.0, 9.0]])
    one = ImageBoxes(
        truth=np.repeat(box, len(classes), axis=0),
        truth_classes=np.arange(len(classes)),
        boxes=box,
        scores=np.array([0.5]),
        classes=np.array([0]),
    )
    return detector.evaluate_detector(
        found_boxes.Found(images=(one,) * 4, record=np.arange(4), size=(16, 16)),
        classes=classes,
        ids=("a", "b", "c", "d"),
        patients=np.arange(4),
        config=detector.DetectorConfig(froc=True, coco="own"),
        resampling=RESAMPLING,
    )


@pytest.mark.parametrize("measured", [segmented, detected])
def test_every_column_has_a_meaning_and_lies_between_0_and_1(measured):
    found = measured()
    kind = region_columns.kind_of(found.settings)
    assert kind is not None
    single = [name for name in found.metrics if not name.endswith(("_edema", "_lung_lesion"))]
    told = region_columns.meanings(kind, found.metrics)
    assert set(told) == {name for name in single if not name.startswith("froc_at_")}
    assert all(text.endswith(".") and len(text) < 250 for text in told.values())
    for name in found.metrics:
        assert over_seeds.range_of(name) == (0.0, 1.0), name
    words = [tables.whole_words(name) for name in found.metrics]
    assert len(set(words)) == len(words) and not any("_" in one for one in words)


def test_names_are_words():
    for name, words in (
        ("pixel_dice", "Dice of all pixels"),
        ("pixel_dice_lung_lesion", "Dice of all pixels: lung lesion"),
        ("mdice", "mDice with background"),
        ("miou", "mIoU"),
        ("coco_ap50", "COCO AP at IoU .50"),
        ("coco_ap50_edema", "COCO AP at IoU .50: edema"),
        ("lovt_pos_map50", "LoVT's mAP at IoU .50, images with a box"),
        ("froc_at_0_125", "Sensitivity at 0.125 false boxes an image"),
        ("macro_miou", "Macro mIoU"),
        ("precision_at_5", "Precision at 5"),
    ):
        assert tables.whole_words(name) == words
    assert region_columns.in_words("map_lung_lesion", CLASSES).endswith(": Lung Lesion")
    assert region_columns.in_words("map_other", CLASSES) is None


def test_the_console_says_what_each_column_counts():
    found = segmented(("Edema",))
    lines = results.format_table(found, found).splitlines()
    told = [line for line in lines if line.startswith("mean_dice:")]
    assert len(told) == 1 and "as GLoRIA and MGCA count it" in told[0]
    assert not any(line.startswith("coco_ap:") for line in lines)


def test_the_table_of_a_task_has_all_classes_first_and_single_ones_folded():
    found = detected()
    content = {
        "task": "detection_any_set",
        "metrics": {name: one.to_json() for name, one in found.metrics.items()},
        "untrained": {},
        "settings": dict(found.settings),
    }
    task = tables.task_of(content)
    assert [one.folded for one in task.tables] == [False, True]
    assert [row.name for row in task.tables[0].rows][:3] == ["coco_ap", "coco_ap50", "coco_ap75"]
    assert dict(task.meanings)["MGCA's mAP"].endswith("images cost nothing.")
    (headline,) = tables.headlines([task])
    assert headline[1].name == "coco_ap50"
