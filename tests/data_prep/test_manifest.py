"""Custom manifests: columns, labels, sentences made of labels, damage."""

import collections
import csv
import json
import zlib

import pytest
import tensorflow_datasets as tfds

from data_prep import manifest, verify
from data_prep.kit import cli
from data_prep.kit.label_sentences import label_sentences
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import hospital

NIH = "NIH ChestX-ray14"


def prepare(folder, rows, *, name="rows.jsonl", out="out", **settings):
    path = folder / name
    if name.endswith((".csv", ".tsv")):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, columns, delimiter="\t" if name.endswith(".tsv") else ",")
            table.writeheader()
            table.writerows(rows)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    for row in rows:
        if isinstance(row, dict) and row.get("image", "").endswith(".jpg"):
            (folder / row["image"]).parent.mkdir(exist_ok=True, parents=True)
            (folder / row["image"]).write_bytes(hospital.jpeg(zlib.crc32(row["image"].encode())))
    summary = manifest.prepare(
        manifest.Paths(manifest=str(path)),
        manifest.Settings(**{"short_side": 64, **settings}),
        cli.RunOptions(out=str(folder / out), workers=1),
    )
    assert verify.verify(verify.Settings(path=str(folder / out), sample=1.0)) == []
    return summary


def records_of(folder, summary, out="out"):
    builder = tfds.builder_from_directory(folder / out)
    return {
        record.study_id: record
        for split in builder.info.splits
        for record in map(schema.Record.from_example, builder.as_data_source(split))
    }


def test_rows_of_every_kind(tmp_path):
    """Text, labels with and without a finding, neither; as in a mixed public collection."""
    rows = [
        {"id": "a", "patient_id": "1", "image": "i/a.jpg", "split": "train", "source": "s",
         "view": "PA", "text": "Opacity on the left. No effusion.", "findings": ["COVID-19"],
         "licence": "CC0", "citation": "us"},
        {"id": "b", "patient_id": "2", "image": "i/b.jpg", "split": "valid", "source": NIH,
         "view": "AP", "text": "", "findings": ["Edema"]},
        {"id": "c", "patient_id": "3", "image": "i/c.jpg", "split": "test", "source": NIH,
         "view": "AP", "text": "", "findings": ["No Finding"]},
        {"id": "d", "patient_id": "4", "image": "i/d.jpg", "split": "test", "source": "vqa",
         "view": "", "text": "", "findings": [], "qa": [{"question": "?"}]},
    ]  # fmt: skip
    summary = prepare(tmp_path, rows)
    assert summary.label_names == ("COVID-19", "Edema", "No Finding")
    assert summary.rejected == {"neither_text_nor_labels": 1}
    assert summary.text_sources == {"none": 2, "report": 1}
    records = records_of(tmp_path, summary)
    assert records["a"].labels == (1, -2, -2)  # "s" is not known to list all that is positive
    assert records["b"].labels == (-2, 1, 0)
    assert records["c"].labels == (-2, 0, 1)
    assert records["a"].sentences == ("Opacity on the left.", "No effusion.")
    assert records["a"].sentence_sections == (1, 1)
    assert records["b"].sentences == ()
    lines = (tmp_path / "out" / "sources.jsonl").read_text().splitlines()
    assert {"study_id": "a", "source": "s", "licence": "CC0", "citation": "us"} in map(
        json.loads, lines
    )
    again = prepare(tmp_path, rows, out="made", label_sentences=True)
    assert again.text_sources == {"labels": 2, "report": 1}
    made = records_of(tmp_path, again, out="made")["b"]
    assert made.text_source == "labels"
    assert set(made.sentence_sections) == {schema.SECTION_LABELS}
    assert "edema" in made.sentences[0].lower()


