"""The columns of detection, their intervals, COCO's own counting, and the file of the boxes."""

import dataclasses
import json

import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import box_file, coco_library, detection_columns, detector, froc
from prior_jax.evaluate.bootstrap import BootstrapConfig
from prior_jax.evaluate.detection import COCO, LOVT, MGCA, STRICT, ImageBoxes
from prior_jax.evaluate.found_boxes import Found, image_boxes, of_classes
from prior_jax.evaluate.results import write_results
from prior_jax.types import Boxes, Detections
from tests.evaluate.test_detection import CLASSES, ours, random_images, without_ties

NAMES = ("Mass", "Pleural Effusion", "Edema")
FEW = BootstrapConfig(resamples=20, confidence=0.9, seed=0)


def random_set(seed, count=12):
    random = np.random.default_rng(seed)
    images = [one for _ in range(count) for one in random_images(random)]
    return without_ties(images, random)


def columns(images, *, classes=NAMES, sensitivity=False):
    statistics = detection_columns.statistics_of(images, classes=classes, sensitivity=sensitivity)
    return {name: float(v[0]) for name, v in statistics(np.ones((1, len(images)))).items()}


def measured(images, *, froc=False, coco="own", classes=NAMES, patients=None):
    found = Found(images=tuple(images), record=np.arange(len(images)), size=(40, 40))
    return detector.evaluate_detector(
        found,
        classes=classes,
        ids=[f"s{index}" for index in range(len(images))],
        patients=np.arange(len(images)) if patients is None else patients,
        config=detector.DetectorConfig(froc=froc, coco=coco),
        resampling=FEW,
    )


