"""The images of a detector that the report shows, and the threshold of their boxes."""

import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sk

from prior_jax.errors import DataError
from prior_jax.evaluate import box_choice, box_file
from prior_jax.evaluate.detection import ImageBoxes, overlap_table


def image(rng, *, true, found, classes=2):
    """Boxes of one size near to places of a grid, of which some overlap by a half."""

    def boxes(count):
        corner = rng.integers(0, 3, (count, 2)) * 12.0 + rng.integers(0, 6, (count, 2))
        return np.concatenate([corner, corner + 10], axis=1)

    return ImageBoxes(
        truth=boxes(true),
        truth_classes=rng.integers(0, classes, true),
        boxes=boxes(found),
        scores=rng.integers(1, 10, found).astype(np.float32) / 10,
        classes=rng.integers(0, classes, found),
    )


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    sizes = [(3, 5), (1, 0), (0, 4), (2, 2), (0, 0), (4, 9), (1, 1), (0, 1), (2, 6), (3, 3)]
    return [image(rng, true=true, found=found) for true, found in sizes]


def paired(one, threshold):
    """Greedy pairing by descending score, one pair of lists for scikit-learn's F1."""
    free, truth, predicted = [True] * len(one.truth), [], []
    for place in np.argsort(-one.scores, kind="stable"):
        if one.scores[place] < np.float32(threshold):
            continue
        overlaps = [
            overlap_table(one.boxes[place : place + 1], one.truth[t : t + 1])[0, 0]
            if free[t] and one.truth_classes[t] == one.classes[place]
            else 0.0
            for t in range(len(one.truth))
        ]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hit = bool(overlaps) and overlaps[best] >= 0.5
        if hit:
            free[best] = False
        truth.append(int(hit))
        predicted.append(1)
    missed = sum(free)
    return truth + [1] * missed, predicted + [0] * missed


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8, 1.0])
def test_f1_of_an_image_is_that_of_scikit_learn(images, threshold):
    counts = box_choice.counts_of(images, threshold=threshold)
    for index, one in enumerate(images):
        if not len(one.truth):
            assert np.isnan(counts.f1[index])
            assert counts.false[index] == (one.scores >= np.float32(threshold)).sum()
            continue
        expected = sk.f1_score(*paired(one, threshold), zero_division=0.0)
        np.testing.assert_allclose(counts.f1[index], expected)
        assert counts.found[index] + counts.missed[index] == len(one.truth)


def test_no_other_threshold_has_a_better_f1_of_all_images(images):
    def score(threshold):
        lists = [paired(one, threshold) for one in images]
        return sk.f1_score(*(np.concatenate([one[k] for one in lists]) for k in (0, 1)))

    every = np.unique(np.concatenate([one.scores for one in images]))
    scores = {float(t): score(t) for t in every}
    best = max(scores.values())
    assert box_choice.threshold_of(images) == max(t for t, s in scores.items() if s == best)
    assert best > min(scores.values())


def test_without_a_right_box_the_threshold_lets_none_through():
    rng = np.random.default_rng(1)
    away = image(rng, true=2, found=3)
    away = dataclasses.replace(away, boxes=away.boxes + 500)
    assert box_choice.threshold_of([away]) == box_choice.threshold_of([]) == 1.0


def test_images_without_a_true_box_come_after_the_others(images):
    choices = box_choice.choose_images(images, threshold=0.5)
    boxed = [len(images[one.index].truth) > 0 for one in choices]
    assert boxed == sorted(boxed, reverse=True) and boxed.count(False) == 3
    counts = box_choice.counts_of(images, threshold=0.5)
    kinds = {one.kind: one for one in choices[: boxed.count(True)][::-1]}
    assert counts.f1[kinds["best"].index] == np.nanmax(counts.f1)
    assert counts.f1[kinds["worst"].index] == np.nanmin(counts.f1)
    empty = {one.kind: counts.false[one.index] for one in choices[boxed.count(True) :]}
    assert empty["best"] <= empty["median"] <= empty["worst"] and empty["worst"] > 0
    assert {one.count for one in choices} == {7, 3}


def test_boxes_and_images_come_back_from_their_file(images, tmp_path):
    choices = box_choice.choose_images(images, threshold=0.5)
    kept = box_file.KeptBoxes(
        images=tuple(images),
        record=np.arange(len(images)),
        ids=tuple(f"s{index}" for index in range(len(images))),
        size=(40, 44),
        classes=("Edema", "Mass"),
        threshold=0.5,
        shown=tuple(
            box_file.ShownImage(choice=one, image=np.full((40, 44), one.index, np.uint8))
            for one in choices
        ),
    )
    path = tmp_path / "one.boxes.npz"
    box_file.save(path, kept)
    read = box_file.load(path)
    assert (read.ids, read.size, read.threshold) == (kept.ids, kept.size, 0.5)
    for one, other in zip(read.shown, kept.shown, strict=True):
        assert one.choice == other.choice
        np.testing.assert_array_equal(one.image, other.image)
    for one, other in zip(read.images, images, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.truth_classes, other.truth_classes)
    none = dataclasses.replace(kept, shown=())
    box_file.save(path, none)
    assert box_file.load(path).shown == ()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="boxes of the detector cannot be read"):
        box_file.load(path)
