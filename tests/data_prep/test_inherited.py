"""Patients and splits that a row leaves blank, and another row of its study or patient names."""

import pytest

from tests.data_prep.test_manifest import prepare, records_of


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
@pytest.mark.parametrize("first", [True, False])
def test_a_blank_split_is_that_of_the_patient(tmp_path, name, first):
    rows = []
    for patient in range(12):
        split = ("train", "validate", "test")[patient % 3]
        pair = [
            {"image": f"{patient}a.jpg", "patient_id": f"P{patient}", "split": split, "text": "x"},
            {"image": f"{patient}b.jpg", "patient_id": f"p{patient}", "split": "", "text": "x"},
        ]
        rows += pair if first else pair[::-1]
    summary = prepare(tmp_path, rows, name=name)
    assert summary.rejected == {}
    assert {split: counts.studies for split, counts in summary.splits.items()} == {
        "train": 8,
        "validate": 8,
        "test": 8,
    }


def test_a_patient_in_two_given_splits_takes_the_blank_rows_along(tmp_path):
    splits = ("train", "", "test")
    rows = [
        {"image": f"{n}.jpg", "patient_id": "p", "split": split, "text": "x"}
        for n, split in enumerate(splits)
    ]
    rows.append({"image": "good.jpg", "patient_id": "q", "split": "", "text": "x"})
    assert prepare(tmp_path, rows, name="t.csv").rejected == {"patient_in_two_splits": 3}


@pytest.mark.parametrize("first", [True, False])
def test_a_blank_patient_is_that_of_the_study(tmp_path, first):
    """The split of the patient goes with it, drawn or given."""
    rows = []
    for number in range(12):
        pair = [
            {"image": f"{number}a.jpg", "study_id": f"S{number}", "patient_id": f"P{number % 6}"},
            {"image": f"{number}b.jpg", "study_id": f"S{number}", "patient_id": ""},
        ]
        rows += pair if first else pair[::-1]
    for row in rows:
        row["text"] = "x"
    summary = prepare(tmp_path, rows, name="t.csv")
    assert summary.rejected == {}
    records = records_of(tmp_path, summary)
    for number in range(12):
        record = records[f"S{number}"]
        assert record.subject_id == f"P{number % 6}"
        images = (f"{number}a.jpg", f"{number}b.jpg")
        assert record.image_ids == (images if first else images[::-1])
    whole = [{**row, "patient_id": f"P{int(row['study_id'][1:]) % 6}"} for row in rows]
    assert prepare(tmp_path, whole, name="t.csv", out="whole").shards == summary.shards


def test_a_study_of_two_patients_is_still_none(tmp_path):
    rows = [
        {"image": f"{n}.jpg", "study_id": "S", "patient_id": patient, "text": "x"}
        for n, patient in enumerate(("P1", "", "P2"))
    ]
    rows.append({"image": "good.jpg", "study_id": "T", "patient_id": "", "text": "x"})
    assert prepare(tmp_path, rows, name="t.csv").rejected == {"study_in_two_patients": 3}


def test_a_row_that_differs_only_in_what_it_inherits_is_the_same_row(tmp_path):
    rows = [
        {"image": "a.jpg", "patient_id": "p", "split": split, "text": "x"}
        for split in ("test", "", "test")
    ]
    assert prepare(tmp_path, rows, name="t.csv").rejected == {"duplicate_row": 2}
