"""CheXpert Plus's preparer on files in its own layout, whole, odd and damaged."""

import csv
import json

import pytest

from data_prep import chexpert, chexpert_plus, chexpert_plus_copies
from data_prep.kit import cli
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

FINDINGS = "The lungs are clear.\nThe heart is not enlarged."
IMPRESSION = "1. No acute disease."


def path_of(patient, *, folder="train", study=1, view="view1_frontal"):
    return f"{folder}/patient{patient:05d}/study{study}/{view}.jpg"


def row(path, **changes):
    return {
        "path_to_image": path,
        "path_to_dcm": path.replace(".jpg", ".dcm"),
        "frontal_lateral": "Lateral" if "lateral" in path else "Frontal",
        "ap_pa": "" if "lateral" in path else "AP",
        "deid_patient_id": path.split("/")[1] if path.count("/") > 1 else "",
        "report": "NARRATIVE:\n...",
        "section_findings": FINDINGS,
        "section_impression": IMPRESSION,
        "age": "58.0",
        "sex": "Female",
        "split": path.partition("/")[0],
        **changes,
    }


def write(folder, rows, *, absent=(), suffix=".png"):
    folder.mkdir(exist_ok=True, parents=True)
    with open(folder / "plus.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    (folder / "PNG").mkdir(exist_ok=True)
    for number, one in enumerate(rows):
        path = one["path_to_image"]
        if path.endswith(".jpg") and path not in absent:
            label_sets.write_png((folder / "PNG" / path).with_suffix(suffix), number)
    return folder


def prepare(folder, *, out="out", labels="", exclude="", **settings):
    return chexpert_plus.prepare(
        chexpert_plus.Paths(
            table=str(folder / "plus.csv"),
            images_dir=str(folder / "PNG"),
            labels=str(labels),
            exclude_5x200=str(exclude),
        ),
        chexpert_plus.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / out), workers=1),
    )


def write_labels(folder, rows, *, name="impression_fixed.json"):
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def labels_of(path, **said):
    found = {name: said.get(name.replace(" ", "_")) for name in chexpert.LABELS}
    return {"path_to_image": path, **found}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_study_keeps_its_frontal_images_its_report_and_its_labels(tmp_path, suffix):
    rows = [
        row(path_of(1)),
        row(path_of(1, view="view2_frontal"), ap_pa="PA"),
        row(path_of(1, view="view3_lateral")),
        row(path_of(1, study=2), section_findings="", sex="Unknown", age=""),
        row(path_of(2), sex="Male"),
        row(path_of(3, folder="valid"), section_impression="nan"),
    ]
    write(tmp_path, rows, suffix=suffix)
    said = [labels_of(one["path_to_image"], Edema=1.0, Fracture=-1.0) for one in rows[:3]]
    labels = write_labels(tmp_path, [*said, labels_of(path_of(9), Edema=0.0)])
    manifest = prepare(tmp_path, labels=labels)
    found = label_sets.records(tmp_path / "out")
    assert sorted(found["train"]) == [
        f"train/patient{patient:05d}/study{study}" for patient, study in ((1, 1), (1, 2), (2, 1))
    ]
    assert list(found["validate"]) == ["valid/patient00003/study1"]
    one = found["train"]["train/patient00001/study1"]
    assert one.views == ("AP", "PA") and (one.sex, one.age) == ("F", 58.0)
    assert one.subject_id == "patient00001" and one.text_source == "report"
    assert one.findings == FINDINGS and one.impression == IMPRESSION
    assert one.sentences[-2:] == ("The lungs are clear.", "The heart is not enlarged.")
    of_name = dict(zip(manifest.label_names, one.labels, strict=True))
    assert (of_name["Edema"], of_name["Fracture"], of_name["Pneumonia"]) == (1, -1, -2)
    assert set(found["train"]["train/patient00002/study1"].labels) == {-2}
    assert found["train"]["train/patient00001/study2"].sex == ""
    assert manifest.rejected["wrong_view"] == 1 and manifest.published_split == "official"
    counts = manifest.tables["impression_fixed.json"]
    # The labels of the lateral image are of no kept image.
    assert (counts.read, counts.kept) == (4, 2)
    label_sets.assert_sound(tmp_path / "out")


def test_a_set_without_labels_and_with_lateral_images(tmp_path):
    write(tmp_path, [row(path_of(1)), row(path_of(1, view="view2_lateral"))])
    manifest = prepare(tmp_path, lateral=True, split="seeded")
    (record,) = label_sets.every(tmp_path / "out").values()
    assert record.views == ("AP", "LATERAL") and manifest.label_names == ()
    assert manifest.published_split == ""


