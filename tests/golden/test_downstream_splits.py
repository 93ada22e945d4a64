"""Published splits of RSNA, SIIM, CheXpert and COVIDx against the lists of the authors' code."""

import zlib

import numpy as np
import pytest

from data_prep import chexpert_splits, chexpert_table, rsna, siim
from data_prep.kit import published_splits
from data_prep.kit.splits import SPLITS
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden

RECORDED = {"train": "train", "validate": "valid", "test": "test"}
TASKS = tuple(chexpert_table.UNCERTAIN)


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load_json(golden_dir, "downstream", "splits")


def sizes(recorded):
    return range(len(recorded["in/config/n"]))


def patients_of(recorded, place):
    ids, targets = (recorded[f"in/n{place}/rsna/{name}"] for name in ("patientId", "Target"))
    sides = dict.fromkeys(("x", "y", "width", "height"), "1")
    rows = [
        {"patientId": name, "Target": str(target), **(sides if target else dict.fromkeys(sides))}
        for name, target in zip(ids, targets, strict=True)
    ]
    return [p.patient_id for p in rsna.patients([{k: v or "" for k, v in r.items()} for r in rows])]


def test_gloria_s_split_of_rsna_equals_the_release(recorded):
    for place in sizes(recorded):
        ids = patients_of(recorded, place)
        members = published_splits.PUBLISHED["rsna"]["gloria"].rule(len(ids))
        for split in SPLITS:
            expected = recorded[f"out/n{place}/gloria_rsna/{RECORDED[split]}"]
            assert [ids[row] for row in members[split]] == expected


def test_the_split_of_siim_by_row_equals_the_release_and_leaks(recorded):
    for place in sizes(recorded):
        ids = recorded[f"in/n{place}/siim/ImageId"]
        members = published_splits.PUBLISHED["siim"]["gloria"].rule(len(ids))
        for split in SPLITS:
            name = f"out/n{place}/gloria_siim/{RECORDED[split]}"
            assert members[split] == recorded[f"{name}_rows"]
            assert list(dict.fromkeys(ids[row] for row in members[split])) == list(
                dict.fromkeys(recorded[f"{name}_ids"])
            )
        (line,) = published_splits.leak_notes("gloria", members, ids)
        assert f"{recorded[f'out/n{place}/gloria_siim/images_in_two_splits']} patients" in line


def test_balanced_images_of_siim_and_a_part_of_them_equal_the_release(recorded):
    for place in sizes(recorded):
        ids = recorded[f"in/n{place}/siim/ImageId"]
        signs = recorded[f"in/n{place}/siim/positive"]
        found = [
            siim.Annotation(image_id=name, rle="0 1" if sign else "-1")
            for name, sign in zip(ids, signs, strict=True)
        ]
        rows = recorded[f"out/n{place}/gloria_siim/train_rows"]
        for number, fraction in enumerate([1, *recorded["in/config/fracs"]]):
            rng = np.random.RandomState(recorded["in/config/numpy_seed"])
            chosen = siim.balanced_images([found[row] for row in rows], rng=rng)
            if fraction != 1:
                chosen = siim.part_of_images(chosen, fraction=fraction, rng=rng)
            assert chosen == recorded[f"out/n{place}/gloria_siim/seg_train_frac{number}"]


def test_mgca_s_split_of_covidx_equals_the_release(recorded):
    for place in sizes(recorded):
        classes = recorded[f"in/n{place}/covidx/class"]
        members = published_splits.PUBLISHED["covidx"]["mgca"].rule(len(classes))
        for split in ("train", "validate"):
            expected = recorded[f"out/n{place}/mgca_covidx/{RECORDED[split]}_rows"]
            assert members[split] == expected


def test_mgca_s_detection_split_equals_the_release(recorded):
    count = recorded["in/config/detection/n_patients"]
    ids = sorted(f"p{row * 7919 % 100000:05d}" for row in range(count))
    members = published_splits.PUBLISHED["rsna"]["mgca_detection"].rule(count)
    for split in SPLITS:
        names = [ids[row] for row in members[split]]
        key = f"out/mgca_detection/{RECORDED[split]}"
        assert len(names) == recorded[f"{key}_len"]
        assert names[: len(recorded[f"{key}_first20"])] == recorded[f"{key}_first20"]
        assert zlib.crc32("\n".join(names).encode()) == recorded[f"{key}_crc32_newline_joined"]
        assert names == recorded.get(key, names)
    for place, total in enumerate(recorded["in/config/n"]):
        held = recorded[f"in/config/n{place}/detection_rule_k"]
        small = published_splits.thirds(total, held=2 * held)
        found = {RECORDED[split]: rows for split, rows in small.items()}
        assert found == recorded[f"out/n{place}/detection_rule"]


@pytest.mark.parametrize("paper", ["gloria", "mgca"])
def test_the_mixed_up_split_of_chexpert_equals_the_release(recorded, paper):
    classes = np.array(recorded["in/chexpert_prepare/exclusive_class"])
    labels = np.zeros((len(classes), len(TASKS)))
    labels[np.flatnonzero(classes >= 0), classes[classes >= 0]] = 1
    count = recorded["in/config/chexpert_prepare/valid_num"]
    key = f"out/chexpert_prepare/{paper}"
    test, train, validate = chexpert_splits.released_splits(
        labels,
        names=TASKS,
        frontal=np.ones(len(classes), bool),
        paper=paper,
        count=count,
        seed=recorded["in/config/numpy_seed"],
        per_task=len(recorded[f"{key}/5x200_rows"]) // len(TASKS),
    )
    assert test.tolist() == recorded[f"{key}/5x200_rows"]
    assert validate.tolist() == recorded[f"{key}/valid_rows"]
    assert train.tolist() == recorded[f"{key}/train_rows"]
    assert len(np.intersect1d(train, validate)) == recorded[f"{key}/valid_rows_that_stay_in_train"]
    lost = np.setdiff1d(np.arange(len(classes)), np.concatenate([train, validate, test]))
    assert len(lost) == recorded[f"{key}/rows_lost"]
