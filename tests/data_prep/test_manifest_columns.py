"""Which column of a manifest is read as what, and which values of ids are one."""

import json

import pytest

from data_prep import manifest
from prior_jax.errors import ConfigError, DataError
from tests.data_prep.test_manifest import prepare


def test_as_many_names_as_rows_are_no_labels(tmp_path):
    phrases = ["Clear lungs", "Large heart", "Left effusion", "Small nodule"]
    rows = [{"image": f"{n}.jpg", "findings": text} for n, text in enumerate(phrases)]
    with pytest.raises(DataError, match="4 different label names in 4 rows"):
        prepare(tmp_path, rows, name="t.csv")
    named = prepare(tmp_path, rows, name="t.csv", labels_columns=("findings",))
    assert named.label_names == tuple(sorted(phrases))


SPELLINGS = {
    "split": ("Split", "--split_column"),
    "patient_id": ("Patient ID", "--patient_column"),
    "text": ("TEXT", "--text_column"),
    "study_id": ("studyId", "--study_column"),
}


@pytest.mark.parametrize("column", SPELLINGS)
def test_a_column_in_another_spelling_is_not_passed_over(tmp_path, column):
    written, flag = SPELLINGS[column]
    rows = [{"image": "a.jpg", "note": "Clear.", written: "train"}]
    with pytest.raises(DataError, match=f"{flag}.*'{written}'"):
        prepare(tmp_path, rows, name="t.csv")


@pytest.mark.parametrize(
    ("one", "two"), [("P1", "p1"), ("00123", "123"), ("p 1", "p1"), ("7.0", "7"), (" x ", "x")]
)
def test_a_patient_written_in_two_ways_is_not_in_two_splits(tmp_path, one, two):
    rows = [
        {"image": "a.jpg", "text": "Clear.", "split": "train", "patient_id": one},
        {"image": "b.jpg", "text": "Clear.", "split": "test", "patient_id": two},
        {"image": "c.jpg", "text": "Clear.", "split": "test", "patient_id": "another"},
    ]
    assert prepare(tmp_path, rows, name="t.csv").rejected == {"patient_in_two_splits": 2}


def test_sources_are_json_whatever_the_table_holds(tmp_path):
    prepare(tmp_path, [{"image": "a.jpg", "text": "x", "doi": [float("nan"), {"a": 1e999}]}])
    (line,) = (tmp_path / "out" / "sources.jsonl").read_text().splitlines()
    strict = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert strict["doi"] == [None, {"a": None}]


@pytest.mark.parametrize("names", [("A", "A"), ("A", "text"), ("image",)])
def test_a_column_is_one_label_and_nothing_else(names):
    with pytest.raises(ConfigError, match="--label_columns"):
        manifest.Settings(label_columns=names)
