"""What MIMIC-CXR's preparer makes of a whole hospital, and of its settings."""

import zipfile

import pytest
import tensorflow_datasets as tfds

from data_prep import mimic_cxr, verify
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import hospital
from tests.data_prep.mimic_runs import prepare


def test_records_hold_what_the_hospital_holds(tmp_path):
    drawn = hospital.draw(tmp_path / "raw", studies=24)
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    assert manifest.splits["train"] == manifest_lib.SplitCounts(
        studies=20, images=20, subjects=10, sentences=100
    )
    assert manifest.rejected == {"wrong_view": 24}
    assert manifest.label_names == ("Atelectasis", "Edema", "No Finding")
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert builder.info.splits["train"].num_bytes > 20 * 1000
    source = builder.as_data_source("train")
    records = {r.study_id: r for r in map(schema.Record.from_example, source)}
    assert len(records) == 20
    for number in (0, 1, 2, 3, 4, 5, 8, 13):
        subject, study = drawn[number]
        record = records[f"s{study}"]
        assert record.subject_id == f"p{subject}"
        assert record.image_ids == (hospital.dicom(study, "PA"),)
        assert record.views == ("PA",)
        assert record.labels == ((1, number % 2, -1) if number % 5 else (-2, -2, -2))
        assert record.sentence_sections == (0, 1, 1, 1, 1)
        assert record.sentences[0] == "No acute disease."
        assert record.sentences[1] == f"The lungs are clear number {number}."
        assert record.sentences[4] == "There is a 3 cm. nodule in the left lung."
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []


def test_layouts_give_the_same_records(tmp_path):
    """Reports in a folder or zipped, tables of 2.0.0 or 2.1.0."""
    shards = []
    for zipped, version in ((False, "2.0.0"), (True, "2.0.0"), (True, "2.1.0")):
        root = tmp_path / f"{zipped}{version}"
        hospital.draw(root, studies=12, zipped=zipped, version=version)
        shards.append(prepare(root, tmp_path / f"out{zipped}{version}").shards)
    assert shards[0] == shards[1] == shards[2]


def test_reports_are_found_or_asked_for(tmp_path):
    hospital.draw(tmp_path / "raw", studies=4, zipped=True)
    expected = prepare(tmp_path / "raw", tmp_path / "a").shards
    (tmp_path / "raw" / "reports").mkdir()
    archive = tmp_path / "raw" / "mimic-cxr-reports.zip"
    archive = archive.rename(tmp_path / "raw" / "reports" / archive.name)
    assert prepare(tmp_path / "raw", tmp_path / "b").shards == expected
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(archive.parent)
    archive.unlink()
    assert prepare(tmp_path / "raw", tmp_path / "c").shards == expected
    (archive.parent / "files").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="--reports"):
        prepare(tmp_path / "raw", tmp_path / "d")
    got = prepare(tmp_path / "raw", tmp_path / "d", reports=tmp_path / "elsewhere")
    assert got.shards == expected


def test_special_studies_are_read_by_hand_but_not_in_release_mode():
    content = (" x\n FINDINGS:  " + "Clear. " * 80).encode()
    special = {"study": "s50525523"}  # its findings stand at characters 201 to 349
    paper = mimic_cxr.read_report(content, settings=mimic_cxr.Settings(), **special)
    assert len(paper.findings) == 349 - 201
    release = mimic_cxr.read_report(
        content, settings=mimic_cxr.Settings(parser="release"), **special
    )
    assert len(release.sentences) == 80


def test_sentences_can_be_glorias_words():
    content = b"FINDINGS:  Normal.\n A 3.5 cm nodule. No change.\n"
    expected = {
        "pysbd": ("Normal.", "A 3.5 cm nodule.", "No change."),
        "gloria_paper": ("normal", "a 3.5 cm nodule", "no change"),
        "gloria_release": ("5 cm nodule", "no change"),
    }
    for splitter, sentences in expected.items():
        settings = mimic_cxr.Settings(splitter=splitter, min_sentences=1)
        found = mimic_cxr.read_report(content, study="1", settings=settings)
        assert found.sentences == sentences


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"views": ("LATERAL",)}, (12, 60)),
        ({"views": ("PA", "LATERAL")}, (24, 60)),
        ({"sections": ("findings",)}, (12, 48)),
        ({"sections": ("impression",), "min_sentences": 1}, (12, 12)),
        ({"parser": "release"}, (12, 60)),
    ],
)
def test_selection_flags(tmp_path, settings, kept):
    hospital.draw(tmp_path / "raw", studies=12)
    counts = prepare(tmp_path / "raw", tmp_path / "out", **settings).splits["train"]
    assert (counts.images, counts.sentences) == kept


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_sentences": -1}, "--min_sentences"),
        ({"sections": ("findigs",)}, "--sections"),
        ({"parser": "other"}, "--parser"),
        ({"splitter": "other"}, "--splitter"),
        ({"report_encoding": "utf-7777"}, "--report_encoding"),
        ({"jpeg_quality": 0}, "--jpeg_quality"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, name):
    with pytest.raises(ConfigError, match=name):
        mimic_cxr.Settings(**settings)
