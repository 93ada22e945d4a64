"""The drawn masks and boxes: lines lie on the regions, and words say what is seen."""

import dataclasses
import json

import numpy as np
import pytest

from prior_jax.errors import DataError
from prior_jax.evaluate import box_file, mask_file, results
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.box_file import KeptBoxes, ShownImage
from prior_jax.evaluate.detection import ImageBoxes
from prior_jax.evaluate.mask_file import KeptMasks, ShownMasks
from prior_jax.evaluate.pictures import Choice
from prior_jax.evaluate.results import TaskResult
from prior_jax.report import learning_curves, page, region_sheets, suites
from prior_jax.report.region_sheets import Region
from tests.report.pages import RUN, Reader

SIZE = (40, 50)


def grey():
    return np.random.default_rng(0).integers(90, 110, SIZE).astype(np.uint8)


def masks(classes=("Edema", "Mass")):
    """Five images, of which the last has no true mask."""
    truth, predicted = np.zeros((2, 5, *SIZE, len(classes)), bool)
    truth[:4, 10:20, 10:30, 0] = True
    for index in range(5):
        predicted[index, 10 : 20 - index, 10:30, -1 if index == 3 else 0] = True
    kept = KeptMasks(
        both=(truth & predicted).sum(axis=(1, 2)),
        predicted=predicted.sum(axis=(1, 2)),
        truth=truth.sum(axis=(1, 2)),
        record=np.arange(5),
        ids=tuple(f"s{index}" for index in range(5)),
        size=SIZE,
        classes=tuple(classes),
    )
    shown = tuple(
        ShownMasks(choice=one, image=grey(), predicted=predicted[one.index], truth=truth[one.index])
        for one in kept.chosen()
    )
    return dataclasses.replace(kept, shown=shown)


def boxes():
    """Two classes; one image whose box is found, one whose box is missed, one without a box."""

    def one(truth, found, scores):
        return ImageBoxes(
            truth=np.array(truth, np.float32).reshape(-1, 4),
            truth_classes=np.zeros(len(truth), np.int64),
            boxes=np.array(found, np.float32).reshape(-1, 4),
            scores=np.array(scores, np.float32),
            classes=np.zeros(len(found), np.int64),
        )

    box, away = (10.0, 12.0, 30.0, 22.0), (32.0, 30.0, 45.0, 38.0)
    images = (
        one([box], [box, away], [0.9, 0.01]),
        one([box], [away], [0.8]),
        one([], [away], [0.7]),
    )
    kinds = (("best", 0, 1, 2), ("worst", 1, 2, 2), ("best", 2, 1, 1))
    return KeptBoxes(
        images=images,
        record=np.arange(3),
        ids=("s0", "s1", "s2"),
        size=SIZE,
        classes=("Edema", "Mass"),
        threshold=0.5,
        shown=tuple(
            ShownImage(choice=Choice(kind=kind, index=index, rank=rank, count=count), image=grey())
            for kind, index, rank, count in kinds
        ),
    )


def test_lines_run_along_the_edges_and_the_truth_is_broken_under_the_prediction():
    inside = region_sheets.box_inside(np.array([60.0, 72.0, 180.0, 132.0]), (240, 300))
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (72, 131, 60, 179)
    region = Region(inside=inside, number=1, tag="")
    left, right = region_sheets.drawn(grey(), [region], [], tinted=False)
    white = (left == 255).all(axis=2)
    rows, columns = np.nonzero(white)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (71, 132, 59, 180)
    assert white[72, 60:180].all() and white[71, 60:180].all() and not white[80:120, 70:170].any()
    broken = (right == 255).all(axis=2)
    assert not (broken & ~white).any() and 0.3 < broken.sum() / white.sum() < 0.7
    plain, found = region_sheets.drawn(grey(), [], [region], tinted=True)
    assert (plain[..., 0] == plain[..., 1]).all()  # no truth: the image in grey
    blue = found[..., 2].astype(int) < found[..., 0].astype(int) - 20  # the second class is yellow
    assert blue[white].all() and blue[100, 100]
    assert not blue[:60].any() and not blue[:, 200:].any()


