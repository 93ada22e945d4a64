"""What the cells of labels say, in every way that data frames and people write them."""

import json

import pytest

from data_prep.kit import label_lists
from data_prep.kit.plan import RowProblem
from prior_jax.data import schema
from prior_jax.errors import DataError
from tests.data_prep.test_manifest import prepare, records_of

LISTS = {
    "['Edema', 'Mass']": ["Edema", "Mass"],
    '["Edema", "Mass"]': ["Edema", "Mass"],
    " ['Edema',\n 'Mass'] ": ["Edema", "Mass"],
    "('Edema', 'Mass')": ["Edema", "Mass"],
    "{'Mass', 'Edema'}": ["Edema", "Mass"],
    "['Edema, mild', \"Kerley's lines\"]": ["Edema, mild", "Kerley's lines"],
    "[]": [],
    "{}": [],
    "Edema|Mass": ["Edema", "Mass"],
    "(left) Edema": ["(left) Edema"],
}


@pytest.mark.parametrize("text", LISTS)
def test_lists_that_are_written_out_are_lists(text):
    labels, _ = label_lists.labels_of(label_lists.names_in(text, separators="|"))
    assert labels == dict.fromkeys(LISTS[text], 1)


MAPPINGS = {
    "{'Edema': 1, 'Mass': 0}": {"Edema": 1, "Mass": 0},
    '{"Edema": 0, "Mass": null}': {"Edema": 0, "Mass": -2},
    "{'Edema': True, 'Mass': None}": {"Edema": 1, "Mass": -2},
    "{'Edema': -1.0, 'Mass': '0'}": {"Edema": -1, "Mass": 0},
    '{"Edema": NaN}': {"Edema": -2},
}


@pytest.mark.parametrize("text", MAPPINGS)
def test_mappings_that_are_written_out_keep_their_negatives(text):
    value = label_lists.names_in(text, separators="")
    assert label_lists.labels_of(value) == (MAPPINGS[text], False)


@pytest.mark.parametrize(
    "text",
    [
        "['A' 'B']",
        "['A'\n 'B']",
        "[Edema, Mass]",
        "{'Edema': nan}",
        "{'Edema': 1, 'Edema': 0}",
        '{"Edema": 1, "Edema": 0}',
        "['Edema'",
        "[1, 0]",
        "[['Edema']]",
        "{1: 1}",
        "['#NAME?']",
        "#NAME?",
        "[" * 5000,
    ],
)
def test_what_cannot_be_read_is_rejected_by_name(text):
    with pytest.raises(RowProblem) as problem:
        label_lists.labels_of(label_lists.names_in(text, separators=""))
    assert problem.value.reason == "malformed_labels"


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("['Edema', 'Mass']", {"Edema": 1, "Mass": 1}),
        (["Edema", "Mass"], {"Edema": 1, "Mass": 1}),
        ("Edema;Mass", {"Edema": 1, "Mass": 1}),
        ("{'Edema': 0}", {"Edema": 0}),
        ("", {}),
        (None, {}),
        ("nan", {}),
    ],
)
def test_a_cell_of_any_program_gives_its_labels(cell, found):
    assert label_lists.labels_in(cell, field="Labels", separators=";") == found


@pytest.mark.parametrize("cell", ["['Edema' 'Mass']", "['Edema', nan]", 3, "{'Edema': 'often'}"])
def test_a_cell_that_cannot_be_read_names_its_column(cell):
    with pytest.raises(RowProblem) as problem:
        label_lists.labels_in(cell, field="Labels", separators=";")
    assert problem.value.reason == "malformed_labels"
    assert problem.value.detail.startswith("column 'Labels': ")
    if isinstance(cell, str) and cell.startswith("["):
        assert "as A;B, or as ['A', 'B']" in problem.value.detail


def test_a_table_that_a_data_frame_saved_again_gives_the_same_records(tmp_path):
    cells = [["Edema", "Mass"], [], {"Edema": 1, "Mass": 0}, {"Edema": -1, "Mass": None}]
    rows = [{"image": f"{n}.jpg", "labels": cell} for n, cell in enumerate(cells)]
    for row in rows:
        row["text"] = "Clear."
    one = prepare(tmp_path, rows, out="one")
    saved = [{**row, "labels": str(row["labels"])} for row in rows]
    two = prepare(tmp_path, saved, name="t.csv", out="two")
    assert one.shards == two.shards and one.label_names == ("Edema", "Mass")


SEPARATORS = {"a bar": "|", "a semicolon": ";"}


@pytest.mark.parametrize("kind", SEPARATORS)
@pytest.mark.parametrize("turned", [False, True])
def test_one_separator_holds_for_a_whole_column(tmp_path, kind, turned):
    cells = [f"Effusion, pleural{SEPARATORS[kind]}Edema", "Effusion, pleural", "Edema"]
    cells = cells[::-1] if turned else cells
    rows = [{"image": f"{n}.jpg", "labels": cell} for n, cell in enumerate(cells)]
    summary = prepare(tmp_path, rows, name="t.csv")
    assert summary.label_names == ("Edema", "Effusion, pleural")
    assert any("',' in them are part of their names" in note for note in summary.notes)


