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


OTHER_NAMES = {
    "patient": "--patient_column",
    "subject_id": "--patient_column",
    "fold": "--split_column",
    "Subset": "--split_column",
    "report": "--text_column",
    "Impression": "--text_column",
    "caption": "--text_column",
    "accession": "--study_column",
    "class_name": "--labels_columns",
    "Labels": "--labels_columns",
    "LICENCE": "--kept_columns",
    "Patient-ID": "--patient_column",
}


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
@pytest.mark.parametrize("column", OTHER_NAMES)
def test_a_column_that_looks_like_one_that_is_read_is_not_passed_over(tmp_path, column, name):
    """It is read by the flag that the message names, or left out by --ignore_columns."""
    rows = [
        {"image": f"{n}.jpg", "labels": "Edema", "text": "x", column: "train"} for n in range(3)
    ]
    for row in rows:
        for read in {"--text_column": ["text"], "--labels_columns": ["labels"]}.get(
            OTHER_NAMES[column], []
        ):
            row.pop(read)
        row["view"] = "PA"
    with pytest.raises(DataError, match=f"{OTHER_NAMES[column]}.*'{column}'.*--ignore_columns"):
        prepare(tmp_path, rows, name=name)
    summary = prepare(tmp_path, rows, name=name, ignore_columns=(column,))
    assert any(f"by --ignore_columns: '{column}'" in note for note in summary.notes)


def test_a_column_of_another_spelling_beside_the_right_one_is_not_passed_over(tmp_path):
    rows = [{"image": "a.jpg", "text": "x", "split": "train"},
            {"image": "b.jpg", "text": "x", "Split": "test"}]  # fmt: skip
    with pytest.raises(DataError, match=r"--split_column.*'split'.*'Split'"):
        prepare(tmp_path, rows)


def test_a_likely_name_is_no_matter_where_the_role_has_its_column(tmp_path):
    rows = [{"image": "a.jpg", "text": "x", "report": "y", "fold": "1", "split": "test"}]
    summary = prepare(tmp_path, rows, name="t.csv")
    assert any("not read: 'report', 'fold'" in note for note in summary.notes)


def test_findings_are_labels_or_a_report_as_they_read(tmp_path):
    lists = [{"image": "a.jpg", "Findings": "Edema"}, {"image": "b.jpg", "Findings": "Edema|Mass"}]
    with pytest.raises(DataError, match=r"--labels_columns.*'Findings'"):
        prepare(tmp_path, lists, name="t.csv")
    prose = [{"image": "a.jpg", "Findings": "The lungs are clear."}]
    with pytest.raises(DataError, match=r"--text_column='Findings'"):
        prepare(tmp_path, prose, name="t.csv")


@pytest.mark.parametrize("column", ["path", "File Name", "Image Index"])
def test_a_path_by_another_name_is_pointed_out(tmp_path, column):
    with pytest.raises(DataError, match=f"--image_column.*--image_column='{column}'"):
        prepare(tmp_path, [{column: "a.jpg", "text": "x"}], name="t.csv")


def test_columns_to_ignore_have_to_be_there_and_no_others(tmp_path):
    with pytest.raises(DataError, match=r"--ignore_columns.*'fold'"):
        prepare(tmp_path, [{"image": "a.jpg", "text": "x"}], name="t.csv", ignore_columns=("fold",))
    with pytest.raises(ConfigError, match="--ignore_columns"):
        manifest.Settings(ignore_columns=("image",))
