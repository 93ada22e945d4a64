"""Custom manifests: columns, labels, sentences made of labels, damage."""

import collections
import csv
import json

import pytest
import tensorflow_datasets as tfds

from data_prep import manifest, verify
from data_prep.kit import cli
from data_prep.kit.label_sentences import label_sentences
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import hospital

NIH = "NIH ChestX-ray14"


def prepare(folder, rows, *, name="rows.jsonl", out="out", **settings):
    path = folder / name
    if name.endswith(".csv"):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    for row in rows:
        if isinstance(row, dict) and row.get("image", "").endswith(".jpg"):
            (folder / row["image"]).parent.mkdir(exist_ok=True, parents=True)
            (folder / row["image"]).write_bytes(hospital.jpeg(len(row["image"])))
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
    with pytest.raises(DataError, match="tables without a row"):
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