def test_without_another_separator_names_are_separated_by_commas(tmp_path):
    rows = [{"image": "a.jpg", "labels": "Edema, Mass"}, {"image": "b.jpg", "labels": "Edema"}]
    assert prepare(tmp_path, rows, name="t.csv").label_names == ("Edema", "Mass")


@pytest.mark.parametrize(
    "cells", [["0", "1", "1"], ["1.0", "-1.0", ""], ["True", "False", "True"], ["yes", "no", "no"]]
)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_numbers_are_no_names_of_labels(tmp_path, name, cells):
    rows = [{"image": f"{n}.jpg", "text": "x", "labels": cell} for n, cell in enumerate(cells)]
    with pytest.raises(DataError, match=r"--labels_columns.*--label_columns=labels"):
        prepare(tmp_path, rows, name=name)


@pytest.mark.parametrize("blank", ["", "NaN", "[]", None])
def test_a_blank_column_of_labels_does_not_hide_the_next(tmp_path, blank):
    rows = [{"image": "a.jpg", "labels": blank, "findings": "Edema"},
            {"image": "b.jpg", "labels": "Mass", "findings": ""},
            {"image": "c.jpg", "labels": "Mass", "findings": ""}]  # fmt: skip
    summary = prepare(tmp_path, rows, name="t.csv")
    assert records_of(tmp_path, summary)["a.jpg"].labels == (1, 0)
    rows[0] |= {"labels": [], "findings": ["Edema"]}
    summary = prepare(tmp_path, rows, out="lines")
    assert records_of(tmp_path, summary, out="lines")["a.jpg"].labels == (1, 0)


def test_lists_of_a_study_are_put_together_before_the_rest_is_negative(tmp_path):
    rows = [
        {"image": "a.jpg", "study_id": "S", "labels": "Edema|Mass"},
        {"image": "b.jpg", "study_id": "S", "labels": "Edema"},
        {"image": "c.jpg", "study_id": "T", "labels": "Nodule"},
    ]
    summary = prepare(tmp_path, rows, name="t.csv")
    assert summary.rejected == {}
    records = records_of(tmp_path, summary)
    assert (records["S"].labels, records["T"].labels) == ((1, 1, 0), (0, 0, 1))


@pytest.mark.parametrize("source", ["", "other"])
def test_what_a_mapping_says_stands_against_what_a_list_leaves_out(tmp_path, source):
    rows = [
        {"image": "a.jpg", "study_id": "S", "source": source, "labels": {"Edema": -1, "Mass": 0}},
        {"image": "b.jpg", "study_id": "S", "source": source, "labels": ["Nodule"]},
        {"image": "c.jpg", "study_id": "T", "source": source, "labels": {"Edema": 0}},
        {"image": "d.jpg", "study_id": "T", "source": source, "labels": ["Edema"]},
    ]
    summary = prepare(tmp_path, rows)
    assert summary.rejected == {"conflicting_labels": 1}
    assert records_of(tmp_path, summary)["S"].labels == (-1, 0, 1)


def test_what_is_kept_of_a_study_comes_from_all_its_rows(tmp_path):
    rows = [
        {"image": "a.jpg", "study_id": "S", "text": "x", "licence": "", "source": ""},
        {"image": "b.jpg", "study_id": "S", "text": "x", "licence": "CC0", "source": "NIH"},
        {"image": "c.jpg", "study_id": "S", "text": "x", "licence": "CC0", "source": "other"},
    ]
    prepare(tmp_path, rows, name="t.csv")
    (line,) = (tmp_path / "out" / "sources.jsonl").read_text().splitlines()
    assert json.loads(line) == {"study_id": "S", "licence": "CC0", "source": ["NIH", "other"]}


def test_rows_of_one_finding_each_are_not_made_into_negatives(tmp_path):
    rows = [{"image": "a.jpg", "labels": name} for name in ("Edema", "Mass", "Mass")]
    rows += [{"image": "b.jpg", "labels": "Mass"}] * 2
    summary = prepare(tmp_path, rows, name="t.csv")
    assert summary.rejected == {"conflicting_rows": 3, "duplicate_row": 1}
    assert set(records_of(tmp_path, summary)) == {"b.jpg"}
    lines = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    conflicts = [json.loads(line) for line in lines if "conflicting" in line]
    details = {conflict["detail"].rpartition("; line ")[0] for conflict in conflicts}
    (detail,) = details
    assert "differ in labels" in detail and "Edema" in detail and "Mass" in detail


def test_rows_of_one_id_with_two_texts_are_both_left_out(tmp_path):
    rows = [{"image": "a.jpg", "text": "One."}, {"image": "a.jpg", "text": "Two."},
            {"image": "b.jpg", "text": "Three."}]  # fmt: skip
    summary = prepare(tmp_path, rows, name="t.csv")
    assert summary.rejected == {"conflicting_rows": 2}
