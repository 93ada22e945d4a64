"""What spreadsheets and data frames make of ids, texts and labels: read as meant, or refused."""

import json

import pytest

from data_prep.kit import values
from data_prep.kit.ids import IdColumn
from data_prep.kit.tables import Table
from prior_jax.errors import DataError
from tests.data_prep.test_manifest import prepare

IDS = {
    '="00123"': "00123",
    "10000032,0": "10000032",
    "10000032.00": "10000032",
    "1,0": "1",
    "1.#QNAN": "",
    "-1.#IND": "",
    "#N/A N/A": "",
    '="NaN"': "",
    "12.345.678": "12.345.678",
    "1.2.840.10008": "1.2.840.10008",
    "001,002": "001,002",
    "#12": "#12",
}


@pytest.mark.parametrize("written", IDS)
def test_ids_are_read_as_they_are_meant(written):
    assert values.id_of(written, field="id") == IDS[written]


REFUSED = {
    "#NAME?": "#NAME",
    "########": "####",
    "#ref!": "#ref!",
    "#DIV/0!": "DIV",
    "Err:502": "Err:502",
    "10,000,032": "between its thousands",
    "1,00,00,032": "between its thousands",
    "1,000": "between its thousands",
    "10.000": "between its thousands",
    "10,000,032.0": "between its thousands",
    9007199254740993.0: "not an exact id",
    float(2**53): "not an exact id",
    1e19: "not an exact id",
}


@pytest.mark.parametrize("written", REFUSED)
def test_ids_that_are_none_are_refused_by_name(written):
    with pytest.raises(values.CellProblem, match="patient_id") as problem:
        values.id_of(written, field="patient_id")
    assert REFUSED[written] in problem.value.detail


def test_the_largest_exact_number_is_an_id():
    assert values.id_of(float(2**53 - 1), field="id") == "9007199254740991"


def column_of(folder, *written):
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps({"id": value}) + "\n" for value in written))
    table = Table(path, flag="--manifest")
    column = IdColumn(table, flag="--id_column", name="id")
    for row in table.rows(reject=print):
        column.read(row)
    return column


@pytest.mark.parametrize("rounded", ["1.00E+07", "2.31E+13", "1,23457E+11", "1E+07", "1.e7"])
def test_rounded_ids_are_refused_also_where_other_ids_hold_letters(tmp_path, rounded):
    with pytest.raises(DataError, match=r"--id_column.*line 2.*rounded"):
        column_of(tmp_path, "A3F2", rounded).check()


def test_an_id_that_looks_like_a_number_is_one_among_letters(tmp_path):
    column_of(tmp_path, "ab3f", "12e5").check()
    with pytest.raises(DataError, match="rounded"):
        column_of(tmp_path, "1234", "12e5").check()


@pytest.mark.parametrize("written", [-2, "-2", "-2.0", 2, "3", 0.5, "Yes"])
def test_a_label_is_one_of_three_numbers(written):
    with pytest.raises(values.CellProblem, match="'Edema'"):
        values.label_of(written, field="Edema")


@pytest.mark.parametrize("column", ["text", "view"])
def test_an_error_of_a_spreadsheet_is_no_text(tmp_path, column):
    rows = [{"image": "a.jpg", "text": "x"}, {"image": "b.jpg", "text": "x", column: "#NAME?"}]
    assert prepare(tmp_path, rows, name="t.csv").rejected == {"malformed_row": 1}


def test_tables_put_one_behind_the_other_make_no_label_of_the_header(tmp_path):
    rows = [{"image": "a.jpg", "labels": "Edema"}, {"image": "image", "labels": "labels"},
            {"image": "b.jpg", "labels": "Edema"}]  # fmt: skip
    summary = prepare(tmp_path, rows, name="t.csv")
    assert summary.label_names == ("Edema",) and summary.rejected == {"malformed_row": 1}