def test_a_tag_never_covers_the_tag_of_a_box_with_a_higher_score():
    inside = region_sheets.box_inside(np.array([60.0, 72.0, 180.0, 132.0]), (240, 300))
    boxes = [Region(inside=inside, number=0, tag=tag) for tag in ("0.90", "0.11")]
    first, both = (
        region_sheets.drawn(grey(), [], boxes[:count], tinted=False)[1] for count in (1, 2)
    )
    np.testing.assert_array_equal(first, both)
    away = region_sheets.box_inside(np.array([200.0, 72.0, 280.0, 132.0]), (240, 300))
    bare = Region(inside=away, number=0, tag="")
    tagged = Region(inside=away, number=0, tag="0.11")
    without, beside = (
        region_sheets.drawn(grey(), [], [boxes[0], one], tinted=False)[1] for one in (bare, tagged)
    )
    changed = np.flatnonzero((without != beside).any(axis=(0, 2)))
    assert changed.size and changed.min() >= 195


@pytest.mark.parametrize(
    ("box", "pixels"),
    [((3.0, 4.0, 3.0, 4.0), 1), ((-5.0, -5.0, 2.0, 3.0), 6), ((48.0, 38.0, 90.0, 90.0), 4)],
)
def test_a_box_of_no_area_or_over_the_edge_covers_pixels_of_the_picture(box, pixels):
    assert region_sheets.box_inside(np.array(box), SIZE).sum() == pixels


def test_masks_are_shown_by_dice_with_their_studies_and_in_words():
    kept = masks()
    found = region_sheets.gallery_of_masks(kept)
    (_, best), (_, median), (_, worst), (title, (empty,)) = found.rows
    assert [row[0].origin for row in (best, median, worst)] == ["s0", "s1", "s3"]
    assert best[0].heading == "Best, rank 1 of 4" and best[0].values == "Dice 1"
    assert worst[0].values == "Dice 0" and "by the Dice coefficient" in found.lead
    assert found.key == [(1, "Edema"), (2, "Mass")] and "number beside a region" in found.lead
    assert best[0].truth_alt == (
        "Radiograph of s0 with the truth: 1 mask: Edema at 20 to 60 % of the width and 25 to 50 % "
        "of the height."
    )
    assert "1 mask: Mass at" in worst[0].predicted_alt
    assert title == "Images without a true mask" and empty.origin == "s4"
    assert empty.values == "6 % of the pixels predicted" and "no mask." in empty.truth_alt
    single = region_sheets.gallery_of_masks(masks(classes=("Edema",)))
    assert single.key == [] and "number beside" not in single.lead
    side_by_side = region_sheets.gallery_of_masks(kept, each=1)
    assert [len(row) for _, row in side_by_side.rows] == [3, 1]
    assert region_sheets.gallery_of_masks(dataclasses.replace(kept, shown=())) is None


def test_boxes_are_shown_from_the_threshold_on_with_their_counts():
    found = region_sheets.gallery_of_boxes(boxes())
    (_, (best,)), (_, (worst,)), (title, (empty,)) = found.rows
    assert best.values == "F1 1: 1 found, 0 missed, 0 false"  # the box of score 0.01 is not shown
    assert worst.values == "F1 0: 0 found, 1 missed, 1 false"
    assert "1 box: Edema at 20 to 60 % of the width" in best.predicted_alt
    assert (title, empty.values) == ("Images without a true box", "1 false")
    assert "a score of at least 0.5" in found.lead and "by at least 0.5 (IoU)" in found.lead


