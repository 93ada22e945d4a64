"""MIMIC-CXR's tables: saved again, moved, missing, or of other studies."""

import csv
import gzip
import json
import re

import pytest

from data_prep import mimic_cxr, verify
from data_prep.kit import cli
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import hospital, label_sets
from tests.data_prep.mimic_runs import cells, edit_table, prepare, rejected_of


def test_changed_tables_are_noticed(tmp_path):
    hospital.draw(tmp_path / "raw", studies=12)
    prepare(tmp_path / "raw", tmp_path / "out")
    edit_table(tmp_path / "raw", "split", lambda lines: lines[:-2])
    with pytest.raises(ConfigError, match="other settings or inputs"):
        prepare(tmp_path / "raw", tmp_path / "out")


def test_missing_and_damaged_tables_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="--images_dir"):
        prepare(tmp_path, tmp_path / "out")
    hospital.draw(tmp_path / "raw", studies=4)
    path = tmp_path / "raw" / "mimic-cxr-2.0.0-metadata.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="metadata"):
        prepare(tmp_path / "raw", tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match="metadata"):
        prepare(tmp_path / "raw", tmp_path / "out")


def _index(rows):
    return [["", *rows[0]], *([str(place), *row] for place, row in enumerate(rows[1:]))]


def _ids(form):
    def change(rows):
        places = [place for place, name in enumerate(rows[0]) if name in ("subject_id", "study_id")]
        return [rows[0]] + [
            [form(cell) if place in places else cell for place, cell in enumerate(row)]
            for row in rows[1:]
        ]

    return change


def _values(old, new):
    return lambda rows: (
        [rows[0]]
        + [[*row[:2], *(new if cell == old else cell for cell in row[2:])] for row in rows[1:]]
    )