def test_csv_and_jsonl_give_the_same_records(tmp_path):
    rows = [
        {"id": str(n), "image": f"{n}.jpg", "patient_id": str(n // 2),
         "labels": "A|B" if n % 2 else "",
         "text": 'FINDINGS: Said "x,\ny". Clear.  IMPRESSION: Normal.'}
        for n in range(30)
    ]  # fmt: skip
    one = prepare(tmp_path, rows, out="one")
    two = prepare(tmp_path, rows, name="rows.csv", out="two")
    assert one.shards == two.shards
    record = records_of(tmp_path, one, out="one")["1"]
    assert record.sentences[0] == "Normal."
    assert record.sentence_sections[0] == schema.SECTION_IMPRESSION
    assert record.labels == (1, 1)
    assert sum(counts.studies for counts in one.splits.values()) == 30


def test_rows_of_one_study_become_one_record(tmp_path):
    rows = [
        {"id": f"{n}", "image": f"{n}.jpg", "study_id": "s", "patient_id": "p", "view": view,
         "text": "Clear.", "labels": labels}
        for n, (view, labels) in enumerate([("PA", {"A": 1}), ("AP", {"B": 0, "C": None})])
    ]  # fmt: skip
    record = records_of(tmp_path, prepare(tmp_path, rows))["s"]
    assert record.image_ids == ("0", "1") and record.views == ("PA", "AP")
    assert record.labels == (1, 0, -2)


def test_label_columns(tmp_path):
    rows = [{"image": "a.jpg", "text": "x", "A": "1.0", "B": "-1", "C": ""}]
    summary = prepare(tmp_path, rows, name="t.csv", label_columns=("C", "A", "B"))
    assert summary.label_names == ("C", "A", "B")
    assert records_of(tmp_path, summary)["a.jpg"].labels == (-2, 1, -1)


def test_every_kind_of_damage_is_counted(tmp_path):
    def row(name, **changes):
        return {"id": name, "image": f"{name}.jpg", "patient_id": name, "text": "Clear.",
                "split": "train", **changes}  # fmt: skip

    (tmp_path / "broken.png").write_bytes(b"x")
    rows = [
        row("good"),
        row("good"),
        "{not json",
        "[1]",
        '{"image": "good.jpg", "text": "\\ud800"}',
        row("noimage", image=""),
        row("split", split="holdout"),
        row("labels", labels={"A": 7}),
        row("labels2", labels=[3]),
        row("missing", image="missing.png"),
        row("folder", image="."),
        row("broken", image="broken.png"),
        row("leak1", patient_id="leak"),
        row("leak2", patient_id="leak", split="test"),
        row("two1", study_id="two"),
        row("two2", study_id="two"),
        row("text1", study_id="t", patient_id="t"),
        row("text2", study_id="t", patient_id="t", text="Other."),
        row("label1", study_id="l", patient_id="l", labels={"A": 1}),
        row("label2", study_id="l", patient_id="l", labels={"A": 0}),
        row("nothing", text=" "),
        row("short", text="\n", labels={"A": 1}),
    ]
    summary = prepare(tmp_path, rows)
    assert summary.rejected == {
        "duplicate_row": 1,
        "malformed_row": 3,
        "row_without_image": 1,
        "unknown_split": 1,
        "malformed_labels": 2,
        "missing_image": 2,
        "undecodable_image": 1,
        "patient_in_two_splits": 2,
        "study_in_two_patients": 2,
        "conflicting_text": 1,
        "conflicting_labels": 1,
        "neither_text_nor_labels": 1,
    }
    assert set(records_of(tmp_path, summary)) == {"good", "short"}
    lines = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    listed = collections.Counter(json.loads(line)["reason"] for line in lines)
    assert listed == summary.rejected


def test_bad_arguments_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"--manifest.*absent\.jsonl"):
        manifest.prepare(
            manifest.Paths(manifest=str(tmp_path / "absent.jsonl")),
            manifest.Settings(),
            cli.RunOptions(out=str(tmp_path / "out")),
        )
    with pytest.raises(DataError, match=r"--manifest.*rows\.txt"):
        prepare(tmp_path, [{"image": "a.jpg"}], name="rows.txt")
    with pytest.raises(DataError, match="the tables have no row"):
        prepare(tmp_path, ["", ""], out="none")
    with pytest.raises(ConfigError, match="--split_fractions"):
        manifest.Settings(split_fractions=("1", "1", "1"))


def test_label_sentences_say_what_the_labels_say():
    names = ("Edema", "Pleural Effusion", "COVID-19", "Nodule", "No Finding")
    for key in ("a", "b", "c", "d", "e", "f"):
        made = label_sentences(key, names=names, values=(1, 0, -1, -2, 0), view="PA")
        assert made == label_sentences(key, names=names, values=(1, 0, -1, -2, 0), view="PA")
        positive, uncertain, negative, view = made
        assert "edema" in positive.lower() and "no " not in positive.lower()
        assert "COVID-19" in uncertain
        assert any(word in uncertain.lower() for word in ("possib", "may", "cannot"))
        assert "pleural effusion" in negative.lower()
        assert "no" in negative.lower().split() or "not" in negative.split()
        assert "PA" in view
        assert not any("nodule" in sentence.lower() for sentence in made)
    phrasings = {
        label_sentences(str(n), names=names, values=(1, 0, -1, -2, 0), view="") for n in range(50)
    }
    assert len(phrasings) > 20
    assert label_sentences("a", names=names, values=(-2,) * 5, view="PA") == ()
    normal = label_sentences("a", names=names, values=(0, 0, 0, 0, 1), view="")
    assert "normal" in normal[0].lower() or "no acute" in normal[0].lower()


MISSING = [None, float("nan"), "", "  ", "nan", "NaN", "NULL", "None", "NaT", "<NA>", "n/a"]