def test_each_column_is_its_own_counting():
    images = random_set(0)
    found = columns(images, sensitivity=True)
    every = {"coco_ap": COCO, "map": STRICT, "lovt_map": LOVT, "mgca_map": MGCA}
    tables = {name: ours(images, counting) for name, counting in every.items()}
    for name, table in tables.items():
        np.testing.assert_allclose(found[name], np.nanmean(table), rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(found["coco_ap50"], np.nanmean(tables["coco_ap"][0]))
    np.testing.assert_allclose(found["coco_ap75"], np.nanmean(tables["coco_ap"][5]))
    np.testing.assert_allclose(found["lovt_map50"], tables["lovt_map"][2].mean())
    np.testing.assert_allclose(found["lovt_map75"], tables["lovt_map"][7].mean())
    boxed = [one for one in images if len(one.truth)]
    np.testing.assert_allclose(found["lovt_pos_map"], ours(boxed, LOVT).mean())
    np.testing.assert_allclose(found["map_pleural_effusion"], tables["map"][:, 1].mean())
    np.testing.assert_allclose(found["coco_ap50_mass"], tables["coco_ap"][0, 0])
    assert np.isnan(found["map_edema"]) and CLASSES == len(NAMES)  # the class has no true box
    weights = np.ones((1, len(images)))
    np.testing.assert_allclose(found["froc"], froc.froc(images, weights=weights)[0])
    np.testing.assert_allclose(found["lovt_froc"], froc.froc(images, weights=weights, release=True))
    rates = [found[f"froc_at_{name}"] for name in ("0_125", "0_25", "0_5", "1", "2", "4", "8")]
    np.testing.assert_allclose(np.mean(rates), found["froc"])
    assert rates == sorted(rates)


def test_one_class_has_no_columns_of_its_own():
    images = of_classes(random_set(1), [1])
    found = columns(images, classes=("Mass",))
    assert not [name for name in found if name.endswith("_mass")]


def test_classes_are_chosen_and_numbered_anew():
    images = random_set(2)
    found = columns(of_classes(images, [1, 0]), classes=("Pleural Effusion", "Mass"))
    whole = columns(images)
    for name in ("map_mass", "coco_ap50_pleural_effusion"):
        np.testing.assert_allclose(found[name], whole[name])


def test_intervals_are_over_patients_and_counts_are_given():
    images = random_set(3)
    found = measured(images, froc=True)
    json.dumps(found.settings, allow_nan=False)
    one = found.metrics["map"]
    assert one.low < one.value < one.high
    alone = measured(images, patients=np.zeros(len(images))).metrics["map"]
    assert np.isnan(alone.low)
    settings = found.settings
    boxed = sum(len(one.truth) > 0 for one in images)
    assert settings["images_with_boxes"] == boxed
    assert settings["images_without_boxes"] == len(images) - boxed > 0
    assert sum(settings["predictions"].values()) == sum(len(one.boxes) for one in images)
    assert settings["undefined"]["map_edema"] == "no image has a box of the class"
    assert settings["froc_rates"] == list(froc.RATES)


def nothing():
    return ImageBoxes(
        truth=np.zeros((0, 4)),
        truth_classes=np.zeros(0, int),
        boxes=np.zeros((0, 4)),
        scores=np.zeros(0),
        classes=np.zeros(0, int),
    )


def test_a_detector_that_finds_nothing_has_zeros_and_mgca_s_counting_no_value():
    true = dataclasses.replace(
        nothing(), truth=np.array([[0.0, 0, 4, 4]]), truth_classes=np.zeros(1, int)
    )
    found = measured([true, nothing()], classes=("Mass",))
    assert found.metrics["map"].value == found.metrics["lovt_map"].value == 0
    assert np.isnan(found.metrics["mgca_map"].value)
    assert found.settings["undefined"] == {"mgca_map": "no image has both a box and a prediction"}
    blank = measured([nothing()], classes=("Mass",)).settings["undefined"]
    assert blank["map"] == blank["mgca_map"] == "no image has a box"


@pytest.mark.parametrize("crowds", [False, True])
def test_the_library_counts_as_we_do(crowds):
    pytest.importorskip("faster_coco_eval")
    random = np.random.default_rng(4)
    for _ in range(10):
        images = [one for _ in range(4) for one in random_images(random, crowds=crowds)]
        found = coco_library.precision_of(images, classes=CLASSES)
        own = columns(images)
        for name in coco_library.COLUMNS:
            np.testing.assert_allclose(found[name], own[name], atol=1e-6, err_msg=name)


def test_the_library_is_used_by_its_name():
    pytest.importorskip("faster_coco_eval")
    images = random_set(5)
    own, other = measured(images), measured(images, coco="faster_coco_eval")
    assert other.settings["detector"]["coco"] == "faster_coco_eval"
    for name, one in own.metrics.items():
        np.testing.assert_allclose(other.metrics[name].value, one.value, atol=1e-6)
    with pytest.raises(ConfigError, match="coco"):
        detector.DetectorConfig(froc=False, coco="pycocotools")


def test_boxes_are_kept_beside_the_results(tmp_path):
    images = random_set(6, count=3)
    result = measured(images)
    write_results(tmp_path, task="detection", trained=result, untrained=result, settings={})
    kept = box_file.load(tmp_path / "eval" / "detection.boxes.npz")
    assert kept.classes == NAMES and kept.size == (40, 40) and kept.ids[1] == "s1"
    for one, other in zip(images, kept.images, strict=True):
        for name in ("truth", "truth_classes", "boxes", "scores", "classes"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-6)
    (tmp_path / "eval" / "detection.boxes.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match=r"detection\.boxes\.npz"):
        box_file.load(tmp_path / "eval" / "detection.boxes.npz")


def test_rows_of_a_batch_lose_their_padding():
    real = np.array([[True, False], [True, True], [True, False]])
    corners = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    truth = Boxes(corners=corners, classes=np.zeros((3, 2), np.int32), real=real)
    found = Detections(
        corners=corners,
        classes=np.zeros((3, 2), np.int32),
        scores=np.full((3, 2), 0.5, np.float32),
        real=~real,
        found=np.array([1, 0, 1]),
    )
    rows = image_boxes(found, truth, np.array([1.0, 1.0, 0.0]))
    assert [len(one.truth) for one in rows] == [1, 2]
    assert [len(one.boxes) for one in rows] == [1, 0]
    np.testing.assert_array_equal(rows[0].boxes, corners[0, 1:])
