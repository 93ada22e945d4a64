"""Open-i's preparer on reports in its own layout, whole and damaged."""

import json
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_prep import iu_xray, verify
from data_prep.kit import cli
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="{id}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">XXXX pain</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation>
<MeSH>{labels}</MeSH>{images}</eCitation>
"""


def write(
    folder, name, *, findings="Large heart. XXXX clips.", impression="", labels=(), images=()
):
    """Writes a report, and those of its images whose names do not begin with "no"."""
    for sub in ("xml", "png"):
        (folder / sub).mkdir(exist_ok=True, parents=True)
    text = REPORT.format(
        id=name,
        findings=findings,
        impression=impression,
        labels="".join(f"<major>{label}</major>" for label in labels),
        images="".join(f'<parentImage id="{image}"/>' for image in images),
    )
    (folder / "xml" / f"{name}.xml").write_text(text)
    for place, image in enumerate(images):
        if not image.startswith("no"):
            Image.new("L", (64, 80), 40 * place).save(folder / "png" / f"{image}.png")


def prepare(folder, out, *, projections="", **settings):
    return iu_xray.prepare(
        iu_xray.Paths(
            reports=str(folder / "xml"),
            images_dir=str(folder / "png"),
            projections=str(projections),
        ),
        iu_xray.Settings(short_side=64, **settings),
        cli.RunOptions(out=str(out), workers=1),
    )


def test_reports_become_records(tmp_path):
    write(tmp_path, "CXR1", labels=["normal"], images=["a", "b"], impression="Normal chest.")
    write(
        tmp_path, "CXR2", labels=["Cardiomegaly/mild", "Cardiomegaly", "no indexing"], images=["c"]
    )
    manifest = prepare(tmp_path, tmp_path / "out")
    assert manifest.label_names == ("Cardiomegaly", "No Finding")
    builder = tfds.builder_from_directory(tmp_path / "out")
    records = {
        record.study_id: record
        for split in builder.info.splits
        for record in map(schema.Record.from_example, builder.as_data_source(split))
    }
    one, two = records["CXR1"], records["CXR2"]
    assert one.sentences == ("Normal chest.", "Large heart.", "XXXX clips.")
    assert one.sentence_sections == (0, 1, 1) and one.image_ids == ("a", "b")
    assert (one.labels, two.labels) == ((-2, 1), (1, -2))
    assert two.subject_id == "CXR2"
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    write(tmp_path, "good", images=["a"])
    write(tmp_path, "bare")
    write(tmp_path, "silent", findings=" ", images=["b", "c"])
    write(tmp_path, "short", findings="Clear.", images=["d"])
    write(tmp_path, "half", images=["e", "no1"])
    write(tmp_path, "absent", images=["no2", "no3"])
    write(tmp_path, "again", images=["a"])
    (tmp_path / "xml" / "cut.xml").write_text(REPORT[:80])
    (tmp_path / "xml" / "other.xml").write_text("<note/>")
    (tmp_path / "xml" / "empty.xml").write_text("")
    manifest = prepare(tmp_path, tmp_path / "out", min_sentences=2)
    assert manifest.rejected == {
        "conflicting_rows": 2,
        "malformed_report": 3,
        "missing_image": 3,
        "no_section": 1,
        "no_usable_image": 1,
        "report_without_image": 1,
        "too_few_sentences": 1,
    }
    rows = manifest.tables[iu_xray.IMAGES]
    assert (rows.read, rows.kept, rows.images) == (9, 1, 1)
    assert sum(rows.rejected.values()) == 8
    listed = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    assert {json.loads(line)["id"] for line in listed} >= {"cut.xml", "bare", "silent", "no1"}


FRONTAL, LATERAL = "CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"


def write_projections(folder, *rows):
    lines = ("uid,filename,projection", *rows)
    (folder / "indiana_projections.csv").write_text("\n".join(lines) + "\n")
    return folder / "indiana_projections.csv"


def test_lateral_images_are_left_out_where_a_table_names_them(tmp_path):
    write(tmp_path, "CXR1", images=[FRONTAL, LATERAL])
    write(tmp_path, "CXR2", images=["CXR2_IM-0652-1001", "CXR2_IM-0652-2001"])
    write(tmp_path, "CXR3", images=["CXR3_IM-1384-2001"])
    table = write_projections(
        tmp_path,
        "1,1_IM-0001-4001.dcm.png,Lateral",
        "1,1_IM-0001-3001.dcm.png,Frontal",
        "2,2_IM-0652-1001.dcm.png,frontal",
        "2,2_IM-0652-1001.dcm.png,Frontal",
        "3,3_IM-1384-2001.dcm.png,Lateral",
        "4,4_IM-2050-1001.dcm.png,Frontal",
        "5,5_IM-2117-1003002.dcm.png,Oblique",
    )
    manifest = prepare(tmp_path, tmp_path / "out", projections=table)
    found = label_sets.every(tmp_path / "out")
    assert {name: record.image_ids for name, record in found.items()} == {
        "CXR1": (FRONTAL,),
        "CXR2": ("CXR2_IM-0652-1001",),
    }
    assert {record.views for record in found.values()} == {("FRONTAL",)}
    assert manifest.rejected == {"wrong_view": 3, "duplicate_row": 1, "malformed_row": 1}
    counts = manifest.tables[table.name]
    # Three rows are of images that reports name, and one is of no report.
    assert (counts.read, counts.kept) == (7, 4)
    assert counts.rejected["projection_of_no_image"] == 1
    assert not any("--projections" in note for note in manifest.notes)
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []
    prepare(tmp_path, tmp_path / "both", projections=table, lateral=True)
    both = label_sets.every(tmp_path / "both")
    assert both["CXR1"].views == ("FRONTAL", "LATERAL") and both["CXR2"].views == ("FRONTAL", "")


def test_rows_of_projections_that_differ_say_nothing(tmp_path):
    write(tmp_path, "CXR1", images=[FRONTAL, LATERAL])
    rows = [f"1,1_IM-0001-4001.dcm.png,{side}" for side in ("Frontal", "Lateral", "Frontal")]
    table = write_projections(tmp_path, "1,1_IM-0001-3001.dcm.png,Frontal", *rows)
    manifest = prepare(tmp_path, tmp_path / "out", projections=table)
    assert manifest.rejected == {"conflicting_rows": 3, "wrong_view": 1}
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


def test_without_projections_the_summary_says_that_lateral_images_are_kept(tmp_path):
    write(tmp_path, "CXR1", images=[FRONTAL, LATERAL])
    manifest = prepare(tmp_path, tmp_path / "out")
    assert any("Warning: lateral images are kept" in note for note in manifest.notes)
    for content in ("uid,filename\n", "uid,projection\n"):
        (tmp_path / "odd.csv").write_text(content)
        with pytest.raises(DataError, match="--projections"):
            prepare(tmp_path, tmp_path / "odd", projections=tmp_path / "odd.csv")


def report_of(folder, abstract):
    (folder / "one.xml").write_text(f'<e><uId id="CXR1"/>{abstract}<major>a<b>c</b></major></e>')
    return iu_xray.read_report(folder / "one.xml")[2]


def test_sections_are_read_whole_in_every_spelling(tmp_path):
    found = report_of(
        tmp_path,
        '<AbstractText Label="Findings">Heart is <i>normal</i>. No <b>left</b> mass.</AbstractText>'
        '<AbstractText Label=" impression ">Clear.</AbstractText><AbstractText>No.</AbstractText>'
        '<AbstractText Label="FINDINGS"/><AbstractText Label="FINDINGS">Clips.</AbstractText>',
    )
    assert found["FINDINGS"] == "Heart is normal. No left mass.\n\nClips."
    assert (found["IMPRESSION"], found["labels"]) == ("Clear.", ["ac"])
    assert report_of(tmp_path, "")["FINDINGS"] == ""


def test_a_second_report_of_one_id_is_rejected_by_name(tmp_path):
    write(tmp_path, "CXR1", images=["a"])
    write(tmp_path, "CXR2", images=["b", "c"])
    second = (tmp_path / "xml" / "CXR2.xml").read_text().replace('uId id="CXR2"', 'uId id="CXR1"')
    (tmp_path / "xml" / "CXR2.xml").write_text(second)
    manifest = prepare(tmp_path, tmp_path / "out")
    rows = manifest.tables[iu_xray.IMAGES]
    assert manifest.rejected == {"duplicate_report": 1}
    assert (rows.read, rows.kept, rows.rejected) == (3, 1, {"duplicate_report": 2})
    (line,) = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    assert "CXR2.xml has the same uId as CXR1.xml" in line
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


def test_bad_arguments_end_in_one_line(tmp_path):
    (tmp_path / "xml").mkdir()
    with pytest.raises(DataError, match="--images_dir"):
        write(tmp_path, "one")
        iu_xray.prepare(
            iu_xray.Paths(reports=str(tmp_path / "xml"), images_dir=str(tmp_path / "absent")),
            iu_xray.Settings(),
            cli.RunOptions(out=str(tmp_path / "out")),
        )
    with pytest.raises(ConfigError, match="--split_fractions"):
        iu_xray.Settings(split_fractions=("1", "1"))
    command = [sys.executable, "-m", "data_prep.iu_xray", f"--reports={tmp_path}/none"]
    ended = subprocess.run(
        [*command, "--images_dir=x", f"--out={tmp_path}/out"], capture_output=True, text=True
    )
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert "--reports" in ended.stderr