@pytest.mark.parametrize("missing", MISSING, ids=repr)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv"])
def test_what_is_missing_is_missing_in_every_field_and_format(tmp_path, name, missing):
    """Rows of a data frame: NaN is no word, and two rows without a patient are not one patient."""
    full = {"id": "a", "image": "a.jpg", "text": "Clear.", "patient_id": "p1", "study_id": "s1",
            "split": "train", "view": "PA", "source": "x", "labels": "Edema"}  # fmt: skip
    rows = [full]
    for place, field in enumerate(("text", "patient_id", "study_id", "split", "view", "source")):
        own = {"id": f"i{place}", "image": f"{place}.jpg", "patient_id": f"q{place}",
               "study_id": f"t{place}"}  # fmt: skip
        rows.append({**full, **own, field: missing})
    rows.append(
        {**full, "id": missing, "image": "z.jpg", "study_id": missing, "patient_id": missing}
    )
    rows.append({**full, "id": "y", "image": "y.jpg", "study_id": "y", "labels": missing})
    summary = prepare(tmp_path, rows, name=name)
    assert summary.rejected == {}
    records = records_of(tmp_path, summary)
    assert len(records) == len(rows)
    assert records["t0"].sentences == () and records["t0"].labels == (1,)
    assert (records["t1"].subject_id, records["i2"].subject_id) == ("t1", "q2")
    assert records["t4"].views == ("",)
    assert records["z.jpg"].subject_id == "z.jpg" and records["y"].labels == (-2,)