def written(folder, name, kept, *, kind):
    metric = {"segmenter": "mean_dice", "detector": "coco_ap50"}[kind]
    one = TaskResult(
        metrics={metric: Interval(value=0.5, low=0.4, high=0.6)},
        settings={"classes": ["Edema"], kind: {}, "finetune": {"fraction": 0.01}},
        kept=kept,
    )
    results.write_results(folder, task=name, trained=one, untrained=one, settings={})
    logged = folder / "finetune" / name / "model" / "metrics.jsonl"
    logged.parent.mkdir(parents=True)
    numbers = {"validation_dice": 0.3, "validation_map": 0.2, "validation_total_loss": 0.7}
    lines = [
        {"step": step, "stage": "finetune", "total_loss": 1 / step, **(numbers if step > 2 else {})}
        for step in range(1, 5)
    ]
    logged.write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    written(folder, "segmentation_any_set", masks(), kind="segmenter")
    written(folder, "detection_any_set", boxes(), kind="detector")
    return folder


def test_the_page_shows_pictures_meanings_and_curves_of_both_tasks(folder):
    reader = Reader(page.write_report(folder, run=RUN).read_text())
    assert reader.unnamed == []
    for shown in (
        "Truth and prediction", "Dice 0.947", "s4", "F1 0: 0 found, 1 missed, 1 false",
        "What the columns count", "as GLoRIA and MGCA count it", "often called mAP@.5",
        "Dice of all pixels, validation", "mAP at IoU .40 to .75, validation",
        "Mean Dice of the images", "COCO AP at IoU .50",
    ):  # fmt: skip
        assert shown in reader.text, shown
    assert len(learning_curves.of_task(folder, "detection_any_set")) == 3
    assert learning_curves.of_task(folder, "deleted") == []


def suite_of(folder, tasks):
    """Writes the parts of a suite, which are segmentations, and its table."""
    for task in tasks:
        written(folder / "suite" / "nih", task, masks(), kind="segmenter")
    (folder / "eval").mkdir()
    rows = [
        {
            "set": "nih", "task": task, "metric": "mean_dice", "by_class": False, "seeds": 1,
            "value": 0.5, "low": 0.4, "high": 0.6, "chance": None, "random": None,
            "random_low": None, "random_high": None,
            "imagenet": None, "imagenet_low": None, "imagenet_high": None,
        }
        for task in tasks
    ]  # fmt: skip
    content = {"model": {}, "parts": [], "rows": rows}
    (folder / "eval" / "suite.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("seeds", "shown"), [(("", "_seed_1"), ""), (("_seed_3", "_seed_4"), "3")])
def test_a_suite_shows_the_first_seed_of_a_training_whatever_its_number(tmp_path, seeds, shown):
    suite_of(tmp_path, [f"segmentation_any_set_1_percent{seed}" for seed in seeds])
    sheet = suites.read(tmp_path).sets[0]
    name = f"Segmentation any set 1 percent{shown and f' seed {shown}'}"
    assert [one[0] for one in sheet.regions] == [one[0] for one in sheet.learning] == [name]
    assert len(sheet.meanings) == 1


def test_a_suite_shows_one_image_of_each_kind_and_its_trainings(tmp_path):
    suite_of(tmp_path, ["segmentation_any_set_1_percent"])
    sheet = suites.read(tmp_path).sets[0]
    ((name, shown),) = sheet.regions
    assert name == "Segmentation any set 1 percent"
    assert [len(row) for _, row in shown.rows] == [3, 1]
    assert [one[0] for one in sheet.learning] == [name] and len(sheet.meanings) == 1
    text = Reader(page.write_report(tmp_path, run=RUN).read_text()).text
    assert f"nih: training of {name}" in text and "Images without a true mask" in text


def test_a_damaged_file_is_named_with_a_remedy(folder, tmp_path):
    for kept, lib in ((masks(), mask_file), (boxes(), box_file)):
        path = tmp_path / "eval" / f"one{lib.SUFFIX}"
        lib.save(path, kept)
        assert region_sheets.load(tmp_path, "one") is not None
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(DataError, match="Delete the file"):
            region_sheets.load(tmp_path, "one")
        path.unlink()
    assert region_sheets.load(tmp_path, "one") is None
