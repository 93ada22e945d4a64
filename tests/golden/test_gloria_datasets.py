"""Labels, selections and splits of CheXpert, RSNA and SIIM against the authors' code."""

import csv
import io
import json
import re

import numpy as np
import pytest

from data_prep import chexpert_table, rsna, siim
from data_prep.kit.splits import SPLITS
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden

RECORDED = {"train": "train", "validate": "valid", "test": "test"}
VALUES = {"1": 1.0, "0": 0.0, "u": -1.0, "n": np.nan}
META = ("Path", "Frontal/Lateral")


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load_json(golden_dir, "gloria", "datasets")


@pytest.fixture(scope="module")
def small(recorded):
    """Names, labels and views of the table of a few rows."""
    table = recorded["chexpert_uncertain"]
    names = [name for name in table["columns"] if name not in META]
    places = [table["columns"].index(name) for name in names]
    rows = table["rows_in"]
    labels = np.array([[row[place] for place in places] for row in rows], np.float64)
    frontal = np.array([row[table["columns"].index(META[1])] == "Frontal" for row in rows])
    return names, labels, frontal


@pytest.fixture(scope="module")
def large(recorded):
    """Names, labels and views of the table that 5x200 is drawn from."""
    table = recorded["chexpert5x200"]
    (key,) = (key for key in table if key.startswith("labels_row_major"))
    labels = np.array([VALUES[value] for value in table[key]]).reshape(table["n_rows"], -1)
    frontal = np.array([view == "F" for view in table["frontal"]])
    return table["columns"], labels, frontal


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_uncertain_labels_equal_the_release(recorded, small):
    table, (names, labels, frontal) = recorded["chexpert_uncertain"], small
    assert table["mapping"] == chexpert_table.UNCERTAIN
    kept = np.flatnonzero(frontal)
    assert kept.tolist() == table["rows_kept"]
    mapped = chexpert_table.mapped_labels(labels, names=names)[kept]
    tasks = [names.index(name) for name in table["competition_tasks"]]
    assert mapped[:, tasks].tolist() == table["y"]
    for name, values in table["other_columns_after"].items():
        assert mapped[:, names.index(name)].tolist() == values


def test_a_fraction_of_the_training_rows_equals_the_release(recorded, small):
    (key,) = (key for key in recorded if key.startswith("chexpert_frac"))
    fraction, seed = re.fullmatch(r"chexpert_frac([\d.]+)_numpy_seed(\d+)_rows", key).groups()
    drawn = chexpert_table.training_rows(
        small[2],
        fraction=float(fraction),
        rng=np.random.RandomState(int(seed)),
        mode="release",
    )
    assert drawn.tolist() == recorded[key]


def draw_5x200(recorded, large, rng):
    names, labels, frontal = large
    count = len(recorded["chexpert5x200"]["selected_rows_in_order"]) // len(
        chexpert_table.UNCERTAIN
    )
    return chexpert_table.draw_5x200(
        labels, names=names, frontal=frontal, rng=rng, mode="release", count=count
    )


def test_5x200_equals_the_release(recorded, large):
    table, (names, labels, frontal) = recorded["chexpert5x200"], large
    found = chexpert_table.candidates_5x200(labels, names=names, frontal=frontal, mode="release")
    expected = table["candidates_per_class"]
    assert {name: rows.tolist() for name, rows in found.items()} == expected
    drawn = draw_5x200(recorded, large, np.random.RandomState(table["numpy_seed"]))
    assert drawn.tolist() == table["selected_rows_in_order"]
    no_finding = labels[drawn, names.index(chexpert_table.NO_FINDING)] == 1
    assert no_finding.sum() == table["n_with_no_finding_1_selected"]


def test_the_mixed_up_chexpert_split_equals_the_release(recorded, large):
    table = recorded["chexpert_split"]
    rng = np.random.RandomState(table["numpy_seed"])
    test = draw_5x200(recorded, large, rng)
    rows = len(large[1])
    train, validate = chexpert_table.split_as_released(
        rows, test=test, count=table["valid_num_patched_to"], rng=rng
    )
    assert validate.tolist() == table["valid_rows"]
    counts = {"n_train": len(train), "n_valid": len(validate), "n_5x200": len(test)}
    counts["train_valid_overlap"] = len(np.intersect1d(train, validate))
    counts["train_test_overlap"] = len(np.intersect1d(train, test))
    counts["in_neither"] = len(np.setdiff1d(np.arange(rows), [*train, *validate, *test]))
    assert counts == {name: table[name] for name in counts}


def test_rsna_boxes_and_splits_equal_the_release(recorded):
    table = recorded["rsna"]
    patients = rsna.patients(rows_of(table["csv_in"]))
    for name, positions in rsna.drawn_splits(patients).items():
        got = [
            [p.patient_id, [list(box) for box in p.boxes] or None, p.target]
            for p in (patients[position] for position in positions)
        ]
        expected = [
            [patient, boxes if boxes is None else json.loads(boxes), target]
            for patient, boxes, target, _ in table[RECORDED[name]]
        ]
        assert got == expected, name


@pytest.fixture(scope="module")
def siim_splits(recorded):
    found = siim.annotations(rows_of(recorded["siim"]["csv_in"]))
    drawn = siim.drawn_splits(found, mode="release")
    return {name: [found[position] for position in drawn[name]] for name in SPLITS}


def test_siim_splits_equal_the_release_and_leak(recorded, siim_splits):
    table = recorded["siim"]
    for name, rows in siim_splits.items():
        expected = [[image, rle.strip(), target] for image, rle, target in table[RECORDED[name]]]
        assert [[row.image_id, row.rle, row.target] for row in rows] == expected, name
    images = {name: {row.image_id for row in rows} for name, rows in siim_splits.items()}
    assert sorted(images["train"] & images["test"]) == table["image_ids_in_both_train_and_test"]
    leaked = table["image_ids_in_both_train_and_valid"]
    assert sorted(images["train"] & images["validate"]) == leaked
    ids = list(dict.fromkeys(row.image_id for row in siim_splits["test"]))
    assert ids == recorded["siim_test_imgids"]


def test_siim_samples_for_segmentation_equal_the_release(recorded, siim_splits):
    name = "siim_segmentation_train"
    expected = recorded[name]
    rng = np.random.RandomState(expected["numpy_seed"])
    images = siim.balanced_images(siim_splits["train"], rng=rng)
    assert images == expected["imgids"] and len(images) == 2 * expected["n_pos"]
    (key,) = (key for key in recorded if key.startswith(f"{name}_frac"))
    rng = np.random.RandomState(recorded[key]["numpy_seed"])
    images = siim.balanced_images(siim_splits["train"], rng=rng)
    fraction = float(key.removeprefix(f"{name}_frac"))
    assert siim.part_of_images(images, fraction=fraction, rng=rng) == recorded[key]["imgids"]