def table(folder, header, *rows, name="rows.csv"):
    """Writes a table and an image for each row, which begins with the image's name."""
    for row in rows:
        (folder / row[0]).write_bytes(hospital.jpeg(zlib.crc32(row[0].encode())))
    with open(folder / name, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(folder / name)


def prepare_table(folder, path, *, out="out", given=(), **settings):
    return manifest.prepare(
        manifest.Paths(manifest=path),
        manifest.Settings(short_side=64, **settings),
        cli.RunOptions(out=str(folder / out), workers=1),
        given=frozenset(given),
    )


SECTIONS = (
    ("image", "indication", "findings", "impression", "patient_id"),
    ("a.jpg", "Cough", "The lungs are clear, without effusion.", "No acute disease.", "p1"),
    ("b.jpg", "Pain", "Heart is large; the aorta is tortuous.", "Large heart.", "p2"),
    ("c.jpg", "", "Right lower lobe opacity.", "Pneumonia.", "p3"),
)


def test_prose_in_a_column_that_could_be_labels_is_text(tmp_path):
    path = table(tmp_path, *SECTIONS)
    for column in ("findings", "impression"):
        summary = prepare_table(tmp_path, path, out=column, text_column=column)
        assert summary.label_names == () and summary.text_sources == {"report": 3}
        assert f"text from {column!r}" in summary.notes[0] and "no labels" in summary.notes[0]
    assert any("'findings' holds prose" in note for note in summary.notes)
    with pytest.raises(DataError, match=r"--text_column.*'findings' and 'impression'"):
        prepare_table(tmp_path, path, out="neither")
    ignored = {"ignore_columns": ("findings", "impression")}
    with pytest.raises(DataError, match=r"3 neither_text_nor_labels.*no text column"):
        prepare_table(tmp_path, path, out="neither", **ignored)
    with pytest.raises(DataError, match=r"--labels_columns.*'findings'.*sentences"):
        prepare_table(
            tmp_path, path, out="x", text_column="impression", labels_columns=("findings",),
            given=("--labels_columns",),
        )  # fmt: skip


def test_as_many_label_names_as_rows_are_no_labels(tmp_path):
    rows = [(f"{n}.jpg", f"Word{n}", "Clear.") for n in range(30)]
    path = table(tmp_path, ("image", "labels", "text"), *rows)
    with pytest.raises(DataError, match=r"--labels_columns.*30 different label names in 30 rows"):
        prepare_table(tmp_path, path)


def test_each_label_is_counted(tmp_path):
    rows = [("a.jpg", "1.0", "True"), ("b.jpg", "0", "nan"), ("c.jpg", "-1", "false")]
    path = table(tmp_path, ("image", "Edema", " Mass "), *rows)
    summary = prepare_table(tmp_path, path, label_columns=("Edema", "Mass"))
    assert summary.labels["Edema"] == manifest_lib.LabelCounts(
        positive=1, negative=1, uncertain=1, not_mentioned=0
    )
    assert summary.labels["Mass"] == manifest_lib.LabelCounts(
        positive=1, negative=1, uncertain=0, not_mentioned=1
    )


WRONG_KINDS = {
    "a list for a text": {"text": ["Clear."]},
    "a mapping for a text": {"text": {"findings": "Clear."}},
    "a number for a text": {"text": 7},
    "a truth value for an id": {"patient_id": True},
    "a fraction for an id": {"patient_id": 1.5},
    "a list for an image": {"image": ["a.jpg"]},
    "a number for a view": {"view": 3},
    "a list for a split": {"split": ["train"]},
}


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_a_value_of_another_kind_is_rejected_by_its_column(tmp_path, kind):
    (tmp_path / "a.jpg").write_bytes(hospital.jpeg(0))
    good = {"image": "a.jpg", "id": "good", "text": "Clear."}
    bad = {**good, "id": "bad", "patient_id": "p", **WRONG_KINDS[kind]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    summary = prepare_table(tmp_path, str(tmp_path / "rows.jsonl"))
    assert summary.rejected == {"malformed_row": 1}
    (line,) = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    assert f"column '{next(iter(WRONG_KINDS[kind]))}'" in json.loads(line)["detail"]


def test_a_column_that_a_flag_names_has_to_be_there(tmp_path):
    path = table(tmp_path, ("image", "report"), ("a.jpg", "Clear."))
    with pytest.raises(DataError, match=r"--text_column.*'reports'.*did you mean 'report'"):
        prepare_table(tmp_path, path, text_column="reports")
    with pytest.raises(DataError, match=r"--split_column.*'split'"):
        prepare_table(tmp_path, path, text_column="report", given=("--split_column",))
    with pytest.raises(DataError, match=r"--label_columns.*'Edema'"):
        prepare_table(tmp_path, path, text_column="report", label_columns=("Edema",))
    with pytest.raises(DataError, match=r"--image_column.*'image'.*did you mean 'Image'"):
        prepare_table(tmp_path, table(tmp_path, ("Image", "text"), ("a.jpg", "Clear.")))
    lines = [{"image": "a.jpg", "txt": "Clear."}, {"image": "a.jpg", "id": "b", "txt": "Clear."}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"--text_column.*'txt2'.*did you mean 'txt'"):
        prepare_table(tmp_path, str(tmp_path / "rows.jsonl"), text_column="txt2")


def test_a_refused_command_leaves_no_trace_and_no_finished_set_is_lost(tmp_path):
    path = table(tmp_path, ("image", "text"), ("a.jpg", "Clear."))
    with pytest.raises(DataError, match="--text_column"):
        prepare_table(tmp_path, path, text_column="txt")
    assert not (tmp_path / "out").exists()
    first = prepare_table(tmp_path, path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    options = cli.RunOptions(out=str(tmp_path / "out"), workers=1, overwrite=True)
    for settings in ({"text_column": "txt"}, {"image_column": "text"}, {"split_column": "image"}):
        with pytest.raises(DataError):
            manifest.prepare(
                manifest.Paths(manifest=path), manifest.Settings(short_side=64, **settings), options
            )
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    second = manifest.prepare(
        manifest.Paths(manifest=path), manifest.Settings(short_side=48), options
    )
    assert second.shards != first.shards
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


def test_a_set_without_a_study_says_which_reason_took_how_many(tmp_path):
    rows = [(f"{n}.jpg", "Clear.", "heldout") for n in range(39)]
    path = table(tmp_path, ("image", "text", "split"), *rows)
    with pytest.raises(DataError, match=r"No study can be kept: rejected 39 unknown_split"):
        prepare_table(tmp_path, path)


@pytest.mark.parametrize("second", ["p1", " p1 ", "P1", "p1\u200b", "\uff501"])
def test_a_patient_written_in_two_ways_is_found_in_two_splits(tmp_path, second):
    rows = [("a.jpg", "Clear.", "p1", "train"), ("b.jpg", "Clear.", second, "test"),
            ("c.jpg", "Clear.", "p3", "train")]  # fmt: skip
    path = table(tmp_path, ("image", "text", "patient_id", "split"), *rows)
    assert prepare_table(tmp_path, path).rejected == {"patient_in_two_splits": 2}


def test_ids_of_a_data_frame_are_those_of_the_table(tmp_path):
    """A column of numbers with a gap becomes decimals; both tables give the same set."""
    rows = [(f"{n}.jpg", "Clear.", str(10_000_000 + n // 2)) for n in range(12)]
    header = ("image", "text", "patient_id")
    plain = prepare_table(tmp_path, table(tmp_path, header, *rows), out="plain")
    decimals = [(*row[:2], f"{row[2]}.0") for row in rows]
    path = table(tmp_path, header, *decimals, name="saved.csv")
    assert prepare_table(tmp_path, path, out="saved").shards == plain.shards
    rounded = [(*row[:2], "1.00E+07") for row in rows]
    with pytest.raises(DataError, match=r"--patient_column.*line 2.*rounded"):
        prepare_table(tmp_path, table(tmp_path, header, *rounded, name="r.csv"), out="rounded")