SAVED_AGAIN = {
    "an index in the labels": ("chexpert", _index),
    "an index in the metadata": ("metadata", _index),
    "an index in the splits": ("split", _index),
    "a named index": ("chexpert", lambda rows: [["Unnamed: 0", *rows[0]], *_index(rows)[1:]]),
    "decimal ids in the labels": ("chexpert", _ids(lambda cell: f"{cell}.0")),
    "decimal ids in the metadata": ("metadata", _ids(lambda cell: f"{cell}.0")),
    "ids with letters": ("metadata", lambda rows: [rows[0]] + [
        [row[0], f"p{row[1]}", f"s{row[2]}", *row[3:]] for row in rows[1:]]),
    "nan": ("chexpert", _values("", "nan")),
    "truth values": ("chexpert", _values("1.0", "True")),
    "blanks in the header": ("chexpert", lambda rows: [[f" {n}" for n in rows[0]], *rows[1:]]),
    "columns moved": ("metadata", lambda rows: [row[::-1] for row in rows]),
    "views in lower case": ("metadata", lambda rows: [rows[0]] + [
        [cell.lower() if place == 3 else cell for place, cell in enumerate(row)]
        for row in rows[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAVED_AGAIN)
def test_a_table_saved_again_gives_the_same_set(tmp_path, kind):
    hospital.draw(tmp_path / "raw", studies=8)
    before = prepare(tmp_path / "raw", tmp_path / "before")
    table, change = SAVED_AGAIN[kind]
    edit_table(tmp_path / "raw", table, cells(change))
    after = prepare(tmp_path / "raw", tmp_path / "after")
    assert (after.shards, after.label_names) == (before.shards, before.label_names)
    assert after.labels == before.labels


USELESS = {
    "a column of text": lambda rows: [[*rows[0], "split"]] + [[*r, "train"] for r in rows[1:]],
    "ids of other studies": lambda rows: [rows[0]] + [[r[0], f"9{r[1]}", *r[2:]] for r in rows[1:]],
    "only two rows": lambda rows: rows[:3],
    "rounded ids": lambda rows: [rows[0]] + [[r[0], "5.00E+07", *r[2:]] for r in rows[1:]],
}


@pytest.mark.parametrize("kind", USELESS)
def test_a_label_table_that_is_not_of_these_studies_is_refused(tmp_path, kind):
    hospital.draw(tmp_path / "raw", studies=10)
    edit_table(tmp_path / "raw", "chexpert", cells(USELESS[kind]))
    with pytest.raises(DataError, match="--labels_table"):
        prepare(tmp_path / "raw", tmp_path / "out")
    assert prepare(tmp_path / "raw", tmp_path / "none", labels="none").label_names == ()


def test_rows_of_all_tables_add_up(tmp_path):
    hospital.draw(tmp_path / "raw", studies=12)
    edit_table(tmp_path / "raw", "metadata", lambda lines: [*lines, lines[1], "x,1"])
    edit_table(tmp_path / "raw", "split", lambda lines: [*lines[:-3], "other,5,1,train", lines[1]])
    edit_table(tmp_path / "raw", "chexpert", lambda lines: [*lines, "1,59999999,1.0,,", "1,s,x,,"])
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    assert len(manifest.tables) == 3
    for rows in manifest.tables.values():
        assert rows.read == rows.kept + sum(rows.rejected.values())
        assert len(rows.rejected) >= 2
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


def as_json_lines(path):
    """Writes a packed table again as .jsonl, and returns its path."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    out = path.with_name(f"{path.name.split('.csv')[0]}.jsonl")
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.unlink()
    return str(out)


def test_every_table_may_be_json_lines(tmp_path):
    hospital.draw(tmp_path / "raw", studies=8)
    before = prepare(tmp_path / "raw", tmp_path / "before")
    kinds = {"metadata": "metadata", "split": "split", "labels": "chexpert"}
    given = {
        f"{flag}_table": as_json_lines(tmp_path / "raw" / f"mimic-cxr-2.0.0-{kind}.csv.gz")
        for flag, kind in kinds.items()
    }
    after = mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(tmp_path / "raw"), **given),
        mimic_cxr.Settings(short_side=64, studies_per_shard=8),
        cli.RunOptions(out=str(tmp_path / "after"), workers=1),
    )
    assert (after.shards, after.labels) == (before.shards, before.labels)


@pytest.mark.parametrize("labels", ["chexpert", "negbio"])
def test_labels_that_are_not_there_are_asked_for(tmp_path, labels):
    hospital.draw(tmp_path / "raw", studies=2)
    (tmp_path / "raw" / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(DataError, match=rf"--labels.*{labels}\.csv\.gz.*--labels=none"):
        prepare(tmp_path / "raw", tmp_path / "out", labels=labels)
    assert prepare(tmp_path / "raw", tmp_path / "out", labels="none").label_names == ()


@pytest.mark.parametrize(
    "name", ["old-metadata.csv", "mimic-cxr-2.1.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv"]
)
def test_two_tables_that_could_be_meant_are_refused_by_name(tmp_path, name):
    hospital.draw(tmp_path / "raw", studies=2)
    (tmp_path / "raw" / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"--images_dir.*{name}.*--metadata_table"):
        prepare(tmp_path / "raw", tmp_path / "out")


NO_NUMBERS = ("1123_4567", "-51234567", "9" * 20, "\u0661\u0662", "1.5", "+7", "", "p", "1 2")


@pytest.mark.parametrize("column", ["subject_id", "study_id"])
def test_ids_that_are_no_numbers_are_counted(tmp_path, column):
    drawn = hospital.draw(tmp_path / "raw", studies=2 * len(NO_NUMBERS))

    def change(rows):
        place = rows[0].index(column)
        for row, written in zip(rows[1::4], NO_NUMBERS, strict=True):
            row[place] = written
        return rows

    edit_table(tmp_path / "raw", "metadata", cells(change))
    manifest = prepare(tmp_path / "raw", tmp_path / "out", labels="none")
    assert manifest.rejected["malformed_row"] == len(NO_NUMBERS)
    assert sum(c.studies for c in manifest.splits.values()) == len(drawn) - len(NO_NUMBERS)


def _other(kind, place, value, *, first):
    """A second row of the first image or study with another cell, before or behind its own."""

    def change(rows):
        row = [*rows[1]]
        row[place] = value
        return [rows[0], row, *rows[1:]] if first else [*rows, row]

    return lambda root: edit_table(root, kind, cells(change))


CONTRADICTIONS = {
    "view": ("metadata", 3, "LATERAL", "ViewPosition"),
    "study": ("metadata", 2, "50000002", r"study_id \("),
    "patient": ("metadata", 1, "19999999", r"subject_id \("),
    "split": ("split", 3, "test", "name different splits"),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_an_image_whose_rows_differ_is_rejected_in_whatever_order_they_stand(tmp_path, kind, first):
    drawn = hospital.draw(tmp_path / "raw", studies=8)
    table, place, value, detail = CONTRADICTIONS[kind]
    _other(table, place, value, first=first)(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    (name,) = [name for name in manifest.tables if table in name]
    found = [line for line in rejected_of(tmp_path / "out") if line["reason"] == "conflicting_rows"]
    assert len([line for line in found if line["table"] == name]) == 2
    assert all(re.search(detail, line["detail"]) for line in found)
    # The image of each study that is kept is its frontal one, and that of the first is not sound.
    assert sum(counts.studies for counts in manifest.splits.values()) == len(drawn) - 1
    assert not manifest.rejected.keys() & {
        *("duplicate_row", "file_without_row", "row_without_split", "split_row_without_metadata"),
        *("patient_in_two_splits", "study_in_two_patients"),
    }
    for rows in manifest.tables.values():
        assert rows.read == rows.kept + sum(rows.rejected.values())
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


@pytest.mark.parametrize("more", [1, 2])
def test_a_study_whose_label_rows_differ_is_kept_without_labels(tmp_path, more):
    hospital.draw(tmp_path / "raw", studies=8)
    study = 50_000_001  # the first with a row, which is 1.0,1,-1.0
    other = f"10000000,{study},1.0,0,-1.0"
    edit_table(tmp_path / "raw", "chexpert", lambda lines: [*lines, lines[2], *[other] * more])
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    found = label_sets.every(tmp_path / "out")
    assert set(found[f"s{study}"].labels) == {-2} != set(found[f"s{study + 1}"].labels)
    (rows,) = [rows for name, rows in manifest.tables.items() if "chexpert" in name]
    assert rows.rejected == {"duplicate_row": 1, "conflicting_rows": 1 + more}
    assert any("1 studies have rows that differ" in note for note in manifest.notes)


def test_equal_rows_count_once(tmp_path):
    drawn = hospital.draw(tmp_path / "raw", studies=8)
    for table in ("metadata", "split", "chexpert"):
        edit_table(tmp_path / "raw", table, lambda lines: [*lines, lines[1], lines[1]])
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    assert manifest.rejected["duplicate_row"] == 6
    assert "conflicting_rows" not in manifest.rejected
    assert sum(counts.studies for counts in manifest.splits.values()) == len(drawn)