def test_images_of_the_5x200_are_left_out_and_their_patients_are_told_or_left_out(tmp_path):
    rows = [row(path_of(p, view=f"view{v}_frontal")) for p in (1, 2, 3) for v in (1, 2)]
    write(tmp_path, [*rows, row(path_of(4))])
    entries = [{"image_path": path_of(p), "label": [1, 0, 0, 0, 0]} for p in (1, 2, 77)]
    chosen = tmp_path / "5x200.json"
    chosen.write_text(json.dumps(dict(enumerate(entries))))
    manifest = prepare(tmp_path, exclude=chosen)
    found = label_sets.every(tmp_path / "out")
    assert sum(len(record.images) for record in found.values()) == 5
    assert manifest.rejected == {"held_out_for_5x200": 2}
    notes = " ".join(manifest.notes)
    assert "Of 3 images of 3 patients to leave out, the table has 2." in notes
    assert "2 patients of the 5x200 stand in the training split with 2 other images" in notes
    listed = write_labels(tmp_path, [f"CheXpert-v1.0/{path_of(1)}"], name="list.txt")
    manifest = prepare(tmp_path, exclude=listed, exclude_patients=True, out="fewer")
    assert manifest.rejected == {"held_out_for_5x200": 1, "patient_of_5x200": 1}
    assert "Warning" not in " ".join(manifest.notes)
    label_sets.assert_sound(tmp_path / "fewer")


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    rows = [
        row(path_of(1)),
        row(path_of(1)),
        row(path_of(2), section_findings="", section_impression=" "),
        row(path_of(3), split=""),
        row(path_of(4), split="fold 1"),
        row(path_of(5), age="old"),
        row(path_of(6), sex="2"),
        row(path_of(7), frontal_lateral="Oblique"),
        row("images/7.jpg"),
        row(""),
        row(path_of(8)),
        row(path_of(8, view="view2_frontal"), section_findings="Another report."),
        row(path_of(9)),
        row(path_of(9, view="view2_frontal"), age="59"),
        row(path_of(10)),
        row(path_of(11)),
        row(path_of(12), age="414"),
        row(path_of(13), report='A "quoted"\nreport, of lines.'),
    ]
    write(tmp_path, rows, absent=(path_of(10),))
    label_sets.truncate((tmp_path / "PNG" / path_of(11)).with_suffix(".png"))
    manifest = prepare(tmp_path)
    counts = manifest.tables["plus.csv"]
    damage = counts.rejected.pop("truncated_image", 0) or counts.rejected.pop("undecodable_image")
    assert damage == 1
    assert counts.rejected == {
        "conflicting_age": 2,
        "conflicting_text": 2,
        "duplicate_row": 1,
        "incomplete_row": 1,
        "malformed_row": 3,
        "missing_image": 1,
        "no_section": 1,
        "row_without_split": 1,
        "unknown_path": 1,
        "unknown_split": 1,
    }
    kept = sorted(record.subject_id for record in label_sets.every(tmp_path / "out").values())
    assert kept == ["patient00001", "patient00012", "patient00013"]
    label_sets.assert_sound(tmp_path / "out")


def test_odd_rows_of_labels_are_counted_and_other_files_refused(tmp_path):
    write(tmp_path, [row(path_of(1)), row(path_of(2))])
    good = labels_of(path_of(1), Edema=1)
    odd = ["{", "[]", {"Edema": 1}, {**labels_of(path_of(2)), "Edema": "yes please"}, good]
    manifest = prepare(tmp_path, labels=write_labels(tmp_path, [good, *odd, ""]))
    assert manifest.tables["impression_fixed.json"].rejected == {
        "duplicate_row": 1,
        "incomplete_row": 1,
        "malformed_row": 3,
    }
    table = tmp_path / "train.csv"
    table.write_text(f"Path,Edema\nCheXpert-v1.0/{path_of(2)},0.0\n")
    manifest = prepare(tmp_path, labels=table, out="csv")
    assert manifest.labels["Edema"].negative == 1
    for name, text in (("a.json", '{"x": 1}'), ("b.csv", "Path,x\na,1\n"), ("c.json", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="--labels"):
            prepare(tmp_path, labels=tmp_path / name, out="none")


def test_flags_and_tables_that_do_not_fit_are_refused_by_name(tmp_path):
    write(tmp_path, [row(path_of(1))])
    with pytest.raises(ConfigError, match="--exclude_patients"):
        prepare(tmp_path, exclude_patients=True)
    with pytest.raises(ConfigError, match="--split"):
        chexpert_plus.Settings(split="gloria")
    (tmp_path / "list.txt").write_text("images/7.jpg\n")
    with pytest.raises(DataError, match="--exclude_5x200"):
        prepare(tmp_path, exclude=tmp_path / "list.txt")
    (tmp_path / "plus.csv").write_text("path_to_image,section_findings\na,b\n")
    with pytest.raises(DataError, match=r"--table.*section_impression"):
        prepare(tmp_path)


COPIES = (
    ("1.  2021/2/6 QS/1 Data Systems AT 0951\nCLEAR.", "1. 3/18/2009 kollabio AT 0951 CLEAR."),
    ("NO CHANGE SINCE 5/2/2000. AGAIN, CLEAR.", "NO CHANGE SINCE 7-10-13. AGAIN, CLEAR."),
    ("Told to Dr. Smith on May 5.", "Told to Dr. Mary A. Jones on June 12."),
    ("TOLD TO DR. SMITH.", "TOLD TO DR. JONES."),
    ("Read by John Smith. No effusion.", "Read by Peter Miller. No effusion."),
    ("No change\nsince 5/2.", "No change since 6/3."),
)
OTHERS = (
    ("No effusion.", "Small effusion."),
    ("NO EFFUSION.", "SMALL EFFUSION."),
    ("1. Stable edema.", "1. New edema."),
    ("Stable lines\nRight effusion", "Stable lines\nLeft effusion"),
    ("5/2/2000 no effusion", "7/10/13 small effusion"),
    ("Edema may be new.", "Edema could be new."),
    ("Seen in the AP view.", "Seen in the PA view."),
    ("The lungs are clear.", ""),
)


def test_copies_of_a_report_are_told_from_other_reports():
    for one, other in COPIES:
        assert chexpert_plus_copies.same_report(one, other), one
        assert chexpert_plus_copies.same_report(other, one), one
    for one, other in OTHERS:
        assert not chexpert_plus_copies.same_report(one, other), one
        assert not chexpert_plus_copies.same_report(other, one), one
