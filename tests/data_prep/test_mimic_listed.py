"""A list of images of MIMIC-CXR, such as MIMIC 5x200, as a set to evaluate on."""

import gzip

import pytest

from data_prep import mimic_cxr
from data_prep.kit import cli
from prior_jax.data import schema
from prior_jax.errors import DataError
from tests.data_prep import hospital, label_sets, mimic_runs

STUDIES = 24


@pytest.fixture
def drawn(tmp_path):
    return tmp_path, hospital.draw(tmp_path, studies=STUDIES)


def prepare(root, only, *, out="out", **settings):
    return mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(root), only=str(only)),
        mimic_cxr.Settings(**{"short_side": 64, "min_sentences": 1, **settings}),
        cli.RunOptions(out=str(root / out), workers=1),
    )


def write(root, names, *, name="only.txt"):
    (root / name).write_text("\n".join(names) + "\n")
    return root / name


def labels_of(root, study):
    with gzip.open(root / "mimic-cxr-2.0.0-chexpert.csv.gz", "rt") as file:
        lines = [line.strip().split(",") for line in file]
    found = [line[2:] for line in lines if line[1] == str(study)]
    return tuple(int(float(value)) for value in found[0]) if found else (-2,) * 3


def test_listed_images_are_records_of_the_test_split_with_labels_and_reports(drawn):
    root, studies = drawn
    chosen = [studies[place] for place in (1, 2, 3, 8, 20)]
    names = [hospital.dicom(study, "PA") for _, study in chosen]
    manifest = prepare(root, write(root, names))
    found = label_sets.records(root / "out")
    assert list(found) == ["test"] and sorted(found["test"]) == sorted(names)
    for (subject, study), name in zip(chosen, names, strict=True):
        record = found["test"][name]
        assert record.subject_id == f"p{subject}" and record.image_ids == (name,)
        assert record.labels == labels_of(root, study) and record.views == ("PA",)
        assert f"number {study - 50_000_000}" in record.findings
        assert record.impression.strip() == "No acute disease."
    rows = manifest.tables["mimic-cxr-2.0.0-metadata.csv.gz"]
    assert (rows.read, rows.kept) == (2 * STUDIES, 5)
    assert rows.rejected == {"image_not_listed": 2 * STUDIES - 5}
    assert "only.txt" in manifest.inputs
    notes = " ".join(manifest.notes)
    assert "Of 5 listed images 5 are chosen, of 4 patients." in notes
    assert "stand in the training split" in notes
    label_sets.assert_sound(root / "out")


def test_two_images_of_a_study_are_two_records_with_one_report(drawn):
    root, studies = drawn
    (subject, study), other = studies[4], studies[5]
    names = [hospital.dicom(study, view) for view in ("PA", "LATERAL")]
    names.append(hospital.dicom(other[1], "PA"))
    prepare(root, write(root, names), views=("PA", "LATERAL"))
    found = label_sets.every(root / "out")
    assert sorted(found) == sorted(names)
    one, two = (found[name] for name in names[:2])
    assert one.sentences == two.sentences and one.labels == two.labels
    assert one.subject_id == two.subject_id == f"p{subject}"
    assert {one.views, two.views} == {("PA",), ("LATERAL",)}
    label_sets.assert_sound(root / "out")


def test_the_five_findings_are_counted(drawn):
    root, studies = drawn

    def five(lines):
        header = "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Pleural Effusion"
        rows = [f"{p},{s},1.0,,0.0,-1.0,{'1.0' if n % 3 == 0 else ''}" for n, (p, s) in lines]
        return [header, *rows]

    mimic_runs.edit_table(root, "chexpert", lambda _: five(list(enumerate(studies))))
    names = [hospital.dicom(study, "PA") for _, study in studies[:9]]
    notes = " ".join(prepare(root, write(root, names)).notes)
    assert "6 Atelectasis, 0 Cardiomegaly, 0 Consolidation, 0 Edema, 0 Pleural Effusion" in notes
    assert "3 images have none or more" in notes


def test_what_is_odd_is_right_or_refused_by_name_and_counted(drawn):
    root, studies = drawn
    pa = [hospital.dicom(study, "PA") for _, study in studies]
    folder = "files/p10/p10000032/s50414267"
    listed = [
        pa[0],
        pa[0],  # twice in the list
        f"{folder}/{pa[1]}.jpg",  # a path
        f"  {pa[2]}.dcm  1 0",  # with a suffix, and labels behind it
        hospital.dicom(studies[3][1], "LATERAL"),
        "0123-unknown",
        "",
        "x" * 90,  # longer than an id
        pa[5],
        pa[6],
        pa[7],
        pa[8],
        "Ärger",
    ]
    report, _ = hospital.paths_of(root, *studies[5])
    report.unlink()
    _, image = hospital.paths_of(root, *studies[6])
    image.write_bytes(image.read_bytes()[:300])
    report, _ = hospital.paths_of(root, *studies[7])
    report.write_text("FINAL REPORT\n")
    _, image = hospital.paths_of(root, *studies[8])
    image.unlink()
    manifest = prepare(root, write(root, listed))
    assert sorted(label_sets.every(root / "out")) == sorted(pa[:3])
    rejected = dict(manifest.rejected)
    assert rejected.pop("listed_without_row") == 3
    assert rejected.pop("wrong_view") == 1 and rejected.pop("study_without_image") == 1
    assert rejected.pop("missing_report") == 1 and rejected.pop("missing_image") == 1
    assert rejected.pop("truncated_image") == 1 and rejected.pop("no_usable_image", 2) == 2
    assert sum(rejected.values()) == 1, rejected  # the report without a section
    label_sets.assert_sound(root / "out")


@pytest.mark.parametrize("column", ["dicom_id", "Image", "path"])
def test_a_table_of_ids_is_read_by_its_column(drawn, column):
    root, studies = drawn
    names = [hospital.dicom(study, "PA") for _, study in studies[:3]]
    lines = [f"subject,{column}", *(f"{n},{name}" for n, name in enumerate(names))]
    prepare(root, write(root, lines, name="only.csv"))
    assert sorted(label_sets.every(root / "out")) == sorted(names)


def test_a_list_that_names_nothing_is_refused_by_name(drawn):
    root, _ = drawn
    with pytest.raises(DataError, match="--only"):
        prepare(root, root / "absent.txt")
    with pytest.raises(DataError, match=r"empty\.txt"):
        prepare(root, write(root, [""], name="empty.txt"))
    with pytest.raises(DataError, match="listed_without_row"):
        prepare(root, write(root, ["a", "b"]))
    assert not (root / "out").exists()


def test_without_a_list_nothing_changes(drawn):
    root, _ = drawn
    manifest = prepare(root, "")
    assert len(label_sets.every(root / "out")) == STUDIES
    assert all(": not read: " in note for note in manifest.notes)
    assert set(label_sets.records(root / "out")) <= set(schema.SPLITS)
    assert all(name.startswith("s") for name in label_sets.every(root / "out"))
